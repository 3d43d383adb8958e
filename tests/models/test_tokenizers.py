"""Captions are cut with the vocabulary that training counts with, however the folders are laid out."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import sentencepiece

from models.tokenizers import find_tokenizer, find_vocabulary, load_tokenizer
from schemas.sentences import fit, sentence_ends
from schemas.training import Text
from training.encoders.weights import t5_folders

CAPTIONS = (
    "A small red house stands behind two tall trees on a green hill.",
    "Two brown cats are sleeping on red benches near the old churches in Paris.",
    "The sky above the lake is blue, and a few clouds drift over the mountains.",
)
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
    assert find_vocabulary(folder) == find_tokenizer(str(folder)) == expected
    assert t5_folders(Text(encoder="t5", weights=str(folder))) == (folder, expected.parent)


def test_the_sentencepiece_model_goes_before_its_conversion(tmp_path: Path) -> None:
    for name in ("tokenizer.json", "spiece.model"):
        (tmp_path / name).touch()
    assert find_vocabulary(tmp_path) == tmp_path / "spiece.model"
    assert find_vocabulary(tmp_path / "no_tokenizer") is None


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


def test_the_tokenizer_alone_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"0\.8 MB") as missing:
        find_tokenizer(str(tmp_path))
    assert "--include 'tokenizer/*'" in str(missing.value) and "GB" not in str(missing.value)
