"""Workers of Ray, forked by the server of the tests: most of what one costs is what it imports.

A node of a test's cluster runs this file, by the name PROGRAM, where it would run Ray's own program of a worker. It
sends its words and its environment to the socket in its folder, and a process is forked that runs Ray's program.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from importlib.util import find_spec
from pathlib import Path

PROGRAM, SOCKET = "worker.py", "socket"


def ask(folder: Path) -> int:
    """Ask for a worker and wait for its end; returns its exit code."""
    ray = find_spec("ray")
    assert ray is not None and ray.submodule_search_locations
    program = Path(ray.submodule_search_locations[0], "_private", "workers", "default_worker.py")
    request = {"arguments": [str(program), *sys.argv[1:]], "cwd": str(Path.cwd()), "env": dict(os.environ)}
    ended, status = os.pipe()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as requests:
        requests.connect(str(folder / SOCKET))
        socket.send_fds(requests, [json.dumps(request).encode()], [0, 1, 2, status])
    os.close(status)
    numbers = os.read(ended, 4), os.read(ended, 4)  # its process id, its exit code
    return int.from_bytes(numbers[1], "little", signed=True)


if __name__ == "__main__":
    sys.exit(ask(Path(sys.argv[0]).parent))
