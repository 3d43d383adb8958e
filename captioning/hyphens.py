"""Apostrophes and hyphens in a caption: one typeface for all, and words that a hyphen holds together stay whole."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

from captioning.word_list import lexicon, singular

if TYPE_CHECKING:
    from spacy.language import Language

_MARKS = "\u2019\u2018\u201b\u02bc\u02b9\u00b4\u2032\uff07`"
_APOSTROPHE = re.compile(
    rf"(?<=\w)[{_MARKS}]|[{_MARKS}](?=[\w-])|[\u02bc\u02b9]"
)  # the last two are letters to Unicode
_HYPHEN = re.compile("(?<=\\w)[\u2010\u2011\ufe63\uff0d](?=\\w)")
_DASHED = re.compile("\\w+[\u2012\u2013\u2212]\\w+")
_DASH = re.compile("[\u2012\u2013\u2212]")
_INVISIBLE = re.compile("[\u00ad\u200b-\u200d\u2060\ufeff]")
_HYPHENATED = re.compile(r"\w+(?:'?-\w+)+")

PARTICLE = re.compile(
    "(?:up|in|out|off|down|by|over|on|through|away|back|go|around|about|together|under|between|along|ahead|to|do)s?"
)
"""Behind a hyphen it makes one word of a verb: close-up, drive-in, passer-by, get-together."""
DESCRIBING = frozenset(("mid", "non", "anti", "multi", "pre", "post", "inter", "trans", "over", "under"))
"""With a noun behind a hyphen they describe a further noun (a non-stick pan) or are one word with it (in mid-air)."""
_PREFIXES = "self semi half mini maxi micro mega co ex vice sub super great counter step tee go yo tip jack teddy"
_HELD = re.compile(
    r"[a-z]-[a-z]{2,}|\d-d|"  # T-shirt, X-ray, e-mail, V-neck, U-turn
    rf"[a-z]{{2,}}-{PARTICLE.pattern}|"
    rf"(?:{'|'.join([*_PREFIXES.split(), *sorted(DESCRIBING)])})-[a-z]{{2,}}|"  # self-portrait, mini-skirt, co-pilot
    r"(?!one|two|three|four|five|six)[a-z]{2,}-(?:man|men|woman|women)|"  # Spider-Man
    r"ice-(?:creams?|lolly|lollies)|hot-(?:dog|rod|pot|spot)s?|(?:wi|hi|lo|sci)-fis?|cd-roms?|coca-colas?|see-saws?|"
    r"merry-go-rounds?|(?:mother|father|sister|brother|daughter|son|parent)s?-in-law|"
    r"(?:editor|commander)s?-in-chief|jack-(?:o|of|in)'?-(?:lantern|all-trade|the-box)(?:e?s)?|"
    r"forget-me-nots?|touch-me-nots?|lily-of-the-valley|birds?-of-paradise|coats?-of-arms|tugs?-of-war|hide-and-seek|"
    r"roly-poly|bric-a-brac|tic-tac-toe|cul-de-sacs?|hand-me-downs?|pick-me-ups?|pied-[aà]-terre|(?:great-){2,}[a-z]+",
    re.IGNORECASE,
)
_TWICE = re.compile(r"([a-z]+)-\1s?|([b-df-hj-np-tv-z]*)[aeiou]+([a-z]*)-\2[aeiou]+\3s?", re.IGNORECASE)
"""A word said twice, or with another vowel: yo-yo, cha-cha, flip-flop, zig-zag, ping-pong."""
_RHYME = re.compile(r"[a-z]{1,2}([aeiouy][a-z]{2,})-[a-z]{1,2}\1s?", re.IGNORECASE)
"""Walkie-talkie, hocus-pocus."""
_NAME = re.compile(r"[A-Z]\w+-[A-Z]\w+")


def held_together(word: str) -> bool:
    """A hyphen makes one concept of the words on its sides. In others ("black-and-white", "coffee-table",
    "dark-haired") each word says what it says alone. A name is one (Rolls-Royce) if the word list has it, or lacks a
    part of it in any form: a headline's "Hand-Painted" is none."""
    if "-" not in word:
        return False
    return bool(_HELD.fullmatch(word) or _TWICE.fullmatch(word) or _RHYME.fullmatch(word)) or is_name(word)


def is_name(word: str) -> bool:
    """A name that a hyphen holds together: Coca-Cola, but not Paris-Rome."""
    if not _NAME.fullmatch(word):
        return False
    return lexicon.get(word) == "NNP" or not all(map(_is_known, word.split("-")))


def _is_known(part: str) -> bool:
    lower = part.lower()
    return part in lexicon or lower in lexicon or lower.endswith(("ed", "ing")) or singular(lower) in lexicon


def plain(text: str) -> str:
    """A text with the apostrophes and hyphens of a typewriter, which tokenizers know, and no soft hyphens. A dash
    becomes a hyphen where that makes one word: T–shirt, but not Paris–Rome."""
    if text.isascii() and "`" not in text:
        return text
    return _DASHED.sub(_hyphened, _HYPHEN.sub("-", _APOSTROPHE.sub("'", _INVISIBLE.sub("", text))))


def _hyphened(found: re.Match[str]) -> str:
    word = _DASH.sub("-", found[0])
    return word if held_together(word) else found[0]


def hold_together(nlp: Language) -> None:
    """An English tokenizer parts no word that a hyphen holds together."""
    parts = getattr(nlp.tokenizer, "infix_finditer", None)  # a tokenizer of another make has no such rule
    if parts is not None and nlp.lang == "en":
        nlp.tokenizer.infix_finditer = partial(_parts, parts)


def _parts(parts: Callable[[str], Iterable[re.Match[str]]], text: str) -> list[re.Match[str]]:
    found = list(parts(text))
    if "-" not in text:
        return found
    whole = [word.span() for word in _HYPHENATED.finditer(text) if held_together(word[0])]
    return [part for part in found if not any(start <= part.start() < end for start, end in whole)]
