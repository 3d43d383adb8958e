"""A forked process is what a fresh interpreter would be: the same output and the same end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import Python, run_python

ENDS = {
    "it ends": "print('out'); import sys; print('complaint', file=sys.stderr)",
    "exit with a code": "import sys; print('out'); sys.exit(300)",
    "exit with a text": "import sys; sys.exit('why')",
    "exit without": "import sys; sys.exit()",
    "an error": "1 / 0",
    "a hook for errors": "import sys; sys.excepthook = lambda kind, *_: print(kind.__name__, file=sys.stderr); 1 / 0",
    "an interrupt": "import os, signal; os.kill(os.getpid(), signal.SIGINT)",
    "killed": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "killed with words unsaid": "import os, signal; print('lost'); os.kill(os.getpid(), signal.SIGKILL)",
    "at once": "import os; print('lost'); os._exit(7)",
    "exit functions, after threads": (
        "import atexit, threading, time\n"
        "atexit.register(print, 'exit function')\n"
        "threading.Thread(target=lambda: (time.sleep(0.1), print('thread'))).start()\n"
        "print('main')"
    ),
    "what it was given": "import sys; print(sys.argv, __name__, sys.stdin.read())",
}


@pytest.mark.parametrize("code", ENDS.values(), ids=ENDS)
def test_it_ends_as_a_fresh_interpreter_does(code: str) -> None:
    forked = run_python("-c", code, "one", "two", stdin=subprocess.DEVNULL)
    fresh = subprocess.run(
        [sys.executable, "-c", code, "one", "two"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (forked.returncode, forked.stdout) == (fresh.returncode, fresh.stdout)
    assert forked.stderr.splitlines()[-1:] == fresh.stderr.splitlines()[-1:]


def test_environment_folder_and_session_are_its_own(tmp_path: Path) -> None:
    code = (
        "import os, tempfile; print(dict(os.environ), os.getcwd(), os.getsid(0) == os.getpid(), tempfile.gettempdir())"
    )
    given = {"ONLY": "this", "TMPDIR": str(tmp_path)}
    said = run_python("-c", code, env=given, cwd=tmp_path).stdout
    assert said == f"{given} {tmp_path} True {tmp_path}\n"


@pytest.mark.slow
def test_a_script_and_a_module_are_the_main_program(tmp_path: Path) -> None:
    (tmp_path / "neighbour.py").write_text("NAME = 'neighbour'")
    (tmp_path / "script.py").write_text("import sys, neighbour; print(__name__, sys.argv[1:], neighbour.NAME)")
    assert run_python(tmp_path / "script.py", "a").stdout == "__main__ ['a'] neighbour\n"
    assert run_python("-m", "sigma", "recipe", "--help").stdout.count("Usage: ") == 1


def test_a_signal_reaches_it_while_it_talks() -> None:
    code = (
        "import signal, sys\n"
        "def stop(number, frame): print('stopped', flush=True); sys.exit(3)\n"
        "signal.signal(signal.SIGTERM, stop); print('ready', flush=True)\n"
        "print(sys.stdin.readline(), end='', flush=True); signal.pause()"
    )
    with Python("-c", code, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n" and process.poll() is None
        process.stdin.write("hello\n")
        process.stdin.flush()
        assert process.stdout.readline() == "hello\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.05)
        os.kill(process.pid, signal.SIGTERM)
        assert (process.communicate()[0], process.returncode) == ("stopped\n", 3)


@pytest.mark.parametrize("mode", ["token", "disabled"])
def test_ray_takes_its_mode_from_the_environment_of_the_child(mode: str) -> None:
    code = "from ray import _raylet; print(_raylet.get_authentication_mode() == _raylet.AuthenticationMode.TOKEN)"
    said = run_python("-c", code, env=os.environ | {"RAY_AUTH_MODE": mode}).stdout
    assert said == f"{mode == 'token'}\n"
