from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from torch import Tensor

from captioning.captioners.base import Generated, seed_of
from captioning.captioners.local_model import folder_digest
from captioning.captioners.make import make_captioner
from captioning.captioners.share_captioner import RecipeCaptioner
from models.weights import SHARE_CAPTIONER
from schemas.captioners import Caption, ShareCaptioner

Checkpoint = Callable[[dict[str, Tensor] | None], Path]


@pytest.fixture(scope="module")
def section(checkpoint: Checkpoint) -> ShareCaptioner:
    return ShareCaptioner(weights=str(checkpoint(None)), decoding="sampled", max_new_tokens=12, device="cpu")


def changed(section: ShareCaptioner, **knobs: Any) -> RecipeCaptioner:
    return RecipeCaptioner(ShareCaptioner(**(section.model_dump() | knobs)), "cpu")


def test_the_recipe_makes_the_captioner(section: ShareCaptioner, photos: dict[str, Image.Image]) -> None:
    captioner = make_captioner(Caption(captioner="share_captioner", share_captioner=section))
    pictures = list(photos.values())
    seeds = [seed_of(name) for name in photos]
    answers = captioner.caption(pictures, seeds)
    assert answers == [captioner.caption([picture], [seed])[0] for picture, seed in zip(pictures, seeds, strict=True)]
    assert all(isinstance(answer, Generated) and answer.num_tokens == 12 for answer in answers)
    assert not all(isinstance(answer, Generated) and answer.ended for answer in answers), "12 tokens end no caption"
    assert captioner.prompt == "Analyze the image in a comprehensive and detailed manner."
    assert captioner.batch_size == 4


def test_the_captioner_names_its_model_and_parameters(section: ShareCaptioner) -> None:
    captioner = RecipeCaptioner(section)
    folder = Path(section.weights or "")
    assert captioner.revision == folder_digest(folder)
    assert captioner.name == f"{folder.name}@{captioner.revision.removeprefix('folder-')[:8]}"
    assert captioner.parameters == {
        "decoding": "sampled",
        "dtype": "fp32",
        "max_new_tokens": 12,
        "repetition_penalty": 1.5,
        "rotary": "reference",
        "top_k": 50,
        "resampler_heads": 4,
        "resampler_cls": "keep",
        "resampler_key_pos": True,
        "resampler_ln_eps": 1e-6,
    }


@pytest.mark.parametrize(
    "knobs",
    [
        {"rotary": "exact"},
        {"dtype": "bf16"},
        {"decoding": "published"},
        {"max_new_tokens": 13},
        {"overrides": {"resampler_cls": "drop"}},
        {"overrides": {"resampler_key_pos": False}},
    ],
    ids=str,
)
def test_every_knob_that_changes_a_caption_is_in_its_parameters(section: ShareCaptioner, knobs: dict[str, Any]) -> None:
    assert changed(section, **knobs).parameters != RecipeCaptioner(section).parameters


def test_a_batch_size_changes_nothing(section: ShareCaptioner) -> None:
    other = changed(section, batch_size=9)
    assert (other.batch_size, other.parameters) == (9, RecipeCaptioner(section).parameters)


def test_another_seed_helps_unless_it_is_greedy(section: ShareCaptioner, photos: dict[str, Image.Image]) -> None:
    sampled, greedy = RecipeCaptioner(section), changed(section, decoding="greedy")
    assert (sampled.retries_help, greedy.retries_help) == (True, False)
    picture = photos["coffee"]
    for captioner in (sampled, greedy):
        first, second = (captioner.caption([picture], [seed_of("a", attempt)])[0] for attempt in (0, 1))
        assert (first != second) == captioner.retries_help


@pytest.mark.parametrize("given", [None, "Lin-Chen/ShareCaptioner", "/no/such/folder"])
def test_missing_weights_are_refused_with_the_command(
    given: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError) as error:
        RecipeCaptioner(ShareCaptioner(weights=given))
    message = str(error.value)
    assert "\n" not in message
    for part in ("Lin-Chen/ShareCaptioner", "16.8 GB", "hf download", "caption.share_captioner.weights=ShareCaptioner"):
        assert part in message


def test_the_download_takes_each_tensor_once() -> None:
    files = ("config.json", "tokenizer.model", "added_tokens.json", "model-00001-of-00002.safetensors",
             "model.safetensors.index.json")  # fmt: skip
    assert all(fnmatchcase(file, SHARE_CAPTIONER.pattern) for file in files)
    assert not fnmatchcase("pytorch_model-00001-of-00002.bin", SHARE_CAPTIONER.pattern)


def test_a_folder_without_its_tokenizer_stops_at_once(checkpoint: Checkpoint) -> None:
    folder = checkpoint(None)
    (folder / "tokenizer.model").unlink()
    with pytest.raises(ValueError, match=r"tokenizer\.model is missing"):
        RecipeCaptioner(ShareCaptioner(weights=str(folder)), "cpu")
