from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console
from sentencepiece import SentencePieceProcessor
from torch import Tensor
from typer.testing import CliRunner

from captioning.captioners.share_captioner import Decoding, ShareCaptioner
from captioning.captioners.share_captioner.dimensions import ResamplerChoices
from captioning.captioners.share_captioner.validate import Pair, print_rows, read_pairs, validate
from commands.front_door import app

Checkpoint = Callable[[dict[str, Tensor] | None], Path]
TRUTH = {"resampler_heads": 8, "resampler_cls": "drop", "resampler_key_pos": True, "resampler_ln_eps": 1e-6}


@pytest.fixture(scope="module")
def folder(
    checkpoint: Checkpoint, tensors: Callable[[int], dict[str, Tensor]], tokenizer_model: Path, words: list[str]
) -> Path:
    """A model that, top-k being small, writes `words` alone, so that its captions are encoded as it wrote them."""
    state = tensors(404)
    tokenizer = SentencePieceProcessor(model_file=str(tokenizer_model))
    kept = [tokenizer.encode(word)[0] for word in words]
    head = state["internlm_model.lm_head.weight"]
    state["internlm_model.lm_head.weight"] = torch.zeros_like(head).index_copy(0, torch.tensor(kept), head[kept])
    return checkpoint(state)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory, folder: Path, photos: dict[str, Image.Image]) -> list[Pair]:
    """Pictures with captions that the model wrote while it read them as `TRUTH` says, not as config.json does."""
    told = tmp_path_factory.mktemp("pairs")
    writer = ShareCaptioner.load(folder, overrides=TRUTH)
    decoding = Decoding("sampled", max_new_tokens=60, top_k=20, repetition_penalty=1.0)
    for name, picture in photos.items():
        picture.save(told / f"{name}.png")
    pictures = list(photos.values())
    for name, written in zip(photos, writer.generate(pictures, range(len(pictures)), decoding), strict=True):
        (told / f"{name}.txt").write_text(written.text)
    return read_pairs(told)


@pytest.mark.slow
def test_the_reading_that_wrote_the_captions_wins(folder: Path, pairs: list[Pair]) -> None:
    rows = validate(folder, pairs)
    assert len(rows) == 24  # 2, 4 and 8 heads
    likelihoods = [row.log_likelihood for row in rows]
    assert likelihoods == sorted(likelihoods, reverse=True)
    for row in rows[:2]:  # the two epsilons are too close to tell apart
        assert row.choices.as_config() | {"resampler_ln_eps": 0} == TRUTH | {"resampler_ln_eps": 0}
    assert rows[0].share_won == 0
    assert all(row.share_won > 0.5 for row in rows[2:])


def test_the_table_gives_the_lines_for_the_config(folder: Path, pairs: list[Pair]) -> None:
    rows = validate(folder, pairs[:2])
    console = Console(record=True, width=160)
    print_rows(rows, console)
    text = console.export_text()
    choices: ResamplerChoices = rows[0].choices
    assert f"{rows[0].log_likelihood:.5f}" in text
    assert json.loads(text[text.index("{") :]) == choices.as_config()


def test_pairs_from_each_kind_of_source(tmp_path: Path, pairs: list[Pair]) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for path, _ in pairs[:2]:
        shutil.copy(path, images)
    names = [path.name for path, _ in pairs[:2]]
    tsv = tmp_path / "captions.tsv"
    tsv.write_text(f"{names[0]}\tA dog.\nno tab here\nabsent.png\tA cat.\n{names[1]}\tA\tcup.\n")
    assert read_pairs(tsv, images) == [(images / names[0], "A dog."), (images / names[1], "A\tcup.")]
    assert read_pairs(tsv, images, limit=1) == [(images / names[0], "A dog.")]
    turns = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": " A rocket. "}]
    published = tmp_path / "published.json"
    published.write_text(json.dumps([{"id": "1", "image": f"images/{names[0]}", "conversations": turns}]))
    assert read_pairs(published) == [(images / names[0], "A rocket.")]
    with pytest.raises(ValueError, match=r"3 captions, but none of their pictures is in"):
        read_pairs(tsv, tmp_path / "elsewhere")
    published.write_text('[{"image": 3}]')
    with pytest.raises(ValueError, match=r"published\.json: no captions as a folder, \.tsv or ShareGPT4V \.json"):
        read_pairs(published)


def test_pairs_that_cannot_be_validated_are_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no pairs of picture and caption"):
        validate(checkpoint(None), [])
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match=r"broken\.png: cannot be read as a picture"):
        validate(checkpoint(None), [(tmp_path / "broken.png", "A dog.")])


@pytest.mark.slow
def test_the_command_prints_the_readings_and_names_missing_weights(
    folder: Path, pairs: list[Pair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "captions.tsv"
    told.write_text("".join(f"{path}\t{caption}\n" for path, caption in pairs[:2]), encoding="utf-8")
    run = CliRunner()
    done = run.invoke(app, ["captioner", "validate", str(folder), "--images", str(told), "--device", "cpu"])
    assert done.exit_code == 0, done.output
    assert '"resampler_heads": 8' in done.output
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    missing = run.invoke(app, ["captioner", "validate", "Lin-Chen/ShareCaptioner", "--images", str(told)])
    assert missing.exit_code == 1
    assert "weights missing: Lin-Chen/ShareCaptioner" in " ".join(missing.output.split())
