"""The `sigma` command. `commands/front_door.py` lists what there is to type; Ctrl-C is awaited before it is loaded."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import sys

from commands import interrupts


def _open_streams() -> None:
    """Give the process the three streams that it was started without, lest a file of a dataset become its output; files
    and pipes get UTF-8, which JSON is, and a terminal shows the letters that it lacks as \\u2713."""
    while (opened := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(opened)
    sys.stdout, sys.stderr = sys.stdout or os.fdopen(1, "w"), sys.stderr or os.fdopen(2, "w")
    if isinstance(getattr(sys.stdout, "buffer", None), io.RawIOBase):
        # of PYTHONUNBUFFERED: what a disk or a reader takes a part of would be lost without an error
        sys.stdout = os.fdopen(1, "w", 1, errors=sys.stdout.errors, closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.encoding != "utf-8":
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="backslashreplace")


def main() -> None:
    """Entry point of the `sigma` command."""
    _open_streams()
    interrupts.take_over()
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # it would look into every installed package for one
    try:
        from commands.front_door import run

        run()
    except KeyboardInterrupt:
        interrupts.leave()
    except SystemExit as ended:
        if ended.code not in (130, interrupts.exit_status()):  # typer gives 130 for any signal
            raise
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        interrupts.leave()
    finally:
        gc.freeze()  # Python looks through all objects several times as it ends, which takes a fifth of a short command


if __name__ == "__main__":
    main()
