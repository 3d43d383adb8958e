from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from captioning.captioners.base import Generated, Question, seed_of
from captioning.captioners.local_model import folder_digest
from captioning.captioners.make import make_captioner
from captioning.captioners.share_captioner import RecipeCaptioner
from captioning.captioners.share_captioner import ShareCaptioner as ModelOfFiles
from captioning.captioners.share_captioner import captioner as chosen
from models.weights import SHARE_CAPTIONER
from schemas.captioners import Caption, ShareCaptioner

Checkpoint = Callable[[dict[str, Tensor] | None], Path]


@pytest.fixture(scope="module")
def section(checkpoint: Checkpoint) -> ShareCaptioner:
    return ShareCaptioner(weights=str(checkpoint(None)), decoding="sampled", max_new_tokens=12, device="cpu")


def changed(section: ShareCaptioner, **knobs: Any) -> RecipeCaptioner:
    return RecipeCaptioner(ShareCaptioner(**(section.model_dump() | knobs)), "cpu")


@pytest.mark.slow
def test_the_recipe_makes_the_captioner(section: ShareCaptioner, photos: dict[str, Image.Image]) -> None:
    captioner = make_captioner(Caption(captioner="share_captioner", share_captioner=section))
    pictures = list(photos.values())
    seeds = [seed_of(name) for name in photos]
    answers = captioner.caption(pictures, seeds)
    assert answers == [captioner.caption([picture], [seed])[0] for picture, seed in zip(pictures, seeds, strict=True)]
    assert all(isinstance(answer, Generated) and answer.num_tokens == 12 for answer in answers)
    assert not all(isinstance(answer, Generated) and answer.ended for answer in answers), "12 tokens end no caption"
    assert captioner.prompt == "Analyze the image in a comprehensive and detailed manner."
    assert captioner.batch_size == 8, "on a CPU"


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


def test_the_batch_is_chosen_by_memory_with_a_caption_of_just_so_many_tokens(
    section: ShareCaptioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def choose(device: torch.device, most_tokens: int, write: Callable[[int], None]) -> int:
        generate = chosen.generate_ids
        monkeypatch.setattr(
            chosen, "generate_ids", lambda *given, **more: tried.append(len(generate(*given, **more)[0]))
        )
        write(5)
        return 3 + most_tokens

    monkeypatch.setattr(chosen, "batch_size_for", choose)
    assert RecipeCaptioner(section).batch_size == 15
    assert tried == [5]


@pytest.mark.slow
def test_a_batch_that_the_memory_has_no_room_for_is_halved(
    section: ShareCaptioner, photos: dict[str, Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    captioner, generate = RecipeCaptioner(section), ModelOfFiles.generate

    def short_of_memory(self: Any, images: list[Image.Image], *given: Any) -> list[Generated]:
        if len(images) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return generate(self, images, *given)

    monkeypatch.setattr(ModelOfFiles, "generate", short_of_memory)
    questions = [Question(name, photo, 0) for name, photo in photos.items()]
    answers = dict(captioner.stream(iter(questions)))
    assert all(isinstance(answer, Generated) for answer in answers.values()) and len(answers) == len(photos)
    assert captioner.batch_size == 3, "8, of which 7 were there"
    answers = dict(captioner.stream(iter(questions)))
    assert captioner.batch_size == 1


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
