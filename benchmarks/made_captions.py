"""Captions for benchmarks: as long and as varied as those of the paper, no two alike, made from templates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from captioning.captioners.attributes import NAMES, Attributes, ColourPatch, describe
from captioning.word_list import lexicon

T = TypeVar("T")

RAW_WORDS, SYNTHETIC_WORDS = 35, 180
"""Lengths of the paper's captions: raw ones, and Share-Captioner's."""

_COMMON = (
    "man woman child dog cat street table chair window house tree sky cloud beach mountain river road car bicycle boat "
    "bridge tower church garden flower leaf grass wall door lamp book cup plate bowl bottle shirt dress hat shoe face "
    "hand hair eye horse bird sheep cow field forest snow water lake stone wood glass metal paper background foreground"
)
_PLACES = (
    "on",
    "near",
    "beside",
    "behind",
    "in front of",
    "under",
    "above",
    "next to",
    "to the left of",
    "to the right of",
    "along",
    "inside",
)
_VERBS = (
    "stands",
    "sits",
    "rests",
    "lies",
    "leans",
    "hangs",
    "rises",
    "stretches",
    "is placed",
    "can be seen",
    "is partly hidden",
    "has been left",
)
_MOODS = (
    "calm",
    "lively",
    "quiet",
    "nostalgic",
    "cosy",
    "dramatic",
    "serene",
    "busy",
    "melancholy",
    "festive",
    "dreamy",
    "austere",
)


class CaptionWriter:
    """Writes captions as long as the paper's. No two are alike, and their words follow Zipf's law: common ones first,
    then all of the word list, and names and numbers that no list knows."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        words = sorted(word for word in lexicon if word.isalpha() and word.islower())
        order = np.random.default_rng(0).permutation(len(words))  # the same word is common to every seed
        tagged = [(words[place], lexicon[words[place]]) for place in order]
        self._nouns = _COMMON.split() + [word for word, tag in tagged if tag == "NN"]
        self._plurals = [word for word, tag in tagged if tag == "NNS"]
        self._adjectives = [word for word, tag in tagged if tag == "JJ"]
        self._doing = [word for word, tag in tagged if tag == "VBG"]

    def raw(self) -> str:
        """As from an alt text: a title, its place, tags and a credit, `RAW_WORDS` words and a few more."""
        pieces = [
            f"{self._adjective().title()} {self._noun()} {self._place()} {self._a()}, {self._name()}",
            f"{self._name()}'s {self._noun()} for {self._plural()}",
        ]
        endings = (
            lambda: f"{self._a()} {self._zipf(self._doing)} in {self._name()}",
            lambda: f"{self._rng.integers(2, 90)} {self._plural()} and {self._a()}",
            lambda: f"photo by {self._name()} {self._name()} ({self._rng.integers(1950, 2024)})",
            lambda: f"{self._adjective()} {self._noun()} - {self._noun()} {self._noun()}",
            lambda: f"it doesn't look like {self._a()} | {self._name()} stock #{self._rng.integers(10**6)}",
        )
        return self._until(pieces, lambda: self._choice(endings)(), RAW_WORDS, ", ")

    def synthetic(self) -> str:
        """As from a captioner: sentences on what is where, and those of `attributes`, `SYNTHETIC_WORDS` and a few."""
        sentences = (
            lambda: f"{self._a().capitalize()} {self._choice(_VERBS)} {self._place()} {self._the()}.",
            lambda: f"In the background, {self._plural()} and {self._a()} add depth to the {self._noun()}.",
            lambda: (
                f"The {self._noun()}'s {self._plural()} are {self._adjective()}, {self._zipf(self._doing)} "
                f"{self._place()} {self._the()}, while {self._a()} catches the light."
            ),
            lambda: f"There is also {self._a()} with {self._plural()}, perhaps from {self._name()}.",
            lambda: (
                f"The overall mood is {self._choice(_MOODS)} and {self._choice(_MOODS)}, as if {self._the()} had "
                f"just been left by its {self._plural()}."
            ),
        )
        opening = f"The image captures {self._a()} {self._place()} {self._the()}. {describe(self._measured())}"
        return self._until([opening], lambda: self._choice(sentences)(), SYNTHETIC_WORDS, " ")

    def _until(self, pieces: list[str], another: Callable[[], str], words: int, between: str) -> str:
        while len(between.join(pieces).split()) < words - 4:
            pieces.append(another())
        return between.join(pieces)

    def _measured(self) -> Attributes:
        rng = self._rng
        patches = [ColourPatch(str(name), 0.2, "on the left") for name in rng.choice(NAMES, 3, replace=False)]
        return Attributes(
            aspect=float(rng.uniform(0.4, 2.5)),
            patches=tuple(patches),
            accent=str(rng.choice(NAMES)),
            lightness=float(rng.uniform(5, 95)),
            contrast=float(rng.uniform(3, 40)),
            chroma=float(rng.uniform(1, 60)),
            warmth=float(rng.uniform(-20, 20)),
            side_light=float(rng.uniform(-30, 30)),
            top_light=float(rng.uniform(-30, 30)),
            detail=float(rng.uniform(0, 10)),
            detail_place=str(rng.choice(["centre", "left", "right", ""])),
            smooth_top="",
        )

    def _choice(self, of: Sequence[T]) -> T:
        return of[int(self._rng.integers(len(of)))]

    def _place(self) -> str:
        return self._choice(_PLACES)

    def _zipf(self, words: Sequence[str]) -> str:
        """Rank k with probability log(1 + 1/k) / log(1 + number of words): 1/k, but for the first few."""
        rank = int(np.exp(self._rng.random() * np.log(len(words) + 1)))
        return words[min(rank, len(words)) - 1]

    def _noun(self) -> str:
        return self._zipf(self._nouns)

    def _plural(self) -> str:
        return self._zipf(self._plurals)

    def _adjective(self) -> str:
        return self._zipf(self._adjectives)

    def _a(self) -> str:
        described = f"{self._adjective()} {self._noun()}"
        return f"{'an' if described[0] in 'aeiou' else 'a'} {described}"

    def _the(self) -> str:
        return f"the {self._adjective()} {self._noun()}"

    def _name(self) -> str:
        syllables = (self._choice("bdfghklmnprstvz") + self._choice("aeiou") for _ in range(self._rng.integers(2, 5)))
        return "".join(syllables).capitalize() + self._choice(("", "n", "s", "r"))
