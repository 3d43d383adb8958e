"""One input of a source as the listing keeps it, and how names of any bytes become text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple


class Item(NamedTuple):
    member: str
    """Path relative to `source`, `/` between folders, escaped by `member_name`; inside a container `tar#member`
    or `table.parquet#row/column` (`inside`)."""
    num_bytes: int | None
    """As listed; None where the file cannot be looked at."""
    sidecar: str | None = None
    """Member name of the image's caption file."""
    raw_caption: str | None = None
    url: str | None = None
    license: str | None = None
    byte_offset: int | None = None
    """First byte of the input inside a tar, or its row in a table."""
    source: str | None = None
    """Folder or URL that `member` is relative to, where it is not that of the source."""
    reason: str | None = None
    """The reason why there is no picture, where listing has found one: an ImageError or a FetchError."""
    detail: str | None = None
    other_captions: tuple[str, ...] = ()
    """Further raw captions, where a list of them came with the image."""


@dataclass(frozen=True)
class SourceListing:
    """The inputs of a source, and counts of its other files."""

    items: Iterable[Item]
    """The inputs, one after the other, in an order that depends on their names alone; read once."""
    ignored: dict[str, int]
    """What is no input, by kind: {"txt (captions)": 12, "pdf": 1, "hidden": 3, "captions without an image": 2}.
    Filled while `items` is read."""
    links: dict[str, int] = field(default_factory=dict)
    """How many inputs are links, by where these lead; filled as `ignored` is."""

    def count(self, kind: str, num: int = 1, first: str | None = None) -> None:
        """Count something that is no input; `first` says what and where it is, and is shown of the first one."""
        if first is not None:
            first = first.encode("utf-8", "backslashreplace").decode("utf-8")  # a name need not be UTF-8
            begin = f"{kind} (the first: "
            kind = next((known for known in self.ignored if known.startswith(begin)), f"{begin}{first})")
        if num:
            self.ignored[kind] = self.ignored.get(kind, 0) + num


_ESCAPED = re.compile(rb"%(25|[89A-F][0-9A-F])")
_ESCAPED_CONTAINER = re.compile("%(?=2[35])")


def member_name(path: bytes) -> str:
    """A path as text that any Arrow or JSON reader takes. Valid UTF-8 is kept. Any other byte becomes `%` and two
    upper-case hex digits (`%E9`); a `%` of the path itself becomes `%25` where it would otherwise read as such an
    escape. `member_path` is the inverse."""
    if path.isascii() and b"%" not in path:
        return path.decode("ascii")
    escaped = _ESCAPED.sub(rb"%25\1", path)
    return "".join(
        f"%{ord(c) - 0xDC00:02X}" if "\udc80" <= c <= "\udcff" else c
        for c in escaped.decode("utf-8", "surrogateescape")
    )


def member_path(member: str) -> bytes:
    """The path that `member_name` made a text of."""
    return _ESCAPED.sub(lambda match: bytes([int(match[1], 16)]), member.encode("utf-8"))


def inside(container: str, inner: str) -> str:
    """The member name of something in a container: `container#inner`, a `#` of the container's name written `%23`."""
    return _ESCAPED_CONTAINER.sub("%25", container).replace("#", "%23") + "#" + inner


def split_inside(member: str) -> tuple[str, str]:
    """(container, inner): the inverse of `inside`."""
    container, _, inner = member.partition("#")
    return re.sub("%2([35])", lambda match: "#" if match[1] == "3" else "%", container), inner
