"""The captions of a sample: the one that the dataset chose, and the raw and the synthetic one, cut as the mix cuts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from models.tokenizers import WORDS, load_tokenizer
from schemas.sentences import fit
from schemas.strict import read_yaml
from schemas.texts import LONGEST_CAPTION
from schemas.tokens import MAX_TOKENS, count_tokens
from schemas.training import TrainingRecipe

if TYPE_CHECKING:  # captions are read without torch, which takes a second
    from torch import Tensor

MIXED, RAW, SYNTHETIC = "mixed", "raw", "synthetic"

Cut = Callable[[str], str]
"""Cuts a caption as the mix does: behind the last sentence within `MAX_TOKENS`."""


class Read(NamedTuple):
    """The caption that is read, as a text or encoded (tokens, channels)."""

    caption: str | Tensor
    is_synthetic: bool
    is_cut: bool


def preferred(toss: bool | None) -> tuple[str, str, str]:
    """The captions to look for, the wanted one first: synthetic for a `toss` of true, raw for false, the mix's for
    None."""
    if toss is None:
        return (MIXED, SYNTHETIC, RAW)
    return (SYNTHETIC, RAW, MIXED) if toss else (RAW, SYNTHETIC, MIXED)


@dataclass(frozen=True)
class Captions:
    """The captions of a picture."""

    mixed: str
    """The caption the dataset chose, as it cut it."""
    raw: str | None
    """It or `synthetic` may be missing, not both; cut as the mix cuts."""
    synthetic: str | None
    source: str | None = field(default=None, compare=False, kw_only=True)
    """Which of the two `mixed` is; None where the sample does not say."""
    cut: frozenset[str] = field(default=frozenset(), compare=False, kw_only=True)
    """Names of those that are shorter than what was written."""

    def read(self, toss: bool | None) -> Read:
        """The caption that training reads; see `preferred`."""
        texts = {MIXED: self.mixed, RAW: self.raw, SYNTHETIC: self.synthetic}
        name = next((name for name in preferred(toss) if texts[name]), MIXED)
        return Read(texts[name] or "", SYNTHETIC in (name, self.source if name == MIXED else None), name in self.cut)


def cut_captions(mixed: str, raw: str | None, synthetic: str | None, source: str | None, cut: Cut) -> Captions:
    """The captions of a sample from whole ones: the one that the mix chose is as it has it, `cut` cuts the other."""
    kept: dict[str, str | None] = {}
    for name, whole in ((RAW, raw), (SYNTHETIC, synthetic)):
        is_chosen = name == source and whole is not None and mixed and whole.startswith(mixed)
        kept[name] = mixed if is_chosen else whole and cut(whole)
    names = {name for name, whole in ((RAW, raw), (SYNTHETIC, synthetic)) if whole and kept[name] != whole.strip()}
    if source in names:
        names.add(MIXED)
    return Captions(mixed, kept[RAW], kept[SYNTHETIC], source=source, cut=frozenset(names))


def by_words(text: str) -> str:
    """A caption as a mix by the offline tokenizer cuts it."""
    return _cut(text, lambda texts: [count_tokens(text) for text in texts])


def cut_of(recipe: TrainingRecipe) -> Cut:
    """How the dataset's mix cuts captions; only a toss reads any that the mix has not cut. Raises ValueError: the
    tokenizer of the mix is not on this machine."""
    path = recipe.dataset_folder / "recipe.yaml"
    if recipe.data.captions == "mix" or not path.is_file():
        return by_words
    given = (read_yaml(path).get("mix") or {}).get("tokenizer", WORDS)
    count = _counter(given)
    return lambda text: _cut(text, count)


@lru_cache(maxsize=4)
def _counter(given: str) -> Callable[[Sequence[str]], list[int]]:
    try:
        return load_tokenizer(given).count
    except ValueError as error:
        raise ValueError(
            f"data.captions: toss cuts captions with the tokenizer of the dataset's mix; {error}"
        ) from None


def _cut(text: str, count: Callable[[Sequence[str]], list[int]]) -> str:
    text = text.strip()[:LONGEST_CAPTION]
    return text if count([text])[0] <= MAX_TOKENS else fit(text, MAX_TOKENS, count)[0]
