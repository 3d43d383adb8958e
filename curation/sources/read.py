"""Read the bytes of an input again, wherever it lies: a file, a range of a tar, a row of a table; local or remote."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import IO

from curation.sources.item import member_path, split_inside
from curation.sources.rows import is_table, read_cell
from curation.sources.storage import read_remote
from schemas.locations import is_remote

OPEN_TARS = 16
"""Tars that each thread keeps open: a part lies in one or two of them, a shard's samples in many."""

_open = threading.local()


def original_path(source: str, member: str) -> Path:
    """Where a local file lies: `source` (a folder's absolute path) and `member` as the listing has them."""
    return Path(source) / os.fsdecode(member_path(member))


def file_of(source: str, member: str) -> str:
    """The local path or URL of a file; `member` as the listing has it."""
    if is_remote(source):
        return f"{source}/{os.fsdecode(member_path(member))}"
    return str(original_path(source, member))


def read_original(source: str, member: str, byte_offset: int | None = None, num_bytes: int | None = None) -> bytes:
    """The bytes of an input.

    Args:
        byte_offset: None reads the whole file. Of a member inside a container (`tar#name`) where its bytes begin; of
            one in a table (`table.parquet#row/column`) its row.
        num_bytes: how many; all that follow where None.

    Raises:
        OSError: it cannot be read any more; a RemoteError where it lies behind a URL.
    """
    if byte_offset is None:
        path = file_of(source, member)
        return read_remote(path) if is_remote(source) else Path(path).read_bytes()
    container, inner = split_inside(member) if "#" in member else (member, "")
    path = file_of(source, container)
    if inner and is_table(container):
        return read_cell(path, byte_offset, inner.partition("/")[2])
    if is_remote(source):
        return read_remote(path, byte_offset, num_bytes)
    file = opened_file(path)
    if num_bytes is not None:
        return os.pread(file.fileno(), num_bytes, byte_offset)
    file.seek(byte_offset)
    return file.read()


def opened_file(path: str) -> IO[bytes]:
    """A file that this thread keeps open; opened anew where it has been replaced meanwhile."""
    files: OrderedDict[str, tuple[IO[bytes], tuple[int, int, int]]] = _open.__dict__.setdefault("files", OrderedDict())
    now = Path(path).stat()
    identity = (now.st_ino, now.st_size, now.st_mtime_ns)
    known = files.pop(path, None)
    if known is not None and known[1] == identity:
        files[path] = known
        return known[0]
    if known is not None:
        known[0].close()
    while len(files) >= OPEN_TARS:
        files.popitem(last=False)[1][0].close()
    file = Path(path).open("rb")  # noqa: SIM115  closed when it is pushed out, or with its thread
    files[path] = (file, identity)
    return file
