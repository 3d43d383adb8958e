"""CLIP-Score: the originals' numbers, lengths that do not count, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evaluation import clip_score as module
from evaluation.clip_score import clip_score, summarise
from tests.evaluation.conftest import Numbers


@pytest.mark.parametrize("name", ["clip_score", "clip_score_negative"])
def test_cosines_and_their_means_are_those_of_the_originals(original: Numbers, name: str) -> None:
    numbers = original(name)
    cosines = clip_score(numbers["images"], numbers["texts"])
    np.testing.assert_allclose(cosines, numbers["cosine"], rtol=0, atol=1e-12)
    found = summarise(cosines)
    assert found.times_100 == pytest.approx(float(numbers["clip_score_package"]), abs=1e-4)
    assert max(found.times_100, 0) == pytest.approx(float(numbers["torchmetrics"]), abs=1e-4)
    assert found.hessel == pytest.approx(float(numbers["hessel"]), abs=1e-5)
    assert found.cosine * 100 == found.times_100 and found.num_pictures == len(cosines)


def test_cosines_of_known_angles_whatever_the_lengths() -> None:
    images = np.array([[1.0, 0], [1, 1], [2, 0], [0, 3]])
    texts = np.array([[5.0, 0], [1, 0], [-1, 0], [1, 0]])
    truth = [1, 0.5**0.5, -1, 0]
    for scale in (1e-300, 1, 1e200):
        np.testing.assert_allclose(clip_score(images * scale, texts / 7), truth, rtol=0, atol=1e-15)
    assert np.abs(clip_score(images, images)).max() <= 1


def test_tensors_in_half_precision_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK_ROWS", 3)
    images = np.random.default_rng(1).standard_normal((10, 8)).astype(np.float16)
    whole = clip_score(images, images[::-1])
    np.testing.assert_array_equal(whole, clip_score(torch.from_numpy(images), torch.from_numpy(images[::-1].copy())))
    assert clip_score(torch.ones(2, 3, dtype=torch.bfloat16, requires_grad=True), torch.ones(2, 3)).tolist() == [1, 1]


def test_what_has_no_cosine_is_refused_by_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK_ROWS", 3)
    rows = np.ones((7, 4))
    zero, infinite = rows.copy(), rows.copy()
    zero[5], infinite[4, 0] = 0, np.inf
    for images, texts, message in (
        (rows, zero, "texts holds zeros alone in row 5"),
        (infinite, rows, "images holds NaN or infinity in row 4"),
        (rows, rows[:6], "7 images and 6 texts"),
        (rows, rows[:, :3], "images has 4 features a row and texts has 3"),
        (rows[0], rows[0], "rows of features"),
        (rows[:0], rows[:0], "rows of features"),
    ):
        with pytest.raises(ValueError, match=message):
            clip_score(images, texts)
    with pytest.raises(ValueError, match="at least one"):
        summarise(np.empty(0))
