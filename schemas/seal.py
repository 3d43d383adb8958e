"""Seals files that are read again: a sealed file carries checksums of every one of its bytes.

A Parquet file:

    pages | MARK, sha256 of the pages, sha256 of that and of the footer, MARK | footer | length of the footer, "PAR1"

Parquet's own checksums cover the data of its pages alone. The headers of pages and the footer have none, and the
footer's statistics decide which rows a reader sees. Readers of Parquet follow the offsets in the footer and so pass the
seal over.

A text, such as a record in JSON or a line of a log, holds MARK, the sha256 of all the rest and MARK near its end: in
the last key of a JSON object, which is "seal", or in a comment. What has no seal, from before there were seals, passes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any

from schemas.commit import atomic_write, write_bytes
from schemas.files import open_file, read_file
from schemas.texts import parse_json

MARK = b"SgmaSeal"
"""Lies at both ends of a seal: a flipped bit in one of them makes no sealed file an unsealed one."""

_DIGEST, _TAIL = 32, 8
_END = b"PAR1"
_SEAL = 2 * len(MARK) + 2 * _DIGEST
_COPY = 1 << 22
_FIRST_READ = 1 << 16
"""Bytes from the end of a file that are read at once: nearly every footer is shorter."""


class BrokenSeal(OSError):
    """A file holds other bytes than were written."""


def seal_text(text: str, end: str) -> str:
    """A text with its seal behind it, then its end."""
    return text + MARK.decode() + hashlib.sha256((text + end).encode()).hexdigest() + MARK.decode() + end


def check_text(text: str) -> str:
    """The same text, compared with its seal where it has one. Raises BrokenSeal: it is not what was written."""
    head, *rest = text.rsplit(MARK.decode(), 2)
    if rest and (len(rest) == 1 or hashlib.sha256((head + rest[1]).encode()).hexdigest() != rest[0]):
        raise BrokenSeal("other bytes than were written")
    return text


def to_json(value: Mapping[str, Any], **layout: Any) -> str:
    """A sealed JSON object. `layout`: of `json.dumps`."""
    text = json.dumps(dict(value), **layout).removesuffix("}").rstrip()
    return seal_text(f'{text}{", " if value else ""}"seal": "', '"}')


def from_json(text: str) -> dict[str, Any]:
    """The value of a JSON object, sealed or from before there were seals. Raises ValueError, BrokenSeal: damaged."""
    value = parse_json(check_text(text))
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")
    return {key: each for key, each in value.items() if key != "seal"}


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Commit a sealed JSON object, its keys in order."""
    write_bytes(path, to_json(value, indent=1, sort_keys=True).encode())


def read_json(path: Path) -> dict[str, Any]:
    """The value of a file that holds a JSON object; otherwise as `from_json`."""
    return from_json(read_file(path).decode())


@contextmanager
def sealed_write(path: Path) -> Iterator[IO[bytes]]:
    """Commit a Parquet file with its seal: as `atomic_write`, for a file that is written whole inside."""
    with atomic_write(path) as file:
        yield file
        file.seek(-_TAIL, 2)
        file.seek(-_TAIL - int.from_bytes(file.read(_TAIL)[:4], "little"), 2)
        begin = file.tell()
        footer = file.read()
        pages = _digest(file, begin)
        file.seek(begin)
        file.write(MARK + pages + hashlib.sha256(pages + footer).digest() + MARK + footer)


Source = Path | IO[bytes]
"""A file by its path, or one that is open and is left open."""


def check_footer(path: Source) -> bool:
    """Compare a file's footer with its seal; returns whether it has one, as older files have not. Raises BrokenSeal:
    the footer is not the one that was written. Raises FileNotFoundError."""
    with _opened(path) as file:
        return _sealed_pages(file) is not None


def check_file(path: Source) -> None:
    """Compare every byte of a file with its seal; otherwise as `check_footer`."""
    with _opened(path) as file:
        found = _sealed_pages(file)
        if found is not None and _digest(file, found[0]) != found[1]:
            raise BrokenSeal("other bytes than were written")


def _opened(source: Source) -> AbstractContextManager[IO[bytes]]:
    return open_file(source) if isinstance(source, Path) else nullcontext(source)


def _sealed_pages(file: IO[bytes]) -> tuple[int, bytes] | None:
    """Where the pages of a sealed file end and their sha256; None for a file without a seal."""
    size = file.seek(0, 2)
    file.seek(max(0, size - _FIRST_READ))
    end = file.read()
    length = int.from_bytes(end[-_TAIL:-4], "little") + _TAIL
    if end[-4:] != _END or size < length:
        raise BrokenSeal("no whole Parquet file")
    if size < length + _SEAL:
        return None
    if len(end) < length + _SEAL:
        file.seek(size - length - _SEAL)
        end = file.read()
    seal, footer = end[-length - _SEAL : -length], end[-length:]
    inner, marks = seal[len(MARK) : -len(MARK)], (seal[: len(MARK)], seal[-len(MARK) :])
    if MARK not in marks:
        return None
    if marks != (MARK, MARK) or hashlib.sha256(inner[:_DIGEST] + footer).digest() != inner[_DIGEST:]:
        raise BrokenSeal("the footer is not the one that was written")
    return size - length - _SEAL, inner[:_DIGEST]


def _digest(file: IO[bytes], end: int) -> bytes:
    """The sha256 of the bytes of a file before a place."""
    found = hashlib.sha256()
    file.seek(0)
    while data := file.read(min(_COPY, end - file.tell())):
        found.update(data)
    return found.digest()
