"""CPU time of descendants: counted though they were killed, and though a parent in between never asked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from benchmarks.cpu_time import SAMPLE_S, descendants_cpu

_WORK = "import time\nwhile time.process_time() < 0.5: pass\nprint(flush=True)\ntime.sleep(60)"
_PARENT = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {_WORK!r}]).wait()"


@pytest.mark.slow
def test_a_killed_grandchild_counts_and_nothing_else_does() -> None:
    with descendants_cpu() as idle:
        time.sleep(2 * SAMPLE_S)
    with descendants_cpu() as busy:
        child = subprocess.Popen([sys.executable, "-c", _PARENT], start_new_session=True, stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()  # it has worked for half a second
        time.sleep(3 * SAMPLE_S)
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
    assert idle.seconds < 0.1
    assert 0.45 < busy.seconds < 1.5
