"""The end of a group of processes: they leave together after a success, and at once after an error."""

from __future__ import annotations

import os
import subprocess
import time

import pytest
import torch

from tests.training.runs import start_group
from training.parallel.distributed import World

pytestmark = pytest.mark.slow

PROGRAM = """
import sys, time
from training.parallel.distributed import world

slow, fails = sys.argv[1] == "slow", sys.argv[2] == "fails"
try:
    with world(timeout_s=60):
        time.sleep(2 if slow else 0)
        if fails:
            raise KeyError("an error of this process alone")
        print("inside", time.time())
except (KeyError, ValueError) as error:
    print("failed", time.time(), error)
else:
    print("left", time.time())
"""


def outputs(tmp_path, fails: str) -> list[dict[str, float]]:
    """What two processes print, a quick one and a slow one, as the moment of each word; both exit with 0."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    programs = [(program, "quick", fails), (program, "slow", "succeeds")]
    processes = start_group(programs, os.environ, stdout=subprocess.PIPE, text=True)
    lines = [process.communicate(timeout=60)[0].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    return [{line.split()[0]: float(line.split()[1]) for line in found} for found in lines]


def test_a_finished_process_leaves_the_group_only_when_the_others_have_finished(tmp_path):
    quick, slow = outputs(tmp_path, fails="succeeds")
    assert quick["inside"] < slow["inside"] < quick["left"]


def test_a_failed_process_leaves_at_once_and_the_others_take_it_for_lost(tmp_path):
    started = time.time()
    quick, slow = outputs(tmp_path, fails="fails")
    assert started < quick["failed"] < slow["inside"] < slow["failed"]


@pytest.mark.parametrize(
    ("rank", "size", "local", "expected"),
    [(0, 1, None, (0, 1)), (5, 8, "4", (1, 2)), (3, 8, "4", (0, 2)), (2, 8, None, (0, 1)), (5, 6, "4", (0, 1))],
)
def test_a_process_knows_its_machine_from_torchrun(monkeypatch, rank, size, local, expected):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if local is not None:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", local)
    assert World(rank, size, torch.device("cpu")).node == expected
