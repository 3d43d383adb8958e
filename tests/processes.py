"""Python processes for tests: as `subprocess` starts them, but forked from a server that has imported everything."""

from __future__ import annotations

import json
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from tests import fork_server, ray_workers
from tests.fork_server import NUMBER_BYTES

ROOT = Path(__file__).resolve().parents[1]
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
"""Read at imports: threads that wait for a busy core cost more than they do."""


class _Server:
    """The fork server of this pytest process; with `here` forked from it, which has imported everything."""

    def __init__(self, here: bool) -> None:
        self.folder = Path(tempfile.mkdtemp())
        for name in (ray_workers.PROGRAM, ray_workers.PYTHON):
            (self.folder / name).symlink_to(ray_workers.__file__)
        self.requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as workers:
            workers.bind(str(self.folder / ray_workers.SOCKET))  # who asks before the server is up waits for it
            self.wait = partial(os.waitpid, self._fork(theirs, workers), 0) if here else self._start(theirs, workers)

    def _fork(self, theirs: socket.socket, workers: socket.socket) -> int:
        for stream in (sys.__stdout__, sys.__stderr__):
            stream.flush()  # type: ignore[union-attr]
        process = os.fork()
        if process == 0:
            self.requests.close()
            fork_server.leave_pytest()
            fork_server.begin(theirs.detach(), workers.detach())
        return process

    def _start(self, theirs: socket.socket, workers: socket.socket) -> Callable[[], int]:
        passed = [theirs.fileno(), workers.fileno()]
        return subprocess.Popen(
            [sys.executable, "-m", "tests.fork_server", *map(str, passed)],
            cwd=ROOT,
            env=os.environ | ONE_THREAD,
            stdin=subprocess.DEVNULL,
            pass_fds=passed,
            start_new_session=True,
        ).wait


_servers: list[_Server] = []


def start_server() -> None:
    """Start the server, where there is none."""
    if not _servers:
        _servers.append(_Server(here=False))


def start_server_here() -> None:
    """Import everything, once for this process and the server, and start that."""
    with patch.dict(os.environ, ONE_THREAD):
        fork_server.import_everything()
    _servers.append(_Server(here=True))


def stop_server() -> None:
    """End the server, and whatever of its processes is still there."""
    while _servers:
        server = _servers.pop()
        server.requests.close()
        server.wait()
        shutil.rmtree(server.folder)


def ray_worker_path() -> str:
    """The program that a node of Ray runs as its worker, so that the server forks it."""
    start_server()
    return str(_servers[0].folder / ray_workers.PROGRAM)


def launched_python() -> list[str]:
    """The words that another program runs as Python, so that the server forks it."""
    start_server()
    return [sys.executable, str(_servers[0].folder / ray_workers.PYTHON)]


class Python(subprocess.Popen[Any]):
    """A `subprocess.Popen` of `[sys.executable, *arguments]`, started by the fork server.

    It takes stdin, stdout, stderr, text, env and cwd. Its process leads a session of its own.
    """

    def __init__(self, *arguments: str | Path, **options: Any) -> None:
        super().__init__(list(map(str, arguments)), **options)

    def _execute_child(  # type: ignore[override]
        self, args: list[str], executable: object, preexec_fn: object, close_fds: object, pass_fds: object,
        cwd: str | None, env: dict[str, str] | None, startupinfo: object, creationflags: object, shell: object,
        p2cread: int, p2cwrite: int, c2pread: int, c2pwrite: int, errread: int, errwrite: int, *_: object,
    ) -> None:  # fmt: skip
        start_server()
        request = {
            "arguments": args,
            "cwd": os.fspath(cwd or Path.cwd()),
            "env": dict(os.environ if env is None else env),
        }
        self._ended, status = os.pipe()
        files = [own if own != -1 else inherited for inherited, own in enumerate((p2cread, c2pwrite, errwrite))]
        socket.send_fds(_servers[0].requests, [json.dumps(request).encode()], [*files, status])
        os.close(status)
        self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)
        self.pid = self._number()
        self._child_created = True

    def _number(self) -> int:
        data = os.read(self._ended, NUMBER_BYTES)
        if not data:
            raise ChildProcessError("the fork server is gone")
        return int.from_bytes(data, "little", signed=True)

    def _internal_poll(self, *_: object, **__: object) -> int | None:
        return self._wait(0, None)

    def _wait(self, timeout: float | None, otherwise: Any = subprocess.TimeoutExpired) -> int | None:
        if self.returncode is None:
            if not select.select([self._ended], [], [], timeout)[0]:
                if otherwise is None:
                    return None
                raise otherwise(self.args, timeout)
            self.returncode = self._number()
            os.close(self._ended)
        return self.returncode


def run_python(*arguments: str | Path, timeout: float = 240, **options: Any) -> subprocess.CompletedProcess[str]:
    """`subprocess.run` of `[sys.executable, *arguments]` with its output captured as text."""
    with Python(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options) as process:
        try:
            out, complaints = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, complaints)
