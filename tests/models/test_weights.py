"""The known weights, and the one line that says how to get them."""

from __future__ import annotations

from pathlib import Path

import pytest

from models import weights
from models.weights import LLAVA, SDXL_VAE, Weight, find_weights, missing_weights
from schemas.training import Latents, Text


def test_every_weight_names_its_size_licence_and_purpose():
    known = [value for value in vars(weights).values() if isinstance(value, Weight)]
    assert len({(weight.hub_id, weight.pattern) for weight in known}) == len(known) == 18
    assert {weight.name: weight for weight in known} == weights.KNOWN, "`sigma weights` lists all of them"
    for weight in known:
        assert weight.size.endswith(("GB", "MB")) and weight.licence and weight.description


def test_the_error_is_one_line_with_id_size_command_and_knob():
    message = str(missing_weights(SDXL_VAE, "latents.weights", "nowhere"))
    assert "\n" not in message
    for part in (
        SDXL_VAE.hub_id,
        "0.34 GB",
        "`sigma weights get sdxl-vae`",
        "`hf download ",
        "--include 'vae/*'",
        "then set latents.weights=pixart_",
    ):
        assert part in message


def test_a_recipe_takes_the_real_encoders_width_by_default():
    assert Latents.from_mapping({"codec": "sdxl"}).channels == 4
    assert Text.from_mapping({"encoder": "t5"}).channels == 4096
    assert Text.from_mapping({"encoder": "t5", "channels": 32}).channels == 32
    assert (Latents().channels, Text().channels) == (12, 64)


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (Latents, {"codec": "sdxl", "channels": 12}, "the SDXL VAE has 4"),
        (Latents, {"weights": "x"}, "weights are for codec sdxl"),
        (Text, {"weights": "x"}, "weights are for encoder t5"),
    ],
)
def test_impossible_encoders_are_refused(kind, values, message):
    with pytest.raises(ValueError, match=message):
        kind.from_mapping(values)


def test_an_id_may_name_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit, other = "b" * 40, "c" * 40
    for found in (commit, other):
        (tmp_path / "models--org--tiny" / "snapshots" / found).mkdir(parents=True)
    refs = tmp_path / "models--org--tiny" / "refs"
    refs.mkdir()
    (refs / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert find_weights("org/tiny", LLAVA, "k").name == commit
    assert find_weights(f"org/tiny@{other}", LLAVA, "k").name == other
    with pytest.raises(ValueError, match=r"weights missing: org/tiny .* --revision ddd"):
        find_weights(f"org/tiny@{'d' * 40}", LLAVA, "k")
    with pytest.raises(ValueError, match="weights missing: llava-hf"):
        find_weights("no id", LLAVA, "k")
