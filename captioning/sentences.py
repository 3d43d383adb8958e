"""Captions cut into sentences, by punctuation alone."""

from __future__ import annotations

import re

_ABBREVIATION = re.compile(r"\b(?:Mr|Mrs|Ms|Dr|Prof|St|No|vs|etc|approx|e\.g|i\.e|[A-Z])\.$")
_END = re.compile(r"[.!?…]+[\"'”’)\]]*(?=\s+\S)|\n+")


def sentences(text: str) -> list[str]:
    """The sentences of a caption in order, without white space around them; joined by spaces they are the caption.

    A sentence ends at . ! ? or … before white space, or at a line break; common abbreviations and initials do not
    end one.
    """
    found, begin = [], 0
    for match in _END.finditer(text):
        if _ABBREVIATION.search(text[begin : match.end()]):
            continue
        found.append(text[begin : match.end()].strip())
        begin = match.end()
    found.append(text[begin:].strip())
    return [sentence for sentence in found if sentence]
