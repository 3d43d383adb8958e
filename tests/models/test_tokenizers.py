"""Captions are cut with the vocabulary that training counts with, however the folders are laid out."""

from __future__ import annotations

from pathlib import Path

import pytest

from captioning.texts import tokenizer
from models.tokenizers import find_vocabulary
from schemas.training import Text
from training.encoders.pretrained import _t5_folders

LAYOUTS = {
    "a pipeline": ("", "tokenizer/spiece.model"),
    "a text encoder with its tokenizer inside": ("", "tokenizer/tokenizer.json"),
    "a text encoder that is its own tokenizer": ("", "spiece.model"),
    "a text encoder of a pipeline": ("text_encoder", "tokenizer/spiece.model"),
    "a text encoder next to a tokenizer of the other kind": ("text_encoder", "tokenizer/tokenizer.json"),
}


@pytest.mark.parametrize(("given", "vocabulary"), LAYOUTS.values(), ids=LAYOUTS)
def test_mix_and_training_read_the_same_vocabulary(tmp_path: Path, given: str, vocabulary: str) -> None:
    folder, expected = tmp_path / "t5" / given, tmp_path / "t5" / vocabulary
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    expected.parent.mkdir(exist_ok=True)
    expected.touch()
    assert find_vocabulary(folder) == tokenizer.find_vocabulary(str(folder)) == expected
    assert _t5_folders(Text(encoder="t5", weights=str(folder))) == (folder, expected.parent)


def test_the_sentencepiece_model_goes_before_its_conversion(tmp_path: Path) -> None:
    for name in ("tokenizer.json", "spiece.model"):
        (tmp_path / name).touch()
    assert find_vocabulary(tmp_path) == tmp_path / "spiece.model"
    assert find_vocabulary(tmp_path / "no_tokenizer") is None
