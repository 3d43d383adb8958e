"""Open an input so that only the bytes that are looked at are read: ranges of a file, of a tar, behind a URL."""

from __future__ import annotations

import os

from curation.images.lazy_bytes import FIRST_BYTES, LazyBytes
from curation.sources.item import member_path, split_inside
from curation.sources.read import opened_file
from curation.sources.rows import is_table, read_cell
from curation.sources.storage import read_remote
from schemas.locations import is_remote


def open_lazily(
    source: str, member: str, byte_offset: int | None = None, num_bytes: int | None = None
) -> bytes | LazyBytes:
    """An input, of which its first bytes have been read; plain bytes where that was all, or where nothing less can be
    read: a cell of a table, what a URL holds whose size was not listed.

    Args: as `curation.sources.read_original`, which reads all of it.

    Raises:
        OSError: it cannot be read any more; a RemoteError where it lies behind a URL.
    """
    if byte_offset is None:
        path = f"{source}/{member if '%' not in member else os.fsdecode(member_path(member))}"
        return _remote(path, None, num_bytes) if is_remote(source) else _local(path)
    container, inner = split_inside(member) if "#" in member else (member, "")
    path = f"{source}/{os.fsdecode(member_path(container))}"
    if inner and is_table(container):
        return read_cell(path, byte_offset, inner.partition("/")[2])
    if is_remote(source):
        return _remote(path, byte_offset, num_bytes)
    file = opened_file(path).fileno()
    size = os.fstat(file).st_size - byte_offset
    size = max(0, size if num_bytes is None else min(num_bytes, size))
    first = os.pread(file, min(size, FIRST_BYTES), byte_offset)
    if size <= FIRST_BYTES:
        return first
    return LazyBytes(first, size, lambda begin, count: os.pread(file, count, byte_offset + begin))


def _local(path: str) -> bytes | LazyBytes:
    file = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(file).st_size
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
