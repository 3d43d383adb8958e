"""A network gives the same numbers for a picture whatever it saw before, and on any thread."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from models.opencv import Network
from models.weights import PPOCR_DETECTOR
from tests.tiny_onnx import keep, text_network

OUTPUTS = ["sigmoid_0.tmp_0"]


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Network:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return Network(keep(tmp_path, PPOCR_DETECTOR, text_network()), OUTPUTS)


def test_a_picture_of_another_size_changes_no_number(network: Network) -> None:
    pixels = np.full((32, 64, 3), 150, np.uint8)
    for size in ((64, 32), (96, 64), (64, 32), (32, 32)):
        (found,) = network.run(pixels, size, 127.5, 1 / 127.5, bgr=True)
        assert found.shape == (1, 1, size[1], size[0])
        expected = 1 / (1 + np.exp(-12 * (150 - 127.5) / 127.5 - 0.2))
        np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_threads_have_a_copy_each_and_give_the_same(network: Network) -> None:
    pictures = [np.full((32, 32, 3), level, np.uint8) for level in range(0, 250, 10)] * 4

    def run(pixels: np.ndarray) -> float:
        return float(network.run(pixels, (32 * (1 + int(pixels[0, 0, 0]) % 3), 32), 127.5, 1 / 127.5, True)[0].max())

    alone = [run(each) for each in pictures]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(run, pictures)) == alone


def test_colours_are_turned_where_the_network_wants_it(network: Network, tmp_path: Path) -> None:
    from models.weights import CENTERFACE
    from tests.tiny_onnx import face_network

    red = np.zeros((32, 32, 3), np.uint8)
    red[..., 0] = 255
    faces = Network(keep(tmp_path, CENTERFACE, face_network()), ["537"])
    assert faces.run(red, (32, 32), 0, 1, bgr=False)[0].min() > 0.99
    assert faces.run(red, (32, 32), 0, 1, bgr=True)[0].max() < 0.01


def test_a_file_that_opencv_cannot_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ValueError, match=r"ppocr-detector: OpenCV 4\S+ cannot read it"):
        Network(keep(tmp_path, PPOCR_DETECTOR, b"no network"), OUTPUTS)
