from __future__ import annotations

from pathlib import Path

import pytest

from captioning.captioners.share_captioner import ShareCaptioner
from captioning.captioners.share_captioner.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer(captioner: ShareCaptioner) -> Tokenizer:
    return captioner.tokenizer


def test_text_survives_encoding_and_decoding(tokenizer: Tokenizer) -> None:
    for text in ("  two spaces,\nand a line", "é – 猫 😀", "", "a<TOKENS_UNUSED_1>b"):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_the_prompt_has_one_bos_and_no_spaces(tokenizer: Tokenizer) -> None:
    before, after = tokenizer.prompt("What is it?")
    assert before[0] == 1 and 1 not in before[1:] + after
    assert tokenizer.decode(before) == "<|User|>:"
    assert tokenizer.decode(after) == "What is it?<TOKENS_UNUSED_0>\n<|Bot|>:"


def test_the_answer_is_the_text_before_the_first_end(tokenizer: Tokenizer) -> None:
    said, more = tokenizer.encode(" A dog. "), tokenizer.encode("<|User|>:")
    assert tokenizer.answer([*said, tokenizer.end_of_answer, *more]) == "A dog."
    assert tokenizer.answer([*said, 2, *more]) == "A dog."
    assert tokenizer.answer(said) == "A dog."


def test_ids_beyond_the_pieces_are_added_tokens(tokenizer: Tokenizer) -> None:
    dog = tokenizer.encode("dog")
    assert tokenizer.decode([1, 400, *dog, 0, 401, *dog, 403, 2]) == "<box>dog</box>dog"  # 403 has no name


def test_a_damaged_or_foreign_file_is_refused(tmp_path: Path, tokenizer_model: Path) -> None:
    with pytest.raises(ValueError, match=r"tokenizer\.model is missing"):
        Tokenizer(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(tokenizer_model.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"tokenizer\.model: not a whole sentencepiece model"):
        Tokenizer(tmp_path)
