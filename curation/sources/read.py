"""Read the bytes of an input again, all of them or only the ranges that are used. An input is a file, a range of a tar
or a cell of a table; each local or behind a URL."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import IO

from curation.images.lazy_bytes import FIRST_BYTES, LazyBytes
from curation.sources.item import member_path, split_inside
from curation.sources.rows import is_table, read_cell
from curation.sources.storage import (
    NoClient,
    RemoteError,
    check_size,
    is_within,
    read_file,
    read_remote,
)
from schemas.files import open_descriptor, open_file
from schemas.locations import is_remote
from schemas.lru import Lru
from schemas.reasons import FetchError

OPEN_TARS = 16
"""Tars that each thread keeps open: a part's inputs are in one or two of them, a shard's samples in many."""


class _OpenFiles(threading.local):
    """The files of a thread, by path, inode, size and time of change."""

    def __init__(self) -> None:
        self.files: Lru[tuple[str, int, int, int], IO[bytes]] = Lru(OPEN_TARS, on_drop=lambda file: file.close())


_open = _OpenFiles()


def file_of(source: str, member: str) -> str:
    """The local path or URL of a file; `member` is that of the listing."""
    return f"{source.rstrip('/')}/{os.fsdecode(member_path(member)) if '%' in member else member}"


def read_original(
    source: str,
    member: str,
    byte_offset: int | None = None,
    num_bytes: int | None = None,
    most_bytes: int | None = None,
) -> bytes:
    """The bytes of an input.

    Args:
        byte_offset: None reads the whole file; else the first byte of a member inside a container (`tar#name`), or the
            row of a cell in a table (`table.parquet#row/column`).
        num_bytes: None reads all bytes from there on.
        most_bytes: an input of which more is known is not read.

    Raises:
        OSError: it cannot be read any more, is no file, or is too large; a RemoteError where it is behind a URL.
    """
    with _Refusing(source):
        path, column = _place(source, member, byte_offset)
        check_size(num_bytes, most_bytes)
        if column is not None:
            assert byte_offset is not None
            return read_cell(path, byte_offset, column, most_bytes)
        if is_remote(source):
            return read_remote(path, byte_offset, num_bytes, most_bytes)
        if byte_offset is None:
            return read_file(path, most_bytes)
        file = _opened(path)
        if num_bytes is not None:
            return os.pread(file.fileno(), num_bytes, byte_offset)
        file.seek(byte_offset)
        return file.read()


class _Refusing:
    """Turns whatever a path or a URL out of a table makes a client raise into an error of reading this one input. As a
    generator it would take a microsecond or two more of each input."""

    def __init__(self, source: str) -> None:
        self._source = source

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, where: object) -> None:
        if isinstance(error, NoClient):
            raise RemoteError(FetchError.UNREACHABLE, str(error)) from None
        if isinstance(error, Exception) and not isinstance(error, OSError | MemoryError | AssertionError):
            said = f"it has no name that can be read ({type(error).__name__})"
            is_url = is_remote(self._source)
            raise RemoteError(FetchError.BAD_URL, said) if is_url else OSError(errno.EINVAL, said) from None


def is_link_out(source: str, member: str) -> bool:
    """Whether a file is a link that leads out of its local source."""
    path = file_of(source, member)
    return not is_remote(path) and Path(path).is_symlink() and not is_within(path, os.path.realpath(source))


def open_lazily(
    source: str, member: str, byte_offset: int | None = None, num_bytes: int | None = None
) -> bytes | LazyBytes:
    """An input whose first bytes have been read. It is plain bytes where that is all of it, or where no range can be
    read: a cell of a table, or a URL whose size was not listed. Arguments and errors are those of `read_original`,
    which reads all of it."""
    with _Refusing(source):
        path, column = _place(source, member, byte_offset)
        if column is not None:
            assert byte_offset is not None
            return read_cell(path, byte_offset, column)
        if is_remote(source):
            return _remote(path, byte_offset, num_bytes)
        if byte_offset is None:
            return _local(path)
        file = _opened(path).fileno()
    size = os.fstat(file).st_size - byte_offset
    size = max(0, size if num_bytes is None else min(num_bytes, size))
    first = os.pread(file, min(size, FIRST_BYTES), byte_offset)
    if size <= FIRST_BYTES:
        return first
    return LazyBytes(first, size, lambda begin, count: os.pread(file, count, byte_offset + begin))


def _place(source: str, member: str, byte_offset: int | None) -> tuple[str, str | None]:
    """The path or URL of the file that holds an input, and the column of the input where the file is a table."""
    if byte_offset is None:
        return file_of(source, member), None
    container, inner = split_inside(member) if "#" in member else (member, "")
    path = file_of(source, container)
    return path, inner.partition("/")[2] if inner and is_table(container) else None


def _opened(path: str) -> IO[bytes]:
    """A file that this thread keeps open; a file that was replaced meanwhile is opened anew."""
    now = Path(path).stat()
    # closed when it leaves the cache, or with its thread
    return _open.files.get((path, now.st_ino, now.st_size, now.st_mtime_ns), lambda: open_file(Path(path)))


def _local(path: str) -> bytes | LazyBytes:
    file, size = open_descriptor(path)
    try:
        first = os.read(file, FIRST_BYTES)
        while len(first) < min(size, FIRST_BYTES) and (more := os.read(file, FIRST_BYTES - len(first))):
            first += more
    except BaseException:
        os.close(file)
        raise
    if size > FIRST_BYTES:
        return LazyBytes(first, size, lambda begin, count: os.pread(file, count, begin), file)
    os.close(file)
    return first


def _remote(url: str, byte_offset: int | None, num_bytes: int | None) -> bytes | LazyBytes:
    if num_bytes is None:
        return read_remote(url, byte_offset, None)
    if num_bytes == 0:  # there is no range of nothing; a file may have grown since it was listed
        return b"" if byte_offset is not None else read_remote(url)
    offset = byte_offset or 0
    first = read_remote(url, offset, min(num_bytes, FIRST_BYTES))
    if num_bytes <= FIRST_BYTES or len(first) < FIRST_BYTES:
        return first
    return LazyBytes(first, num_bytes, lambda begin, count: read_remote(url, offset + begin, count))
