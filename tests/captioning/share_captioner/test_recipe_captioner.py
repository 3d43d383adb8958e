from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from PIL import Image
from torch import Tensor

from captioning.captioner import Captioner
from captioning.share_captioner import Decoding, RecipeCaptioner, ShareCaptionerSettings
from schemas.weights import SHARE_CAPTIONER

Checkpoint = Callable[[dict[str, Tensor] | None], Path]


@pytest.fixture(scope="module")
def settings(checkpoint: Checkpoint) -> ShareCaptionerSettings:
    decoding = Decoding("sampled", max_new_tokens=12)
    return ShareCaptionerSettings(weights=str(checkpoint(None)), decoding=decoding, dtype=None, device="cpu")


def test_it_is_a_captioner_seeded_by_the_picture(
    settings: ShareCaptionerSettings, photos: dict[str, Image.Image]
) -> None:
    captioner: Captioner = RecipeCaptioner(settings)
    pictures = list(photos.values())
    captions = captioner.caption(pictures)
    assert captions == [captioner.caption([picture])[0] for picture in pictures]
    assert captioner.prompt == "Analyze the image in a comprehensive and detailed manner."
    assert captioner.batch_size == 8


def test_an_image_id_fixes_the_caption(settings: ShareCaptionerSettings, photos: dict[str, Image.Image]) -> None:
    captioner, picture = RecipeCaptioner(settings), photos["coffee"]
    first, second, again = captioner.generate([picture] * 3, ["a" * 32, "b" * 32, "a" * 32])
    assert first == again != second
    other = RecipeCaptioner(replace(settings, seed=1)).generate([picture], ["a" * 32])[0]
    assert other != first


def test_the_name_tells_what_changes_a_caption(settings: ShareCaptionerSettings) -> None:
    name = RecipeCaptioner(settings).name
    assert RecipeCaptioner(replace(settings, batch_size=3)).name == name
    for change in (
        {"seed": 1},
        {"rotary": "exact"},
        {"dtype": "bf16"},
        {"decoding": Decoding("published", max_new_tokens=12)},
        {"decoding": Decoding("sampled", max_new_tokens=13)},
        {"overrides": {"resampler_cls": "drop"}},
    ):
        assert RecipeCaptioner(replace(settings, **change)).name != name  # type: ignore[arg-type]
    greedy = replace(settings, decoding=Decoding("greedy"))
    assert RecipeCaptioner(greedy).name == RecipeCaptioner(replace(greedy, seed=9)).name


@pytest.mark.parametrize("given", [None, "Lin-Chen/ShareCaptioner", "/no/such/folder"])
def test_weights_that_are_not_here(given: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError) as error:
        RecipeCaptioner(ShareCaptionerSettings(weights=given))
    message = str(error.value)
    assert "\n" not in message
    for part in ("Lin-Chen/ShareCaptioner", "16.8 GB", "hf download", "caption.weights=ShareCaptioner"):
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
        RecipeCaptioner(ShareCaptionerSettings(weights=str(folder), device="cpu"))
