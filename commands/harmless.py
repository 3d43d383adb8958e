"""Keeps the control characters of data away from terminals, which would take them for orders."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from typing import Any, NoReturn

from rich.console import Console
from rich.segment import Segment

from schemas.files import shown_place

_ORDERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but for tab and line break, those that turn the direction of a line, and bytes of names that are
not UTF-8, which no terminal takes."""


def harmless(text: str) -> str:
    """A text whose control characters are replaced by their visible signs (␛), or by a replacement character."""
    return _ORDERS.sub(lambda found: _sign(ord(found[0])), text)


def write_plain(text: str | bytes) -> None:
    """Write a text to standard output without a console, which would wrap it; to a terminal, without orders."""
    if sys.stdout.isatty():
        text = harmless(text if isinstance(text, str) else text.decode("utf-8", "replace"))
    if isinstance(text, str):
        sys.stdout.write(text)
    else:
        sys.stdout.buffer.write(text)


def _sign(code: int) -> str:
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else "\ufffd"


class DataConsole(Console):
    """A console on which no text, wherever it comes from, is an order to the terminal; styles of its own stay."""

    def print(self, *objects: Any, **options: Any) -> None:
        """See `Console.print`: of a dataset in a store the address is shown, not the folder that means it."""
        super().print(*(shown_place(each) if isinstance(each, str) else each for each in objects), **options)

    def on_broken_pipe(self) -> NoReturn:
        """See `Console.on_broken_pipe`: the command ends as where it writes without a console."""
        raise BrokenPipeError

    def render(self, *args: Any, **options: Any) -> Iterable[Segment]:
        """See `Console.render`: every text that is printed goes through here."""
        for segment in super().render(*args, **options):
            if segment.control or not _ORDERS.search(segment.text):
                yield segment
            else:
                yield Segment(harmless(segment.text), segment.style)
