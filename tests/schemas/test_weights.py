"""The known weights, and the one line that says how to get them."""

from __future__ import annotations

import pytest

from schemas.training import Latents, Text
from schemas.weights import SDXL_VAE, WEIGHTS, missing_weights


def test_every_weight_says_what_a_user_needs():
    assert len({(weight.hub_id, weight.pattern) for weight in WEIGHTS}) == len(WEIGHTS)
    for weight in WEIGHTS:
        assert weight.size.endswith("GB") and weight.licence and weight.what


def test_the_error_is_one_line_with_id_size_command_and_knob():
    message = str(missing_weights(SDXL_VAE, "latents.weights", "nowhere"))
    assert "\n" not in message
    for part in (SDXL_VAE.hub_id, "0.34 GB", "`hf download ", "--include 'vae/*'", "then set latents.weights=pixart_"):
        assert part in message


def test_a_recipe_takes_the_real_encoders_width_unless_told():
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
