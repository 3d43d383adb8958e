"""Guesses the language of a text with py3langid, a naive Bayes model over 139 languages that comes with its package."""

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
class LanguageGuess:
    """The model's guess at the language of a text."""

    language: str | None
    """ISO 639 code, such as `en`; None where the model is not sure."""
    probabilities: dict[str, float]
    """Code of every language -> its probability."""

    def rules_out(self, languages: Collection[str]) -> bool:
        """True if the text is surely in none of these languages."""
        return sum(self.probabilities.get(code, 0.0) for code in languages) < FOREIGN


class LanguageGuesser:
    """Names languages. The model is loaded with the first text, once per process: a second and about 100 MiB."""

    def guess(self, text: str) -> LanguageGuess:
        """The likeliest language of a text, with the probabilities of all."""
        ranked = _model().rank(text[:CHARACTERS_READ])
        code, probability = ranked[0]
        return LanguageGuess(str(code) if probability >= CONFIDENCE else None, dict(ranked))

    def languages(self) -> list[str]:
        """The codes of all languages that the model knows."""
        return sorted(set(_model().labels))


@lru_cache(maxsize=1)
def _model() -> LanguageIdentifier:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
