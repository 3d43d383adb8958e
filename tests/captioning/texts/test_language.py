from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest

from captioning.texts.language import LanguageGuesser


@pytest.fixture(scope="module")
def guesser() -> LanguageGuesser:
    return LanguageGuesser()


def test_english_is_seldom_ruled_out(guesser: LanguageGuesser, fixtures: Path) -> None:
    """The sentences of UD English EWT dev, most of them shorter than a caption."""
    lines = (fixtures / "nouns" / "en_ewt-ud-dev.conllu").read_text(encoding="utf-8").splitlines()
    texts = [line.removeprefix("# text = ") for line in lines if line.startswith("# text = ")]
    ruled_out = [text for text in texts if guesser.guess(text).rules_out(["en"])]
    assert len(texts) == 2001
    assert len(ruled_out) <= 3  # "A la guerre c'est comme a la guerre!" is one of them


def test_other_languages_are_ruled_out(guesser: LanguageGuesser) -> None:
    """The example sentences that spaCy carries for its languages."""
    spec = importlib.util.find_spec("spacy")
    assert spec is not None and spec.origin is not None
    texts = []
    for path in sorted(
        (Path(spec.origin).parent / "lang").glob("*/examples.py")
    ):  # read, not imported: that takes long
        lists = [
            node.value for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.Assign)
        ]
        texts += [] if path.parent.name == "en" else ast.literal_eval(lists[0])
    assert len(texts) > 500
    assert sum(guesser.guess(text).rules_out(["en"]) for text in texts) / len(texts) > 0.93


@pytest.mark.parametrize("text", ["", "猫", "Paris", "12 34", "!!!"])
def test_a_text_that_says_nothing_rules_nothing_out(guesser: LanguageGuesser, text: str) -> None:
    guess = guesser.guess(text)
    assert guess.language is None
    assert not guess.rules_out(["en"])


def test_only_the_beginning_of_a_long_text_is_read(guesser: LanguageGuesser) -> None:
    english = "A small red house stands behind two trees. "
    assert guesser.guess(english * 1000 + "Une femme avec un chapeau. " * 1000).language == "en"


def test_its_languages(guesser: LanguageGuesser) -> None:
    assert {"en", "de", "fr", "zh", "ja", "ru"} <= set(guesser.languages())
