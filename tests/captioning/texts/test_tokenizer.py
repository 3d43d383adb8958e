from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from captioning.texts.text import clean, sentence_ends
from captioning.texts.tokenizer import fit, load_tokenizer
from schemas.tokens import count_tokens

CAPTIONS = (
    "A small red house stands behind two tall trees on a green hill.",
    "Two brown cats are sleeping on red benches near the old churches in Paris.",
    "The sky above the lake is blue, and a few clouds drift over the mountains.",
)


def count_words(texts: Sequence[str]) -> list[int]:
    return [count_tokens(text) for text in texts]


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as published: `tokenizer/spiece.model`, trained on a few captions."""
    folder = tmp_path_factory.mktemp("t5") / "tokenizer"
    folder.mkdir()
    text = folder / "captions.txt"
    text.write_text("\n".join(CAPTIONS * 20), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(folder / "spiece"), vocab_size=80, pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
        hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    text.unlink()
    return folder.parent


def test_words_need_no_file() -> None:
    tokenizer = load_tokenizer("words")
    assert tokenizer.name == "words"
    assert tokenizer.count(["A cat.", ""]) == [4, 1]
    assert tokenizer.count([]) == []


def test_t5_counts_the_tokens_that_the_trainer_reads(pieces: Path) -> None:
    from transformers import T5Tokenizer

    tokenizer = load_tokenizer(str(pieces))
    theirs = T5Tokenizer.from_pretrained(pieces / "tokenizer")
    texts = [*CAPTIONS, "", "A caf\u00e9 in K\u00f6ln, 1234 m \u732b.", CAPTIONS[0] * 100]
    assert tokenizer.count(texts) == [theirs(text, return_tensors="pt")["input_ids"].shape[1] for text in texts]
    model = sentencepiece.SentencePieceProcessor(model_file=str(pieces / "tokenizer" / "spiece.model"))
    assert tokenizer.count(CAPTIONS) == [len(model.encode(text)) + 1 for text in CAPTIONS]
    assert tokenizer.count([]) == []


def test_a_tokenizer_is_named_by_its_vocabulary_not_by_its_folder(pieces: Path, tmp_path: Path) -> None:
    shutil.copytree(pieces / "tokenizer", tmp_path / "elsewhere")
    name = load_tokenizer(str(pieces)).name
    assert name.startswith("t5:") and len(name) == 15
    assert load_tokenizer(str(tmp_path / "elsewhere")).name == name


def test_t5_text_is_cut_to_whole_sentences(pieces: Path) -> None:
    tokenizer = load_tokenizer(str(pieces))
    text = " ".join(CAPTIONS * 4)
    kept, num_tokens = fit(text, 100, tokenizer.count)
    assert text.startswith(kept) and len(kept) in sentence_ends(text)
    assert num_tokens == tokenizer.count([kept])[0] <= 100
    following = next(end for end in sentence_ends(text) if end > len(kept))
    assert tokenizer.count([text[:following]])[0] > 100


@pytest.mark.parametrize("given_name", ["nowhere/at/all", "no such folder", "t5", "someone/some-t5"])
def test_a_missing_tokenizer_is_an_error_with_the_command(
    given_name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match=r"weights missing: .*hf download .* then set mix\.tokenizer="):
        load_tokenizer(given_name)


def test_a_folder_without_or_with_a_damaged_vocabulary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="weights missing"):
        load_tokenizer(str(tmp_path))
    (tmp_path / "spiece.model").write_bytes(b"no vocabulary")
    with pytest.raises(ValueError, match=r"mix\.tokenizer: .*spiece\.model is no T5 tokenizer"):
        load_tokenizer(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "most", "expected"),
    [
        ("One two. Three four. Five six.", 7, "One two. Three four."),
        ("One two. Three four. Five six.", 6, "One two."),
        ("One two. Three four. Five six.", 3, "One"),  # the first sentence has 4 tokens, "two." is a word with its mark
        ("one two three four", 3, "one two"),
        ("See St. Paul and Dr. Who. It rains.", 11, "See St. Paul and Dr. Who."),
        ("One two. Three four.", 1, ""),
        ("\u4e00\u732b\u3002\u4e8c\u732b\u3002", 3, "\u4e00\u732b\u3002"),
    ],
)
def test_fit(text: str, most: int, expected: str) -> None:
    assert fit(text, most, count_words) == (expected, count_tokens(expected))


def test_a_word_that_alone_is_too_long_is_cut_at_a_character() -> None:
    kept, num_tokens = fit("x" * 50, 11, lambda texts: [len(text) + 1 for text in texts])
    assert (kept, num_tokens) == ("x" * 10, 11)


@given(
    st.lists(st.sampled_from(["cat", "A", "dog.", "St.", "Why?", "\u732b\u3002", "e.g.", "(so)", '"Hi!"']), min_size=1),
    st.integers(1, 40),
)
def test_a_cut_caption_is_a_beginning_that_fits(parts: list[str], most: int) -> None:
    text = clean(" ".join(parts)) or ""
    kept, num_tokens = fit(text, most, count_words)
    assert text.startswith(kept)
    assert num_tokens == count_tokens(kept) <= most
    fitting = [end for end in sentence_ends(text) if count_tokens(text[:end]) <= most]
    if fitting:
        assert len(kept) == fitting[-1]
