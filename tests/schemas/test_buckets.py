"""The published tables as the paper's code prints them, and the nearest bucket on a linear scale."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.buckets import LABELS, TABLES, nearest_codes, nearest_sql, sizes

SIDES = st.lists(st.tuples(st.integers(1, 9000), st.integers(1, 9000)), min_size=1, max_size=60)


@pytest.mark.parametrize("resolution", TABLES)
def test_forty_labels_from_wide_to_tall(resolution: int) -> None:
    table = TABLES[resolution]
    ratios = [float(label) for label in table]
    assert len(table) == 40
    assert ratios == sorted(ratios)
    assert (ratios[0], ratios[-1]) == (0.25, 4.0)
    assert table["1.0"] == (resolution, resolution)


@pytest.mark.parametrize("resolution", TABLES)
def test_a_label_is_height_over_width(resolution: int) -> None:
    for label, (height, width) in TABLES[resolution].items():
        if (resolution, label) == (2880, "4.0"):
            continue  # published as 5760 x 1408, which is 4.09
        assert float(label) == pytest.approx(height / width, abs=0.011)


@pytest.mark.parametrize(
    ("resolution", "multiple", "smallest_area"),
    [(256, 16, 0.902), (512, 32, 0.902), (1024, 64, 0.902), (2048, 128, 0.902), (2880, 64, 0.874)],
)
def test_sides_and_areas(resolution: int, multiple: int, smallest_area: float) -> None:
    areas = [height * width / resolution**2 for height, width in TABLES[resolution].values()]
    assert all(side % multiple == 0 for size in TABLES[resolution].values() for side in size)
    assert min(areas) == pytest.approx(smallest_area, abs=0.001)
    assert max(areas) <= 1.0


def test_known_rows() -> None:
    assert TABLES[256]["0.25"] == (128, 512)
    assert TABLES[512]["0.57"] == (384, 672)
    assert TABLES[1024]["1.46"] == (1216, 832)
    assert TABLES[2048]["4.0"] == (4096, 1024)
    assert TABLES[2880]["1.82"] == (3840, 2112)


def nearest(height: int, width: int, labels: Sequence[str] = LABELS) -> str:
    return labels[nearest_codes(np.array([height / width]), labels)[0]]


def nearest_by_definition(height: int, width: int, labels: Sequence[str] = LABELS) -> str:
    return min(labels, key=lambda label: (abs(float(label) - height / width), float(label)))


def nearest_in_sql(sides: list[tuple[int, int]]) -> list[str]:
    rows = ", ".join(f"({row}, {height}, {width})" for row, (height, width) in enumerate(sides))
    label = nearest_sql("height::DOUBLE / width")
    with duckdb.connect() as connection:
        found = connection.sql(f"SELECT {label} FROM (VALUES {rows}) AS t(row, height, width) ORDER BY row").fetchall()
    return [label for (label,) in found]


def test_nearest_is_linear_in_height_over_width() -> None:
    assert nearest(1000, 1000) == "1.0"
    assert nearest(400, 600) == "0.68"  # 0.667 is nearer to 0.68 than to 0.6
    assert nearest(3000, 4000) == "0.72"  # 0.75: as far from 0.78, the lower wins
    assert nearest(2740, 1000) == "2.89"  # 2.74 lies beyond the arithmetic middle of 2.5 and 2.89 ...
    assert nearest(2690, 1000) == "2.5"  # ... and 2.69 before it, though behind the geometric one (2.688)
    assert nearest(100, 4000) == "0.25"
    assert nearest(4000, 100) == "4.0"
    assert nearest(1820, 1000, list(TABLES[2880])) == "1.82"


@pytest.mark.parametrize("label", LABELS)
def test_every_bucket_is_its_own_nearest(label: str) -> None:
    height, width = TABLES[1024][label]
    assert nearest(height, width) == label


def test_of_two_equally_near_buckets_the_lower_is_taken() -> None:
    assert nearest_codes(np.array([3 / 4, 3 / 2]), ["0.5", "1.0", "2.0"]).tolist() == [0, 1]


@settings(deadline=None, max_examples=100)
@given(SIDES, st.sampled_from([1024, 2880]))
def test_many_at_once_are_those_of_one_by_one(sides: list[tuple[int, int]], resolution: int) -> None:
    labels = list(TABLES[resolution])
    codes = nearest_codes(np.array([height / width for height, width in sides]), labels)
    assert [labels[code] for code in codes] == [nearest_by_definition(*side, labels) for side in sides]


@pytest.mark.slow
@settings(deadline=None, max_examples=50)
@given(SIDES)
def test_sql_gives_the_same_bucket_as_numpy(sides: list[tuple[int, int]]) -> None:
    assert nearest_in_sql(sides) == [nearest(*side) for side in sides]


def test_sql_and_numpy_agree_half_way_between_two_buckets() -> None:
    """Every published size, and ratios half-way between two labels, as near as whole pixels come."""
    sides = [size for table in TABLES.values() for size in table.values()]
    for lower, upper in pairwise(map(float, LABELS)):
        middle = round((lower + upper) * 1000)
        sides += [(middle, 2000), (middle - 1, 2000), (middle + 1, 2000)]
    by_definition = [nearest_by_definition(*side) for side in sides]
    assert nearest_in_sql(sides) == [nearest(*side) for side in sides] == by_definition
    assert set(by_definition) == set(LABELS)


def test_toy_resolutions_keep_the_labels() -> None:
    table = sizes(64, multiple=16)
    assert tuple(table) == LABELS
    assert table["1.0"] == (64, 64)
    assert table["0.25"] == (32, 128)
    assert all(side % 16 == 0 and side > 0 for size in table.values() for side in size)
