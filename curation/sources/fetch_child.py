"""Run img2dataset in a process of its own, which ends with the process that started it."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import types

if __name__ in ("__main__", "__mp_main__"):  # in this process and those of its pool, each of which runs this file first
    # What img2dataset imports and never uses here takes most of the start of a process: webdataset loads torch where it
    # can, the resizer albumentations with SciPy, the logger wandb, the command line fire, the distributor Ray. Nothing
    # is resized, sent to wandb, typed or distributed by Ray.
    sys.modules |= {"torch": None, "ray": None}  # type: ignore[dict-item]
    sys.modules |= {name: types.ModuleType(name) for name in ("albumentations", "fire", "wandb")}


def main() -> None:
    """Read img2dataset's arguments as one line of JSON, then download; when the input closes, everything stops."""
    from img2dataset import download

    arguments = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    download(**arguments)


def _end_with_parent() -> None:
    sys.stdin.read()
    os.killpg(0, signal.SIGKILL)  # the pool's processes too: two downloads must never write the same tar


if __name__ == "__main__":
    main()
