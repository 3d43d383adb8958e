"""Tests that run in several workers end as they would in one process, and a worker that dies is no test that passed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.processes import run_python
from tests.workers import LONGEST

pytestmark = pytest.mark.slow

CONFTEST = """
from tests.conftest import pytest_addoption, pytest_runtestloop
"""
FIRST = """
import os, pytest

@pytest.fixture(scope="session")
def shared():
    yield os.getpid()
    print_into("ended")

def print_into(name):
    with open(name, "a") as file:
        file.write(f"{os.getpid()}\\n")

@pytest.mark.parametrize("number", range(3))
def test_passes(shared, number, tmp_path):
    print_into("ran")
    assert shared == os.getpid() and "worker-" in str(tmp_path)

def test_fails():
    print("what it printed")
    assert 1 == 2
"""
SECOND = """
import os

def test_passes():
    pass

def test_dies():
    os.kill(os.getpid(), 9)

def test_after_it():
    pass
"""


def run(folder: Path, *options: str) -> tuple[int, str]:
    """Exit code and output of pytest in a folder."""
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "pytest.ini").write_text("[pytest]\n")
    plain = ["-m", "pytest", *options]
    done = run_python(*plain, cwd=folder)
    return done.returncode, done.stdout + done.stderr


def test_reports_of_all_workers_come_together(tmp_path: Path) -> None:
    (tmp_path / "test_first.py").write_text(FIRST)
    (tmp_path / "test_second.py").write_text(SECOND)
    code, out = run(tmp_path, "--workers", "2")
    assert code == 1 and "3 failed, 4 passed" in out
    assert "what it printed" in out and out.count("FAILED") == out.count(" - the worker ended with -9") + 1 == 3
    assert {*re.findall(r"FAILED (\S+)", out)} == {
        "test_first.py::test_fails", "test_second.py::test_dies", "test_second.py::test_after_it"
    }  # fmt: skip
    ran, ended = ((tmp_path / name).read_text().split() for name in ("ran", "ended"))
    assert len(ran) == 3 and {*ran} == {*ended}


def test_files_whose_worker_has_died_are_left_to_the_others_or_fail(tmp_path: Path) -> None:
    for name in ("test_one.py", "test_two.py"):
        (tmp_path / name).write_text(SECOND)
    code, out = run(tmp_path, "--workers", "1")
    assert code == 1 and "5 failed, 1 passed" in out and out.count(" - no worker was left to run it") == 3


def test_the_files_that_take_longest_are_there() -> None:
    assert [name for name in LONGEST if not (Path(__file__).parent / name).is_file()] == []
