"""Turns bytes and cells that people wrote into text: encodings, JSON beyond the usual limits, captions of any type."""

from __future__ import annotations

import codecs
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

from schemas.locations import public_url

LONGEST_TEXT_BYTES = 1 << 20
"""A larger file, or member of a tar, is no caption."""

LONGEST_CAPTION = 5_000
"""Characters of a caption that any job looks at, some three times what 300 tokens take. What is behind them is kept
where it came and read no further, so that one long text costs no job more than a tenth of a second."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before the mark of UTF-16, which is its beginning
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_WIDE = ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be")
_NO_TEXT = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
"""Control characters that no text in one byte per letter has, and one in two bytes per letter is full of."""

_ESCAPED = frozenset(map(chr, range(0xDC80, 0xDD00)))
"""What bytes become that are no UTF-8."""
_ESCAPED_RUN = re.compile("[\udc80-\udcff]{3}")
_NO_LETTERS = bytes(byte for byte in range(256) if not bytes([byte]).isalpha())
_LATIN = frozenset(bytes([0x80, 0x85, *range(0x91, 0x98), 0x99, *b"\x8a\x8c\x8e\x9a\x9c\x9e\x9f", *range(0xA0, 0xFF)]))
"""Bytes of Windows-1252 that are letters and punctuation of western texts."""
_LONGEST_INT = 4000


class NotText(ValueError):
    """The bytes are no text of the kind that they should be; the message says why, after the name of the file."""


def encoding_of(data: bytes) -> str | None:
    """The encoding of a text by its first bytes: what a byte order mark says, else UTF-8, or UTF-16 and UTF-32 without
    a mark where the bytes make sense in no other way. None where it is no text."""
    for mark, name in _MARKS:
        if data.startswith(mark):
            return name
    inner = data.rstrip(b"\0")
    num_strange = len(_NO_TEXT.findall(inner))
    if not num_strange or (num_strange * 8 < len(inner) and (_is_utf8(inner) or _is_mostly_ascii(inner))):
        return "utf-8"
    guesses = {name: num for name in _WIDE if (num := _num_plain(data, name)) is not None}
    if guesses:
        return max(guesses, key=lambda name: guesses[name])
    return None if b"\0" in inner else "utf-8"


def _is_utf8(data: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data)  # the last character may be cut
    except UnicodeDecodeError:
        return False
    return True


def _is_mostly_ascii(data: bytes) -> bool:
    return sum(0x20 <= byte < 0x7F for byte in data) * 5 > len(data) * 3  # of two bytes per letter half are at most


def _num_plain(data: bytes, encoding: str) -> int | None:
    """How many ASCII characters a text has in an encoding; None where it holds what no text does."""
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(data)  # the last character may be cut
    except UnicodeDecodeError:
        return None
    if any(unicodedata.category(one) in ("Cc", "Cn", "Co", "Cs") and one not in "\t\n\r" for one in set(text)):
        return None
    return len(text.encode("ascii", "ignore"))


def decode(data: bytes) -> str | None:
    """The text in a small file or a cell; None where the bytes are no text. Of a text that is UTF-8 but for single
    bytes of Windows-1252 between ASCII letters, these become what they mean there; any other byte becomes U+FFFD."""
    encoding = encoding_of(data[: 1 << 16])
    if encoding is None:
        return None
    if encoding != "utf-8":
        return data.decode(encoding, "replace").rstrip("\ufffd\0")
    return mended(data.rstrip(b"\0").decode("utf-8", "surrogateescape"))


def mended(text: str) -> str:
    """A text that was decoded with `surrogateescape`, its undecodable bytes read as Windows-1252 or replaced."""
    if text.isascii():
        return text
    stray = _ESCAPED.intersection(text)
    if not stray:
        return text
    num_letters = len(text.encode("ascii", "ignore").translate(None, _NO_LETTERS))
    is_western = _LATIN.issuperset(ord(one) - 0xDC00 for one in stray) and _ESCAPED_RUN.search(text) is None
    is_western = is_western and sum(map(text.count, stray)) * 2 <= num_letters
    for one in stray:
        text = text.replace(one, bytes([ord(one) - 0xDC00]).decode("cp1252") if is_western else "\ufffd")
    return text


def parse_json(text: str) -> Any:
    """The value of a JSON text; numbers beyond Python's digits are the nearest float. Raises NotText: it is no JSON."""
    try:
        return json.loads(text, parse_int=_number)
    except RecursionError:
        raise NotText("is nested too deeply") from None
    except ValueError as error:
        raise NotText(f"is not JSON: {error}") from None


def _number(digits: str) -> int | float:
    return int(digits) if len(digits) <= _LONGEST_INT else float(digits)


def counted(number: int, what: str) -> str:
    """A number and what it counts, which takes an s from two on: 1 tar, 2,000 tars."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def clean_text(value: Any) -> str | None:
    """Text stripped of blanks and of characters that UTF-8 cannot hold; None where nothing is left or it is no text."""
    if isinstance(value, bytes):
        value = decode(value)
    if not isinstance(value, str):
        return None
    return value.encode("utf-8", "replace").decode("utf-8").strip() or None


def clean_url(value: Any) -> str | None:
    """A URL as provenance: `clean_text` without credentials."""
    text = clean_text(value)
    return None if text is None else public_url(text)


def caption_texts(value: Any) -> list[str]:
    """The texts of a caption: of a list all that are text, in their order; of one text that one."""
    found = (clean_text(one) for one in (value if isinstance(value, list | tuple) else (value,)))
    return [text for text in found if text is not None]


def captions_in(row: Mapping[Any, Any], names: Iterable[str]) -> list[str]:
    """The texts in the first of some columns that holds any; the first of them is the caption."""
    return next((texts for name in names if (texts := caption_texts(row.get(name)))), [])
