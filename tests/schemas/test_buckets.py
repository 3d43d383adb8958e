"""The published tables as the paper's code prints them, and the nearest bucket on a linear scale."""

from __future__ import annotations

import pytest

from schemas.buckets import LABELS, TABLES, nearest, published, sizes


@pytest.mark.parametrize("resolution", TABLES)
def test_forty_labels_from_wide_to_tall(resolution: int) -> None:
    table = published(resolution)
    ratios = [float(label) for label in table]
    assert len(table) == 40
    assert ratios == sorted(ratios)
    assert (ratios[0], ratios[-1]) == (0.25, 4.0)
    assert table["1.0"] == (resolution, resolution)


@pytest.mark.parametrize("resolution", TABLES)
def test_a_label_is_height_over_width(resolution: int) -> None:
    for label, (height, width) in published(resolution).items():
        if (resolution, label) == (2880, "4.0"):
            continue  # published as 5760 x 1408, which is 4.09
        assert float(label) == pytest.approx(height / width, abs=0.011)


@pytest.mark.parametrize(
    ("resolution", "multiple", "smallest_area"),
    [(256, 16, 0.902), (512, 32, 0.902), (1024, 64, 0.902), (2048, 128, 0.902), (2880, 64, 0.874)],
)
def test_sides_and_areas(resolution: int, multiple: int, smallest_area: float) -> None:
    areas = [height * width / resolution**2 for height, width in published(resolution).values()]
    assert all(side % multiple == 0 for size in published(resolution).values() for side in size)
    assert min(areas) == pytest.approx(smallest_area, abs=0.001)
    assert max(areas) <= 1.0


def test_known_rows() -> None:
    assert published(256)["0.25"] == (128, 512)
    assert published(512)["0.57"] == (384, 672)
    assert published(1024)["1.46"] == (1216, 832)
    assert published(2048)["4.0"] == (4096, 1024)
    assert published(2880)["1.82"] == (3840, 2112)


def test_nearest_is_linear_in_height_over_width() -> None:
    assert nearest(1000, 1000) == "1.0"
    assert nearest(400, 600) == "0.68"  # 0.667 is nearer to 0.68 than to 0.6
    assert nearest(3000, 4000) == "0.72"  # 0.75: as far from 0.78, the lower wins
    assert nearest(2740, 1000) == "2.89"  # 2.74 lies beyond the arithmetic middle of 2.5 and 2.89 ...
    assert nearest(2690, 1000) == "2.5"  # ... and 2.69 before it, though behind the geometric one (2.688)
    assert nearest(100, 4000) == "0.25"
    assert nearest(4000, 100) == "4.0"
    assert nearest(1820, 1000, 2880) == "1.82"


@pytest.mark.parametrize("label", LABELS)
def test_every_bucket_is_its_own_nearest(label: str) -> None:
    height, width = published(1024)[label]
    assert nearest(height, width) == label


def test_refusals() -> None:
    with pytest.raises(ValueError, match="no bucket table for 999; there are 256, 512, 1024, 2048, 2880"):
        nearest(1, 1, 999)
    with pytest.raises(ValueError, match="this has 5x0"):
        nearest(0, 5)


def test_toy_resolutions_keep_the_labels() -> None:
    table = sizes(64, multiple=16)
    assert tuple(table) == LABELS
    assert table["1.0"] == (64, 64)
    assert table["0.25"] == (32, 128)
    assert all(side % 16 == 0 and side > 0 for size in table.values() for side in size)
