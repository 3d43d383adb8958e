"""Commit a file: written aside, made durable, renamed. Under its name it is whole, or it is not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

TEMPORARY = ".tmp-"
"""Prefix of a file that is being written; it is renamed when whole, and swept when a job starts."""


@contextmanager
def published(path: Path) -> Iterator[IO[bytes]]:
    """A file that gets its name only once it is whole and on the disk; on an error nothing is left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    try:
        with aside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        aside.rename(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
