"""Captions as text: normalising, words and sentence ends; and the rows that may have a caption."""

from __future__ import annotations

import json
import re
import unicodedata
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from schemas.sentences import sentence_ends

_INVISIBLE = "\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
"""Characters that print nothing: soft hyphens, zero-width spaces, byte order marks, marks of direction."""

_REMOVED = re.compile(f"[{_INVISIBLE}]|(\U0001f3f4[\U000e0030-\U000e007a]{{2,6}}\U000e007f)|[\U000e0000-\U000e007f]")
"""What is taken out; the group is what stays, the flag of a region, which is spelled in tags behind a black flag."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_STRAY_JOINER = re.compile(
    "(?<![^\x00-\x7f\\s\u200c\u200d])[\u200c\u200d]|[\u200c\u200d](?![^\x00-\x7f\\s\u200c\u200d])"
)
"""A zero-width joiner shapes Persian, Hindi and emoji; next to a space, Latin letters or another joiner it is dirt."""

SPACELESS = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003fffd"
)
"""Scripts that put no spaces between words (Thai, Lao, Burmese, Khmer, Kana, Han): each character counts as a word."""

_WORD = re.compile(rf"[{SPACELESS}]|[^\W{SPACELESS}]+(?:['’][^\W{SPACELESS}]+)*")


def clean(text: str | None) -> str | None:
    """A caption in Unicode NFC with single spaces and none at its ends; None where nothing is left of it. Control
    characters become spaces. Characters that print nothing are dropped."""
    if text is None:
        return None
    if not text.isascii():
        text = _REMOVED.sub(lambda found: found[1] or "", unicodedata.normalize("NFC", text))
        text = unicodedata.normalize("NFC", _STRAY_JOINER.sub("", text))
    return " ".join(_CONTROL.sub(" ", text).split()) or None


def read_json(content: str | bytes) -> Any:
    """What JSON of unknown origin says, without halves of surrogate pairs, which no file can hold. Raises ValueError:
    it is no JSON, or is nested too deep."""
    try:
        whole = json.dumps(json.loads(content), ensure_ascii=False)
        return json.loads(whole.encode(errors="ignore"))
    except RecursionError:
        raise ValueError("the JSON is nested too deep") from None


@lru_cache(128)
def words(text: str) -> tuple[str, ...]:
    """The words of a text in lower case, without punctuation; a character each in scripts without spaces. The last
    texts are remembered, since each rule of the gate asks for the words of the same caption and sentences."""
    return tuple(_WORD.findall(text.lower()))


def sentences(text: str) -> list[str]:
    """The sentences of a text, spaces stripped; the text after the last end is one more."""
    ends = sentence_ends(text)
    pieces = (text[begin:end].strip() for begin, end in zip([0, *ends], [*ends, len(text)], strict=True))
    return [piece for piece in pieces if piece]


def raw_offers(raws: pa.Table, selection: pa.Table) -> pa.Table:
    """A part of `raw_captions` for the mix: a picture that took over a duplicate's caption has that one and no
    reason. The view `raw_offers` says the same in SQL."""
    taken = selection.filter(selection["inherited_caption"].is_valid())
    place = pc.index_in(raws["row_id"], value_set=taken["row_id"].combine_chunks())
    caption = pc.coalesce(taken["inherited_caption"].combine_chunks().take(place), raws["caption"])
    reason = pc.if_else(place.is_valid(), pa.scalar(None, pa.string()), raws["reason"])
    columns = {"caption": caption, "reason": reason}
    for name, column in columns.items():
        raws = raws.set_column(raws.schema.get_field_index(name), name, column)
    return raws


def kept_mask(rows: pa.Table, selection: pa.Table) -> list[bool]:
    """True for each row of a part that `selection` kept; a row that selection does not know was not kept."""
    kept = selection.filter(selection["kept"])["row_id"]
    return pc.is_in(rows["row_id"], value_set=kept.combine_chunks()).to_pylist()
