"""Ctrl-C at any moment of a build on Ray: its exit status, the seconds to its end, and the processes that outlive it.

`python -m benchmarks.interrupts [RUNS]` also prints every run.
"""

from __future__ import annotations

import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.building import write_pictures

RUNS = 50
FIRST_S, LAST_S = 0.1, 12.0
"""From before the first import to the middle of the jobs."""
LEFT_AFTER_S = 2.0
"""Ray's own processes may take so long to see that the driver is gone."""
MARK = "SIGMA_BENCHMARK_RUN"
"""A variable of the environment that every process of a run inherits."""


@dataclass(frozen=True)
class Interrupted:
    """What came of one run; `status` is negative where a signal ended it."""

    after_s: float
    ended_before: bool
    status: int
    seconds: float
    num_left: int
    last_line: str


def interrupted(photos: Path, out: Path, after_s: float) -> Interrupted:
    """Start a build, send its process group what a terminal sends at Ctrl-C, and wait for its end."""
    mark = str(uuid.uuid4())
    command = [sys.executable, "-m", "sigma", "build", "folder", f"images={photos}", f"out={out}"]
    command += ["part_rows=10", "select.min_short_side_px=1", "run.workers=2"]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell has ignored stays ignored in the command
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {MARK: mark},
    )
    time.sleep(after_s)
    ended_before, begun = process.poll() is not None, time.monotonic()
    if not ended_before:
        os.killpg(process.pid, signal.SIGINT)
    try:
        _, said = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        _, said = process.communicate()
    seconds = time.monotonic() - begun
    time.sleep(LEFT_AFTER_S)
    left = marked(mark)
    for each in left:
        each.kill()
    lines = said.strip().splitlines()
    return Interrupted(after_s, ended_before, process.returncode, seconds, len(left), lines[-1] if lines else "")


def marked(mark: str) -> list[psutil.Process]:
    """The processes of a run."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark:
                found.append(process)
        except (psutil.AccessDenied, psutil.NoSuchProcess):
            continue
    return found


def survey(folder: Path, runs: int) -> Iterator[Interrupted]:
    """Runs interrupted at times spread evenly, in random order."""
    write_pictures(folder / "photos", [(320, 240)] * 400)
    times = [FIRST_S + (LAST_S - FIRST_S) * number / max(1, runs - 1) for number in range(runs)]
    random.Random(0).shuffle(times)
    for number, after_s in enumerate(times):
        yield interrupted(folder / "photos", folder / f"dataset-{number}", after_s)


def summary(done: list[Interrupted]) -> Iterator[str]:
    """One row per exit status."""
    yield "| exit status | runs | median to the end | longest (goal 5 s) | processes left after 2 s |"
    yield "|---|---|---|---|---|"
    for status, early in sorted({(each.status, each.ended_before) for each in done}):
        those = [each for each in done if (each.status, each.ended_before) == (status, early)]
        seconds = [each.seconds for each in those]
        what = f"{status}, before the signal" if early else str(status)
        left = sum(each.num_left for each in those)
        yield f"| {what} | {len(those)} | {statistics.median(seconds):.1f} s | {max(seconds):.1f} s | {left} |"


def interrupts(folder: Path) -> Iterator[str]:
    """What comes of 50 builds that are interrupted."""
    yield from summary(list(survey(folder, RUNS)))


BENCHMARKS = (interrupts,)


def main() -> None:
    """Print every run, then the summary."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else RUNS
    done = []
    with tempfile.TemporaryDirectory() as folder:
        for each in survey(Path(folder), runs):
            done.append(each)
            print(f"after {each.after_s:.2f} s: status {each.status} in {each.seconds:.2f} s, {each.num_left} left: "
                  f"{each.last_line[-100:]!a}", flush=True)  # fmt: skip
    for line in summary(done):
        print(line)


if __name__ == "__main__":
    main()
