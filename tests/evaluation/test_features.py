"""Features of encoded pictures: order, unreadable ones, batches, and the names that numbers need."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from evaluation.features import INCEPTION, inception_features
from evaluation.inception import Inception
from evaluation.resize import INCEPTION_PROTOCOLS


class MeanColour(Inception):
    """A network whose features are the mean colour, so that their order can be seen."""

    def forward(self, x: torch.Tensor, width: int = 2048) -> torch.Tensor:
        return x.mean(dim=(2, 3))


def encoded(level: int, kind: str = "PNG", mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (20, 15), (level, 0, 0)).convert(mode).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize(("threads", "batch"), [(1, 1), (4, 3), (2, 32)])
def test_features_come_in_the_order_of_the_pictures_whatever_threads_and_batches(threads: int, batch: int) -> None:
    pictures = (encoded(level) for level in range(0, 200, 10))
    found = inception_features(pictures, network=MeanColour(), device="cpu", threads=threads, batch=batch)
    assert found.rows.shape == (20, 3) and found.rows.dtype == np.float32
    np.testing.assert_allclose(found.rows[:, 0] * 128 + 128, range(0, 200, 10), atol=1e-3)
    assert (found.network, found.protocol, found.unreadable) == (INCEPTION, "clean", {})


def test_unreadable_pictures_are_named_and_the_others_measured() -> None:
    pictures = [encoded(10), b"", encoded(20)[:-20], encoded(30, "JPEG", "L"), b"no picture"]
    found = inception_features(pictures, network=MeanColour(), device="cpu")
    assert len(found.rows) == 2 and set(found.unreadable) == {1, 2, 4}
    assert found.unreadable[2].startswith("truncated: PNG")
    file = io.BytesIO()
    Image.new("RGB", (1, 500)).save(file, "PNG")
    strip = inception_features([encoded(1), file.getvalue()], "sana-512", network=MeanColour(), device="cpu")
    assert "a strip of 1 x 500 px" in strip.unreadable[1]
    with pytest.raises(ValueError, match="none of 2 pictures"):
        inception_features([b"", b"x"], network=MeanColour(), device="cpu")
    with pytest.raises(ValueError, match="none of 0 pictures"):
        inception_features([], network=MeanColour(), device="cpu")


def test_a_protocol_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(ValueError, match=r"no protocol 'bicubic'; there are clean, .*sana-512"):
        inception_features([encoded(1)], "bicubic", network=MeanColour())
    assert "clean" in INCEPTION_PROTOCOLS
