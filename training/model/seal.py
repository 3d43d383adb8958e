"""Checksums of weights files: the seal of ours, which states the digest at the file's own end, and those of a zip."""

from __future__ import annotations

import hashlib
import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO

END_RECORD, END_BYTES = b"PK\5\6", 22
"""The last record of a zip, which every file of `torch.save` is; its last two bytes count those of a comment."""
NO_COMMENT = bytes(2)
SEAL = b"sha256 "
SEAL_BYTES = 2 + len(SEAL) + 64
"""Of the comment that states the digest of a file as it was without one, and of the two bytes that count it."""
NOT_A_ZIP = (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, RuntimeError, struct.error, OverflowError)
"""What `zipfile` raises on damage."""


class SealedFile:
    """A file for `torch.save` that digests what is written, and states the digest at its own end. The seal is the
    comment of a zip, which every reader of such files passes over."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._digest = file, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self._digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()

    def seal(self) -> None:
        """Put the digest in place of the empty comment, once all is written."""
        self._file.seek(-len(NO_COMMENT), os.SEEK_END)
        self._file.write(_seal(self._digest))


def _seal(digest: hashlib._Hash) -> bytes:
    return struct.pack("<H", SEAL_BYTES - 2) + SEAL + digest.hexdigest().encode()


def stated_digest(path: Path) -> bytes | None:
    """The seal at the end of a file, right or wrong; None where the file has none."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - SEAL_BYTES - END_BYTES + 2))
        tail = file.read()
    return tail[END_BYTES - 2 :] if len(tail) == SEAL_BYTES + END_BYTES - 2 and tail.startswith(END_RECORD) else None


def digested(path: Path, num_bytes: int) -> hashlib._Hash:
    """sha256 of the first bytes of a file, to be continued."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while num_bytes > 0 and (block := file.read(min(num_bytes, 1 << 22))):
            digest.update(block)
            num_bytes -= len(block)
    return digest


def file_digest(path: Path) -> str:
    """sha256 of a file, of a sealed one as it was before; a seal is believed."""
    stated = stated_digest(path)
    return (
        digested(path, path.stat().st_size).hexdigest() if stated is None else stated[2 + len(SEAL) :].decode("latin-1")
    )


def refuse_damage(path: Path) -> None:
    """Compare a torch file with its own checksums: the seal of ours, the checksum of each tensor in others'. Raises
    ValueError: a byte is not what it was. Raises OSError: the file cannot be read."""
    if path.stat().st_size == 0:
        raise ValueError("it is empty, 0 bytes")
    stated = stated_digest(path)
    if stated is not None:
        digest = digested(path, path.stat().st_size - SEAL_BYTES)
        digest.update(NO_COMMENT)
        if stated != _seal(digest):
            raise ValueError("damaged: its checksum is wrong")
        return
    with path.open("rb") as file:
        if file.read(4) != b"PK\3\4":
            return  # the layout of torch before 1.6, which has no checksums
    try:
        with zipfile.ZipFile(path) as content:
            wrong = content.testzip()
    except NOT_A_ZIP as error:
        raise ValueError(f"cut short or damaged: {error}") from None
    if wrong is not None:
        raise ValueError(f"damaged: the checksum of {wrong} in it is wrong")
