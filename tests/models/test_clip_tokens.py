"""CLIP's tokens: by the published vocabulary where it is, else by letters, which is never fewer."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from models import clip_tokens
from models.clip_tokens import Count, Letters, Vocabulary, find_counter
from models.fetching import find_packaged, place_of
from models.weights import CLIP_TOKENIZER


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [("", 0, 0), ("a cat", 2, 3), ("A dog's 12 toys!", 7, 11), ("Bär", 1, 4), ("don't stop...", 4, 10)],
)
def test_letters_give_the_fewest_and_the_most_tokens(text: str, least: int, most: int) -> None:
    assert Letters().count(text) == (least, most)


def test_the_published_merges_make_clips_tokenizer(tmp_path: Path) -> None:
    merges = tmp_path / "merges.txt.gz"
    merges.write_bytes(gzip.compress(b'"bpe_simple_vocab_16e6.txt#version: 0.2\nc a\nca t</w>\nt h\nth e</w>'))
    counter = Vocabulary(clip_tokens._tokenizer(merges))
    assert counter.count("The CAT") == Count(2, 2)
    assert counter.count("cats") == Count(3, 3), "ca, t and s</w>"
    assert counter.count("the " * 200) == Count(200, 200), "nothing is cut"


def test_without_the_vocabulary_letters_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(clip_tokens, "place_of", lambda weight: None)
    assert find_counter().name == "letters"


@pytest.mark.skipif(place_of(CLIP_TOKENIZER) is None, reason="sigma weights get clip-tokenizer")
def test_the_real_vocabulary_counts_as_openai_does() -> None:
    counter = Vocabulary(clip_tokens._tokenizer(find_packaged(CLIP_TOKENIZER)))
    assert counter.count("a photo of a cat") == Count(5, 5)
    text = "Grey bricks of a wall laid in long upright rows, seen from close by."
    assert counter.count(text).most <= Letters().count(text).most
