"""Ctrl-C and SIGTERM end a command soon, with the status of shells and no traceback, whatever it is doing."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer

from commands import interrupts
from commands.interrupts import FINISHED_STAYS, stopped_line
from commands.terminal import UNCHANGED, refusals
from tests.building import write_pictures

pytestmark = pytest.mark.slow

TAKEN_OVER = """
import hashlib, os, signal, sys, threading, time
from commands import interrupts
interrupts.PATIENCE_S = 0.5
interrupts.take_over()
class Dropping:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)
try:
    {body}
except KeyboardInterrupt:
    print("raised")
    interrupts.leave()
"""


def ended(body: str) -> tuple[int, str, str]:
    """Status, output and complaints of a process in which `body` runs as a command does."""
    done = subprocess.run([sys.executable, "-c", TAKEN_OVER.format(body=body)], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_call_that_does_not_come_back_is_left(number: signal.Signals) -> None:
    begun = time.monotonic()
    in_a_while = f"threading.Timer(0.1, os.kill, (os.getpid(), {int(number)})).start()"
    stuck = "hashlib.pbkdf2_hmac('sha256', b'x', b'y', 50_000_000)"  # as Ray's C++: no line of Python until it returns
    assert ended(f"{in_a_while}; {stuck}") == (128 + number, "", FINISHED_STAYS + "\n")
    assert time.monotonic() - begun < 4.5


def test_an_import_is_finished_before_the_interrupt_is_raised(tmp_path: Path) -> None:
    (tmp_path / "interrupted.py").write_text("import signal; signal.raise_signal(signal.SIGINT); print('imported')")
    body = f"sys.path.insert(0, {str(tmp_path)!r}); import interrupted; time.sleep(20)"
    assert ended(body) == (130, "imported\nraised\n", "")


def test_an_interrupt_that_a_destructor_drops_is_raised_again() -> None:
    assert ended("Dropping(); time.sleep(20)") == (130, "raised\n", "")


def test_a_signal_that_another_has_taken_over_is_left_to_it() -> None:
    body = "signal.signal(signal.SIGINT, lambda *_: print('mine')); signal.raise_signal(signal.SIGINT); time.sleep(0.8)"
    assert ended(body) == (0, "mine\n", "")


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


@pytest.mark.parametrize("redo", [["--redo", "caption"], ["--redo=caption"]])
def test_a_command_that_computes_anew_is_not_named_as_the_way_to_go_on(
    redo: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interrupts, "last_line", None)
    monkeypatch.setattr(sys, "argv", ["sigma", "build", "r.yaml"])
    assert stopped_line() == FINISHED_STAYS
    monkeypatch.setattr(sys, "argv", ["sigma", "build", "r.yaml", *redo])
    assert stopped_line().endswith("run the same command without --redo to go on")


def test_a_command_that_only_shows_does_not_speak_of_what_it_finished() -> None:
    with pytest.raises(typer.Exit), refusals(UNCHANGED):
        assert stopped_line() == UNCHANGED
        raise KeyboardInterrupt
