"""Guesses the language of a text with py3langid, a naive Bayes model over 139 languages that comes with its package."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from captioning.texts.markup import without_quotes
from captioning.texts.text import sentences, words

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

CONFIDENCE = 0.7
"""Least probability at which a language is named; two or three words seldom reach it."""

FOREIGN = 0.003
"""Under this probability a language is ruled out. A text that says nothing gives each language 0.007."""

CHARACTERS_READ = 1000
"""A longer text is judged by its beginning."""

SENTENCE_WORDS = 8
"""A sentence of a caption is judged by itself from this many words."""

FOREIGN_LETTERS = 2
"""Letters in a row of another script that make a caption one of mixed languages, ..."""
LONGEST_INSCRIPTION = 20
"""... unless they are at most this many behind a word that says they are writing in the picture."""

_ENGLISH = frozenset(("a", "and", "are", "is", "of", "on", "the", "with"))
_ENGLISH_ALONE = frozenset(
    ("and", "are", "been", "from", "has", "have", "of", "that", "the", "their", "these", "this", "which", "with")
)
PLAIN_SHARE = 0.15
"""A piece with this share of words that no other language has is English, and the model is not asked."""
ENGLISH_WORDS = 2
"""A text with so many of these is judged without its words with accents as well: dishes and places keep theirs."""

_SCRIPTS = {
    "CYRILLIC": "be bg kk ky mk mn ru sr uk",
    "GREEK": "el",
    "CJK": "ja ko zh",
    "HIRAGANA": "ja",
    "KATAKANA": "ja",
    "HANGUL": "ko",
    "ARABIC": "ar fa ku ps ug ur sd",
    "HEBREW": "he yi",
    "DEVANAGARI": "hi mr ne sa",
    "BENGALI": "as bn",
    "THAI": "th",
    "ARMENIAN": "hy",
    "ETHIOPIC": "am",
    "GEORGIAN": "ka",
    "GUJARATI": "gu",
    "GURMUKHI": "pa",
    "KANNADA": "kn",
    "KHMER": "km",
    "LAO": "lo",
    "MALAYALAM": "ml",
    "MYANMAR": "my",
    "ORIYA": "or",
    "SINHALA": "si",
    "TAMIL": "ta",
    "TELUGU": "te",
    "TIBETAN": "dz",
}
"""Script, as Unicode names its letters -> the languages that are written in it. Latin letters are in every language."""

_INSCRIPTION = re.compile(
    r"\b(?:read(?:s|ing)?|sa(?:y|ys|ying)|texts?|signs?|label(?:s|l?ed)?|written|printed|painted|characters?|letters?|"
    r"lettering|"
    r"words?|inscription|inscribed|calligraphy|kanji|hiragana|katakana|hangul|cyrillic|graffiti|logo|banner|titled?|"
    r"poster|menu|scroll|plaque|newspaper|headline|stamp|lists|listing|"
    r"billboard|tattoo|named|called|known as|spell(?:s|ing|ed)?|chinese|japanese|korean|russian|arabic|hebrew|greek|"
    r"thai|hindi)"
    r"\b[^.!?。]*\Z",
    re.IGNORECASE,
)
_INSCRIBED = re.compile(
    r"\W{0,3}(?:on (?:it|them)\b|(?:(?:is|are) )?(?:written|painted|printed|carved|engraved)\b|in \w+ letters)"
)
"""The same behind the letters."""
_NAME = re.compile(r"(?<=[^\W_,;] )[^\W\d_]*[A-ZÀ-ÞŒŠŽ][\w'’-]*")
"""A capital letter inside a sentence: names say nothing about the language around them."""
_GLOSS = re.compile(r"\([^()]{1,40}\)")


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
        return sorted(set(_model().labels))


def speaks_another(caption: str, languages: Collection[str]) -> bool:
    """True if a caption, a sentence of it or letters in the midst of it are surely in none of these languages. Words in
    quotes are writing in the picture, and do not count; nor do a few letters behind "a sign with the characters", nor a
    word in parentheses."""
    bare = without_quotes(caption)
    if _has_foreign_letters(_GLOSS.sub(" ", bare), frozenset(languages)):
        return True
    pieces = [bare, *(sentence for sentence in sentences(bare) if len(words(sentence)) >= SENTENCE_WORDS)]
    guesser = LanguageGuesser()
    return any(
        all(guesser.guess(text).rules_out(languages) for text in (piece, _NAME.sub("", piece), _without_accents(piece)))
        for piece in dict.fromkeys(pieces)
        if not ("en" in languages and _is_plainly_english(piece))
    )


def _is_plainly_english(text: str) -> bool:
    found = words(text)
    return sum(word in _ENGLISH_ALONE for word in found) >= PLAIN_SHARE * len(found)


def _without_accents(text: str) -> str:
    if text.isascii() or len(_ENGLISH.intersection(words(text))) < ENGLISH_WORDS:
        return text
    return " ".join(word for word in text.split() if word.isascii())


def _has_foreign_letters(text: str, languages: frozenset[str]) -> bool:
    if text.isascii():
        return False
    known = [script for script, codes in _SCRIPTS.items() if languages.isdisjoint(codes.split())]
    scripts = (_script(letter) for letter in text)
    foreign = "".join(("c" if script == "CJK" else "x") if script in known else " " for script in scripts)
    for run in re.finditer(rf"[xc]{{{FOREIGN_LETTERS},}}|c", foreign):  # a Chinese character is a word
        before, behind = text[: run.start()][-200:], text[run.end() : run.end() + 40]
        inscribed = _INSCRIPTION.search(before) or _INSCRIBED.match(behind)
        if not inscribed or run.end() - run.start() > LONGEST_INSCRIPTION:
            return True
    return False


def _script(letter: str) -> str | None:
    if letter.isascii() or not letter.isalpha():
        return None
    return unicodedata.name(letter, "").partition(" ")[0]


@lru_cache(maxsize=1)
def _model() -> LanguageIdentifier:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
