"""Ctrl-C and SIGTERM end a command within seconds, with the status that shells give and without a traceback. This
module imports nothing that takes time: it is there before the packages that take seconds to load."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn

PATIENCE_S = 3.0
"""The longest that a command takes to clean up, in seconds; then the process ends as it is."""
GIVING_S = 1.0
"""The longest that the lease of a dataset in a store is then given back."""
FINISHED_STAYS = "stopped; what was finished stays, run the same command to go on"


last_line: str | None = None
"""What the running command says after a signal; None is `FINISHED_STAYS`."""


def stopped_line() -> str:
    """The line after a signal; the same command with --redo would begin anew."""
    if last_line:
        return last_line
    again = any(typed.partition("=")[0] == "--redo" for typed in sys.argv)
    return FINISHED_STAYS.replace("command", "command without --redo") if again else FINISHED_STAYS


_received = signal.SIGINT
"""The signal that ends the command."""
_raised: bool | None = None
"""Whether the signal that came has raised KeyboardInterrupt; False where it would have been lost."""


def take_over() -> None:
    """From here on SIGINT and SIGTERM raise KeyboardInterrupt, and the process ends `PATIENCE_S` later at the latest.
    Python runs a handler only once C code returns, and Ray's may wait long for processes that are half started; a
    thread sees the signal at once. Signals that somebody else has taken over stay: the trainer writes a checkpoint, and
    the live pages' server has a way of its own. Where a shell has SIGINT ignored, so does this."""
    seen, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL):
            signal.signal(number, _interrupt)
    sys.unraisablehook = _swallowed
    threading.Thread(target=_watch, args=[seen], daemon=True).start()


def came() -> bool:
    """Whether a signal has been raised. An error that comes afterwards is its doing: DuckDB, for one, puts a
    RuntimeError in the place of KeyboardInterrupt."""
    return bool(_raised)


def exit_status() -> int:
    """128 and the number of the signal, as shells have it; that of Ctrl-C where there was none."""
    return 128 + _received


def leave() -> NoReturn:
    """End the process as it is, and what it has started. Half started threads of Ray or torch can crash an interpreter
    that takes itself apart, or change its status. Agents of Ray that are half started would outlive it for a minute."""
    for child in _descendants(os.getpid()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    if lease := sys.modules.get("engine.place.lease"):  # nobody has to wait until it is found to stand still
        giving = threading.Thread(target=lease.give_all_back, daemon=True)
        giving.start()
        giving.join(GIVING_S)
    os._exit(exit_status())


def _descendants(process: int) -> list[int]:
    """The processes that one has started, and those that they have, where the system lists them, as Linux does."""
    found = []
    for listed in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, listed.read_text().split()):
                found += [child, *_descendants(child)]
    return found


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, but not inside an import: a package that is half imported answers with any error."""
    global _received, _raised
    if _raised:
        return  # one is enough: the command cleans up
    _received = signal.Signals(number)
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    _raised = frame is None
    if _raised:
        raise KeyboardInterrupt


def _swallowed(found: sys.UnraisableHookArgs) -> None:
    """Raise KeyboardInterrupt again where it came up in a destructor or a callback, which drop it."""
    global _raised
    if isinstance(found.exc_value, KeyboardInterrupt):
        _raised = False
    else:
        sys.__unraisablehook__(found)


def _watch(seen: int) -> None:
    """Wait for a signal, see that it gets through, and end the process when its time is over."""
    global _received
    while signal.getsignal(number := os.read(seen, 1)[0]) is not _interrupt:
        pass
    _received = signal.Signals(number)
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        time.sleep(0.05)
        if _raised is False:
            os.kill(os.getpid(), number)
    show_cursor = "\x1b[?25h" if os.isatty(1) else ""
    os.write(2, f"{show_cursor}{stopped_line()}\n".encode())
    leave()
