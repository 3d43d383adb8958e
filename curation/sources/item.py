"""One input of a source, and how its name and bytes are told apart from the file system's."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Item:
    """One input file, as the listing keeps it."""

    member: str
    """Path relative to the source, `/` between folders, escaped by `member_name`."""
    num_bytes: int | None
    """As listed; None where the file cannot be looked at."""
    sidecar: str | None = None
    """Member name of the caption file beside the image."""
    raw_caption: str | None = None
    """From a captions table of the source."""
    url: str | None = None
    license: str | None = None


@dataclass(frozen=True)
class SourceListing:
    """What listing a source gives."""

    items: list[Item]
    """The inputs in an order that depends on their names alone."""
    ignored: dict[str, int]
    """What is no input, by kind: {"txt (captions)": 12, "pdf": 1, "hidden": 3, "captions without an image": 2}."""


_ESCAPED = re.compile(rb"%(25|[89A-F][0-9A-F])")


def member_name(path: bytes) -> str:
    """A path as text that any Arrow or JSON reader takes.

    Valid UTF-8 stays as it is. A byte that is not becomes `%` and two upper-case hex digits (`%E9`); a `%` of the
    path itself becomes `%25` where it would otherwise read as such an escape. `member_path` is the inverse.
    """
    escaped = _ESCAPED.sub(rb"%25\1", path)
    return "".join(
        f"%{ord(c) - 0xDC00:02X}" if "\udc80" <= c <= "\udcff" else c
        for c in escaped.decode("utf-8", "surrogateescape")
    )


def member_path(member: str) -> bytes:
    """The path that `member_name` made a text of."""
    return _ESCAPED.sub(lambda match: bytes([int(match[1], 16)]), member.encode("utf-8"))


def original_path(source: str, member: str) -> Path:
    """Where an input lies: `source` (a folder's absolute path) and `member` as the listing has them."""
    return Path(source) / os.fsdecode(member_path(member))


def read_original(source: str, member: str, byte_offset: int | None = None, num_bytes: int | None = None) -> bytes:
    """The bytes of an input: a whole file, or `num_bytes` from `byte_offset` of a container.

    Raises:
        OSError: it cannot be read any more.
    """
    with original_path(source, member).open("rb") as file:
        if byte_offset is None:
            return file.read()
        file.seek(byte_offset)
        return file.read(-1 if num_bytes is None else num_bytes)
