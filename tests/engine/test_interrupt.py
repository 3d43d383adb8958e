"""Ctrl-C while Ray starts or stops ends the process soon, with status 130 and no traceback."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.ray_runner import INTERRUPTED, ends_on_interrupt
from tests.building import write_pictures

pytestmark = pytest.mark.slow

STUCK = """
import hashlib
from engine.ray_runner import ends_on_interrupt
with ends_on_interrupt(0.3{more}):
    print("in", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"x", b"y", 50_000_000)  # as Ray's C++: no line of Python until it returns
"""


@pytest.mark.parametrize("more", ["", ", interrupted=True"])
def test_a_call_that_does_not_come_back_is_left(more: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STUCK.format(more=more)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "in\n"
        if not more:
            process.send_signal(signal.SIGINT)
        begun = time.monotonic()
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (INTERRUPTED, "")
    assert time.monotonic() - begun < 4.5


def test_a_block_that_ends_leaves_nothing_behind() -> None:
    before = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(before)
    with pytest.raises(KeyboardInterrupt), ends_on_interrupt(0.1):
        signal.raise_signal(signal.SIGINT)
    time.sleep(0.2)
    assert signal.set_wakeup_fd(before) == before


@pytest.mark.parametrize("seconds", [1.0, 3.0])
def test_ctrl_c_while_ray_starts_ends_with_130(seconds: float, tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos", [(96, 64)] * 3)
    knobs = [f"images={tmp_path / 'photos'}", f"out={tmp_path / 'out'}", "run.runner=ray"]
    command = [sys.executable, "-m", "sigma", "build", "folder", *knobs]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said
