"""The pixels that protocols show their networks: the originals' numbers, and properties that need none."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evaluation import resize
from evaluation.resize import CLIP, CMMD, DINOV2, INCEPTION_PROTOCOLS, Protocol
from tests.evaluation.conftest import Numbers

ALL = {**INCEPTION_PROTOCOLS, "clip": CLIP, "cmmd": CMMD, "dinov2": DINOV2}
ORIGINALS = {
    "clean_fid": ALL["clean"],
    "legacy_pytorch": ALL["pytorch"],
    "legacy_tensorflow": ALL["tensorflow"],
    "torchmetrics": ALL["torchmetrics"],
    "dinov2_edm2": DINOV2,
    "cmmd": CMMD,
}


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def check(numbers: dict[str, np.ndarray], name: str, found: np.ndarray, tolerance: float) -> None:
    np.testing.assert_allclose(found[40:72, 100:132], numbers[f"{name}_patch"], rtol=0, atol=tolerance)
    for key in ("mean", "std"):
        whole = getattr(found.astype(np.float64), key)(axis=(0, 1))
        np.testing.assert_allclose(whole, numbers[f"{name}_{key}"], rtol=0, atol=max(tolerance, 1e-3))


@pytest.mark.parametrize("name", ORIGINALS)
def test_pixels_are_those_of_the_original(original: Numbers, name: str) -> None:
    numbers = original("resize")
    check(numbers, name, ORIGINALS[name].shown(numbers["image"]), 1e-3)


def test_a_square_of_sana_is_that_of_the_original(original: Numbers) -> None:
    numbers = original("resize")
    check(numbers, "sana_192", resize._sana(numbers["image"], 192), 1e-3)


def test_clip_sees_what_its_own_code_gives_it(original: Numbers) -> None:
    numbers = original("resize")
    check(numbers, "clip", CLIP.network_input(numbers["image"]).permute(1, 2, 0).numpy(), 1e-5)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (299, 299), (40, 600), (600, 41), (513, 512)])
def test_every_picture_gets_the_side_of_its_network(name: str, shape: tuple[int, int]) -> None:
    found = ALL[name].network_input(noise(*shape))
    side = {"clip": 224, "dinov2": 224, "cmmd": 336}.get(name, 299)
    assert found.shape == (3, side, side) and found.dtype == torch.float32 and found.is_contiguous()
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("name", ALL)
def test_one_colour_stays_what_it_is_and_channels_stay_apart(name: str) -> None:
    colour = np.zeros((50, 80, 3), dtype=np.uint8) + np.array([255, 100, 0], dtype=np.uint8)
    assert np.abs(ALL[name].shown(colour) - colour[0, 0]).max() < 1e-3


@pytest.mark.parametrize("name", ["clean", "pytorch", "tensorflow", "torchmetrics"])
def test_a_picture_of_the_networks_size_stays_as_it_is(name: str) -> None:
    picture = noise(299, 299)
    np.testing.assert_allclose(ALL[name].shown(picture), picture, atol=1e-3)


def test_protocols_differ_where_a_picture_shrinks() -> None:
    picture = noise(520, 700)
    seen = [INCEPTION_PROTOCOLS[name].shown(picture) for name in INCEPTION_PROTOCOLS]
    apart = [np.abs(a - b).mean() for i, a in enumerate(seen) for b in seen[:i]]
    assert min(apart) > 1


def test_black_and_white_are_normalised_as_the_original_does() -> None:
    for name, low, high in (
        ("clean", -1, 127 / 128),
        ("pytorch", -1, 1),
        ("sana-512", -1, 1),
        ("tensorflow", -1, 127 / 128),
    ):
        for value, truth in ((0, low), (255, high)):
            found = ALL[name].network_input(np.full((20, 20, 3), value, dtype=np.uint8))
            np.testing.assert_allclose(found, truth, atol=1e-5)


@pytest.mark.parametrize("protocol", [ALL["clean"], CLIP])
def test_what_is_no_rgb_picture_of_8_bits_is_refused(protocol: Protocol) -> None:
    for bad in (noise(4, 4)[..., 0], noise(4, 4)[..., :2], noise(4, 4).astype(np.float32), noise(4, 4)[:0]):
        with pytest.raises(ValueError, match="of 8 bits"):
            protocol.shown(bad)
