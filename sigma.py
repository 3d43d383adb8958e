"""The `sigma` command. `commands/front_door.py` lists what there is to type; Ctrl-C is awaited before it is loaded."""

from __future__ import annotations

import contextlib
import gc
import os
import sys

from commands import interrupts


def main() -> None:
    """Entry point of the `sigma` command."""
    interrupts.take_over()
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # it would look into every installed package for one
    try:
        from commands.front_door import run

        run()
    except KeyboardInterrupt:
        interrupts.leave()
    except SystemExit as ended:
        if ended.code != interrupts.exit_status():
            raise
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        interrupts.leave()
    finally:
        gc.freeze()  # Python looks through all objects several times as it ends, which takes a fifth of a short command


if __name__ == "__main__":
    main()
