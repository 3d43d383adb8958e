"""A Python that has imported the project already, and forks a process for each program it is sent.

Most of what a test of a command costs is Python starting up. This server pays for it once. In a forked child the loop
of the server is over: the program runs as the main program of a real process, with its own environment, folder, files,
session and signals. `tests.processes` sends the programs.

Unlike fresh interpreters, its children share the seed of `hash`, the modules that are imported, and what those read
from the environment at their import, as OMP_NUM_THREADS is; and at their end no object is taken apart. A test about
these starts `sys.executable`.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import faulthandler
import gc
import importlib
import json
import logging
import multiprocessing.util
import os
import pkgutil
import runpy
import select
import signal
import socket
import sys
import tempfile
import threading
import types
import weakref
from pathlib import Path
from typing import Any, NoReturn

from PIL import Image

PACKAGES = ("schemas", "engine", "models", "curation", "captioning", "training", "viewer", "commands")
LATE = (
    "sigma",
    "diffusers",
    "torch.distributed.fsdp",
    "torch.profiler",
    "pandas",
    "pyarrow.dataset",
    "rich._emoji_codes",
)
"""What the project imports inside functions, or above its packages; Arrow imports pandas, and rich its emojis."""
RAY = "engine.ray_"
"""Modules that import Ray. Ray reads the environment of a worker while it is imported: its workers come from a process
that has not."""
AT_RAYS_END = "ray.dag.compiled_dag_node"
"""What Ray imports when a process ends that has imported it."""
OWN = ("sigma", "commands")
"""Every child imports these again: the console looks for its width while it is imported."""
REQUEST_BYTES = 200_000
NUMBER_BYTES = 4
"""A child's pipe gives its process id, and once it has ended its exit code."""
HUGE = 2 << 20
MADV_COLLAPSE = 25
"""Of Linux 6.1."""


def import_everything() -> None:
    """Import what programs need but Ray, load the two models that every build reads, and compile the pages' templates.
    It must start no threads: those of a pool would be missing in every child."""
    for package in PACKAGES:
        for found in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            if not found.name.startswith(RAY):
                importlib.import_module(found.name)
    for name in LATE:
        importlib.import_module(name)
    Image.init()  # every format of Pillow
    importlib.import_module("captioning.texts.language").LanguageGuesser().languages()
    importlib.import_module("captioning.nouns").shared_extractor("lexicon", False)
    for live in (False, True):
        templates = importlib.import_module("viewer.rendering").environment(live)
        for name in templates.list_templates(["jinja"]):
            templates.get_template(name)


def forget_exits() -> None:
    """Forget what the imported modules would do at the end of each child, which is most of what a short one costs; but
    not what ends processes and writes logs."""
    atexit._clear()
    weakref.finalize._registry.clear()  # type: ignore[attr-defined]
    weakref.finalize._registered_with_atexit = False  # type: ignore[attr-defined]
    atexit.register(multiprocessing.util._exit_function)
    atexit.register(logging.shutdown)


def use_huge_pages() -> None:
    """Put this process's memory into huge pages, where the kernel can: a fork copies the table of all pages, and with
    small ones that takes three times as long."""
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        span, access, _, _, inode, *_ = line.split()
        if access == "rw-p" and inode == "0":
            start, end = (int(place, 16) for place in span.split("-"))
            for place in range(-(-start // HUGE) * HUGE, end // HUGE * HUGE, HUGE):
                madvise(place, HUGE, MADV_COLLAPSE)


def skip_fsync() -> None:
    """Let no file wait for the disk. A process that is killed loses nothing by it: only a machine would."""
    os.fsync = lambda descriptor: None


def serve(requests: socket.socket, also: int | None = None) -> dict[str, Any] | None:
    """Fork a child for each request, and report how each one ends. `also`: a process that ends with the server.

    Returns:
        In a child, the request it has to run; in the server None, once the tests have gone.
    """
    pipes: dict[int, int] = {}
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        ready, _, _ = select.select([requests, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            report_ended(pipes)
        if requests not in ready:
            continue
        message, descriptors, _, _ = socket.recv_fds(requests, REQUEST_BYTES, 4)
        if not message:
            for pid in {*pipes} | {also} - {None}:
                os.killpg(pid, signal.SIGKILL)
            return None
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            for descriptor in (woken, wake, requests.detach(), descriptors.pop(), *pipes.values()):
                os.close(descriptor)
            request: dict[str, Any] = json.loads(message)
            become(request, descriptors)
            return request
        *files, pipes[pid] = descriptors
        os.write(pipes[pid], pid.to_bytes(NUMBER_BYTES, "little"))
        for descriptor in files:
            os.close(descriptor)


def report_ended(pipes: dict[int, int]) -> None:
    """Write the exit codes of the children that have ended; a signal is a negative one."""
    while pipes:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        pipe = pipes.pop(pid)
        with contextlib.suppress(BrokenPipeError):  # nobody waits for it any more
            os.write(pipe, os.waitstatus_to_exitcode(status).to_bytes(NUMBER_BYTES, "little", signed=True))
        os.close(pipe)


def become(request: dict[str, Any], descriptors: list[int]) -> None:
    """Give this child its own session, signals, files, environment and folder."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    for descriptor in descriptors:
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(request["env"])
    if "RAY_AUTH_MODE" in os.environ:  # Ray, imported before the fork, has read it
        importlib.import_module("ray._raylet").Config.initialize("")
    os.chdir(request["cwd"])
    tempfile.tempdir = None
    at_once = bool(os.environ.get("PYTHONUNBUFFERED"))
    sys.stdout.reconfigure(line_buffering=at_once, write_through=at_once)  # type: ignore[union-attr]


def run(arguments: list[str]) -> None:
    """Run what `python` would with these arguments: `-m module`, `-c code` or a file."""
    first, *more = arguments
    if first == "-m":
        sys.argv = list(more)
        runpy.run_module(more[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.argv = ["-c", *more[1:]]
        main = types.ModuleType("__main__")
        sys.modules["__main__"] = main
        exec(compile(more[0], "<string>", "exec"), main.__dict__)
    else:
        sys.argv = list(arguments)
        sys.path.insert(0, str(Path(first).parent))
        runpy.run_path(first, run_name="__main__")


def run_and_exit(arguments: list[str]) -> NoReturn:
    """Run a program and end as the interpreter does, but leave taking every imported object apart to the kernel."""
    code = 0
    try:
        run(arguments)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if code and ended.code is not code:
            print(ended.code, file=sys.stderr)
    except BaseException as error:  # noqa: BLE001, as the interpreter does
        sys.excepthook(type(error), error, error.__traceback__)
        code = -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    if code == -signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(code & 0xFF)


def begin(tests: int, workers: int) -> NoReturn:
    """Be the server, which has imported everything: of programs for the tests behind the one descriptor, and in a
    second process of Ray's workers, which are asked for at the other."""
    for name in [name for name in sys.modules if name.partition(".")[0] in OWN]:
        del sys.modules[name]
    forget_exits()
    gc.collect()
    gc.freeze()  # or every child would copy these objects' pages when it collects
    gc.set_threshold(10_000)  # see `tests.conftest`
    gc.enable()
    use_huge_pages()
    skip_fsync()
    of_workers = os.fork()
    if of_workers:
        os.close(workers)
        for module in pkgutil.iter_modules(importlib.import_module("engine").__path__, "engine."):
            if module.name.startswith(RAY):
                importlib.import_module(module.name)
        importlib.import_module(AT_RAYS_END)
        gc.freeze()
        asked = serve(socket.socket(fileno=tests), of_workers)
    else:
        os.setsid()
        os.close(tests)
        asked = serve(socket.socket(fileno=workers))
    if asked is None:
        os._exit(0)
    run_and_exit(asked["arguments"])


def leave_pytest() -> None:
    """Take back, in a process forked from pytest, what that has put in the place of the interpreter's own."""
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdin, sys.stdout, sys.stderr = sys.__stdin__, sys.__stdout__, sys.__stderr__
    sys.unraisablehook, threading.excepthook = sys.__unraisablehook__, threading.__excepthook__
    sys.meta_path[:] = [finder for finder in sys.meta_path if not type(finder).__module__.startswith("_pytest")]
    faulthandler.disable()


if __name__ == "__main__":
    gc.disable()
    import_everything()
    begin(int(sys.argv[1]), int(sys.argv[2]))
