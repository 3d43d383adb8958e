"""Which language a text is in: py3langid, a naive Bayes model over 139 languages that comes with its package."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

CONFIDENCE = 0.7
"""Least probability at which a language is named; two or three words seldom reach it."""

FOREIGN = 0.003
"""Under this probability a language is ruled out. A text that says nothing gives each language 0.007."""

CHARACTERS_READ = 1000
"""A longer text is judged by its beginning."""


@dataclass(frozen=True)
class Guess:
    """What the model makes of a text."""

    language: str | None
    """ISO 639 code, such as `en`; None where the model is not sure."""
    probabilities: dict[str, float]
    """Of every language, by its code."""

    def rules_out(self, languages: Collection[str]) -> bool:
        """Whether the text is surely in none of these languages."""
        return sum(self.probabilities.get(code, 0.0) for code in languages) < FOREIGN


class LanguageGuesser:
    """Names languages. The model is loaded with the first text, once per process: a second and about 100 MiB."""

    def guess(self, text: str) -> Guess:
        """The language of a text, as far as it can be told."""
        ranked = _model().rank(text[:CHARACTERS_READ])
        code, probability = ranked[0]
        return Guess(str(code) if probability >= CONFIDENCE else None, dict(ranked))

    def languages(self) -> list[str]:
        """Every code that it knows."""
        return sorted(set(_model().labels))


@lru_cache(maxsize=1)
def _model() -> LanguageIdentifier:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
