from __future__ import annotations

import subprocess
import sys
import typing
from pathlib import Path

import pytest

from captioning.captioners.base import seed_of
from captioning.captioners.make import CAPTIONERS, make_captioner
from schemas.recipe import Caption


def test_the_recipe_knows_every_captioner() -> None:
    assert set(CAPTIONERS) == set(typing.get_args(Caption.model_fields["captioner"].annotation))


def test_the_default_needs_nothing() -> None:
    captioner = make_captioner(Caption())
    assert (captioner.name, captioner.revision, captioner.prompt) == ("attributes", None, None)
    assert captioner.batch_size >= 1


def test_an_unknown_captioner_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"caption.captioner: no captioner 'poet'; there are attributes"):
        make_captioner(Caption.model_construct(captioner="poet"))


@pytest.mark.parametrize(
    ("captioner", "hub_id"), [("share_captioner", "Lin-Chen/ShareCaptioner"), ("vlm", "llava-hf/llava-1.5-7b-hf")]
)
def test_missing_weights_are_one_line_with_the_command(
    captioner: str, hub_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError) as missing:
        make_captioner(Caption(captioner=captioner))  # type: ignore[arg-type]
    message = str(missing.value)
    assert message.startswith(f"weights missing: {hub_id} ") and "\n" not in message
    assert f"`hf download {hub_id}" in message and f"set caption.{captioner}.weights=" in message


@pytest.mark.slow
def test_a_recipe_pays_for_the_captioner_it_names_only() -> None:
    code = (
        "import sys; from captioning.captioners.make import make_captioner; from schemas.recipe import Caption;"
        "make_captioner(Caption()); print({'torch', 'transformers', 'aiohttp'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_seed_comes_from_the_image_and_the_attempt() -> None:
    seeds = {seed_of(image_id, attempt) for image_id in ("a" * 32, "b" * 32) for attempt in (0, 1)}
    assert len(seeds) == 4
    assert all(0 <= seed < 2**53 for seed in seeds)
    assert seed_of("a" * 32) == seed_of("a" * 32, 0)
