"""Workers of Ray and of torchrun, forked by the server of the tests: most of what one costs is what it imports.

A node of a test's cluster runs this file, by the name PROGRAM, where it would run Ray's own program of a worker, and
torchrun runs it, by the name PYTHON, where it would run Python. It sends its words and its environment to the socket in
its folder, and a process is forked that runs the program.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

PROGRAM, PYTHON, SOCKET = "worker.py", "python.py", "socket"


def program_of_ray() -> str:
    ray = find_spec("ray")
    assert ray is not None and ray.submodule_search_locations
    return str(Path(ray.submodule_search_locations[0], "_private", "workers", "default_worker.py"))


def ask(folder: Path, words: list[str]) -> int:
    """Ask for a process, pass SIGTERM on to it and wait for its end; returns its exit code, or ends by its signal."""
    request = {"arguments": words, "cwd": str(Path.cwd()), "env": dict(os.environ)}
    ended, status = os.pipe()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as requests:
        requests.connect(str(folder / SOCKET))
        socket.send_fds(requests, [json.dumps(request).encode()], [0, 1, 2, status])
    os.close(status)
    process = int.from_bytes(os.read(ended, 4), "little")

    def pass_on(number: int, _: object) -> None:
        with suppress(ProcessLookupError):  # it may have ended just now
            os.kill(process, number)

    signal.signal(signal.SIGTERM, pass_on)
    code = int.from_bytes(os.read(ended, 4), "little", signed=True)
    if code == -signal.SIGKILL:
        os.kill(os.getpid(), signal.SIGKILL)
    return code


if __name__ == "__main__":
    asked = Path(sys.argv[0])
    sys.exit(ask(asked.parent, sys.argv[1:] if asked.name == PYTHON else [program_of_ray(), *sys.argv[1:]]))
