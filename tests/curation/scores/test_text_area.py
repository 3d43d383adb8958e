from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from curation.scores.text_area import TextDetector, network_size, text_in
from models.fetching import place_of
from models.weights import PPOCR_DETECTOR
from tests.photos import photo


def a_map(height: int = 200, width: int = 400) -> NDArray[np.float32]:
    return np.zeros((height, width), np.float32)


def test_the_core_of_a_line_grows_to_the_line() -> None:
    probability = a_map()
    probability[100:111, 50:251] = 0.9
    found = text_in(probability)
    # 12 x 202 px after the published dilation, 11 x 201 between the middles of the outer ones
    more = 1.6 * 11 * 201 / (11 + 201)
    assert found.share == pytest.approx((11 + more) * (201 + more) / (200 * 400), rel=0.08)
    (corners,) = found.corners
    left, top = corners.min(axis=0) * (400, 200)
    assert (left, top) == (pytest.approx(49 - more / 2, abs=1.5), pytest.approx(99 - more / 2, abs=1.5))


def test_what_lies_under_two_boxes_counts_once_and_no_more_than_the_picture() -> None:
    probability = a_map()
    probability[60:140, 20:380] = 0.9
    alone = text_in(probability).share
    probability[145:150, 20:380] = 0.9  # its box is within the larger one's
    both = text_in(probability)
    assert len(both.corners) == 2 and both.share == pytest.approx(alone, abs=0.03)
    assert text_in(np.ones((64, 64), np.float32)).share == 1


def test_a_tilted_line_is_covered_by_a_tilted_box() -> None:
    probability = a_map(400, 400)
    cv2.line(probability, (60, 60), (340, 340), 0.9, 12)
    found = text_in(probability)
    assert 0.05 < found.share < 0.1  # an upright box would cover half


@pytest.mark.parametrize(
    ("rows", "columns", "value"),
    [(slice(50, 60), slice(50, 90), 0.31), (slice(50, 60), slice(50, 90), 0.29), (slice(50, 51), slice(50, 90), 0.9)],
    ids=["unsure", "under the threshold", "thin"],
)
def test_what_is_unsure_or_thin_is_no_text(rows: slice, columns: slice, value: float) -> None:
    probability = a_map()
    probability[rows, columns] = value
    assert text_in(probability) == (0, [])


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1024, 683), (1088, 736)),
        ((736, 736), (736, 736)),
        ((1500, 1000), (1504, 992)),
        ((4000, 3000), (1984, 1504)),
        ((100, 4000), (64, 1984)),
        ((1, 1), (736, 736)),
        ((1, 3000), (32, 1984)),
    ],
)
def test_the_size_at_which_it_looks(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert network_size(*size) == expected


@pytest.mark.slow
@pytest.mark.skipif(
    place_of(PPOCR_DETECTOR) is None, reason=f"get the weights with `sigma weights get {PPOCR_DETECTOR.name}`"
)
def test_photographs_have_the_boxes_of_the_published_code() -> None:
    """Their number and share as rapidocr-onnxruntime 1.4.4 gives them, with its own runner."""
    detector = TextDetector()
    for name, boxes, share in (("page.png", 5, 0.4123), ("coffee.png", 1, 0.0104), ("astronaut.png", 0, 0)):
        found = detector(photo(name))
        assert (len(found.corners), found.share) == (boxes, pytest.approx(share, rel=0.05)), name
