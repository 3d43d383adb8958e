from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from tests.building import connection_with, count_nouns
from viewer.sheets.concepts import against, frequencies, growth, pairs

Part = Callable[..., pa.Table]


def dataset(part: Part, raw: list[list[str]], synthetic: list[list[str]] | None = None) -> duckdb.DuckDBPyConnection:
    """A raw caption per image with these nouns, and synthetic ones; the mix takes both by turns."""
    num = len(raw)
    synthetic = synthetic or raw
    connection = connection_with(
        selection=part("selection", kept=[True] * num),
        raw_captions=part("raw_captions", caption=["words"] * num),
        captions=part("captions", caption=["words"] * num),
        mix=part("mix", caption=["words"] * num, caption_source=[("raw", "synthetic")[n % 2] for n in range(num)]),
        nouns=part(
            "nouns",
            row_id=[*range(num)] * 2,
            caption_source=["raw"] * num + ["synthetic"] * num,
            nouns=[*raw, *synthetic],
            num_words=[5] * (2 * num),
        ),
    )
    return count_nouns(connection)


def test_shares_and_the_zipf_slope(part: Part) -> None:
    connection = dataset(part, [["cat", "cat", "mat"], ["cat"], ["sky"], []], [["cat"], ["sea", "sea"], [], ["mat"]])
    assert frequencies(connection, "raw", 2).rows == [(1, "cat", 3, 2, 0.5), (2, "mat", 1, 1, 0.25)]
    mixed = [(1, "cat", 2, 1, 0.25), (2, "sea", 2, 1, 0.25), (3, "mat", 2, 2, 0.5), (4, "sky", 1, 1, 0.25)]
    assert sorted(row[1:] for row in frequencies(connection, "mix", 9).rows) == sorted(row[1:] for row in mixed)
    uses = {f"noun{rank:02d}": round(1000 / rank) for rank in range(1, 41)}
    zipf = dataset(part, [[noun] * count for noun, count in uses.items()])
    ranks = np.log(np.arange(1, 41))
    slope = np.polyfit(ranks, np.log(list(uses.values())), 1)[0]
    assert f"than once: {slope:.2f}." in frequencies(zipf, "raw", 1).notes[0] and slope == pytest.approx(-1, abs=0.02)
    assert "not defined" in frequencies(dataset(part, [["cat"]]), "raw", 1).notes[0]


def test_pairs_against_plain_python(part: Part) -> None:
    rng = np.random.default_rng(0)
    captions = [[f"n{word}" for word in rng.integers(0, 6, 5)] for _ in range(40)]
    expected: dict[tuple[str, str], int] = {}
    for caption in captions:
        for pair in combinations(sorted(set(caption)), 2):
            expected[pair] = expected.get(pair, 0) + 1
    images = {noun: sum(noun in caption for caption in captions) for noun in {n for c in captions for n in c}}
    found = pairs(dataset(part, captions), "raw", 100).rows
    assert {tuple(sorted(map(str, row[:2]))): row[2] for row in found} == expected
    for first, second, num, lift in found:
        assert lift == pytest.approx(num * 40 / (images[first] * images[second]))


def test_growth_ends_at_all_nouns_and_never_falls(part: Part) -> None:
    captions = [[f"noun{number}", "everywhere"] for number in range(500)]
    rows = growth(dataset(part, captions), "raw").rows
    assert rows[-1][:2] == (500, 501) and rows[-1][2] == pytest.approx(1, abs=0.01)
    for num_images, distinct, _ in rows:
        assert distinct == num_images + 1  # of every sample: its own nouns and the common one
    few = growth(dataset(part, [["cat"]] * 500), "raw").rows
    assert all(distinct == 1 and exponent in (None, 0) for _, distinct, exponent in few)
    assert [math.log2(500 / row[0]) for row in rows][:-1] == pytest.approx(range(len(rows) - 1, 0, -1), abs=0.8)


def test_concepts_gained_and_lost_between_two_datasets(part: Part) -> None:
    now = dataset(part, [["cat", "sea"], ["sea"], ["fox"]])
    before = dataset(part, [["cat", "owl"], ["owl", "owl"], ["elk"]])
    sheet = against(now, before, "raw", 1)
    assert sheet.rows == [("gained", "sea", 2, 2), ("lost", "owl", 3, 2)]
    assert sheet.notes[0].startswith("2 nouns gained, 2 lost")
    with pytest.raises(ValueError, match="no captions of 'vlm'"):
        against(now, before, "vlm", 1)
