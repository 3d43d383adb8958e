from __future__ import annotations

import random
from collections import Counter
from itertools import groupby
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.shards.plan import plan, reduce_job
from schemas import buckets
from schemas.recipe import DataRecipe, Shard
from tests.building import connection_with, run_query, table_of

TABLES: dict[str, tuple[str, ...]] = {
    "images": ("source", "source_name", "member", "num_bytes", "sha256", "format", "width", "height"),
    "fingerprints": ("phash",),
    "scores": ("aesthetic", "aesthetic_scorer"),
    "selection": ("kept", "subsets"),
    "raw_captions": ("removed",),
    "captions": ("captioner",),
    "mix": ("caption", "caption_source", "coin", "num_tokens"),
}


def sample(row_id: int, width: int = 100, height: int = 100, num_bytes: int = 1000, **more: Any) -> dict[str, Any]:
    return {
        "row_id": row_id,
        "image_id": f"{row_id * 7919 % 10007:032x}",
        "source": "/photos",
        "source_name": "photos",
        "member": f"{row_id}.jpg",
        "num_bytes": num_bytes,
        "sha256": "0" * 64,
        "format": "JPEG",
        "width": width,
        "height": height,
        "phash": 2**64 - 1,
        "aesthetic": 5.0,
        "aesthetic_scorer": "test",
        "kept": True,
        "subsets": ["a"],
        "removed": [],
        "captioner": "test",
        "caption": "a picture",
        "caption_source": "raw",
        "coin": 0.7,
        "num_tokens": 3,
    } | more


def planned(samples: list[dict[str, Any]], seed: int = 0, **limits: Any) -> list[dict[str, Any]]:
    tables = {
        name: table_of(name, ({key: each[key] for key in ("row_id", "image_id", *keys)} for each in samples))
        for name, keys in TABLES.items()
    }
    with connection_with(**tables) as connection:
        sql = plan(connection, Shard(**limits), seed, "recipe's name")
        return run_query(connection, f"{sql} ORDER BY shard_id, position")


def by_shard(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    return {shard: list(found) for shard, found in groupby(rows, key=lambda row: row["shard"])}


SIZES = ((100, 100), (300, 200), (200, 300), (400, 100), (133, 101), (1000, 999))


def mixture(count: int, seed: int = 0) -> list[dict[str, Any]]:
    chance = random.Random(seed)
    return [sample(row, *chance.choice(SIZES), chance.randint(1, 900_000)) for row in range(count)]


def test_a_row_of_the_plan_has_the_writers_columns() -> None:
    (row,) = planned([sample(3)])
    assert row == {key: value for key, value in sample(3).items() if key not in ("kept", "removed")} | {
        "shard_id": 0,
        "position": 0,
        "shard": "1.0/1.0-000000.tar",
        "bucket": "1.0",
        "byte_offset": None,
        "url": None,
        "license": None,
        "original_caption": None,
        "raw_caption": None,
        "raw_reason": None,
        "synthetic_caption": None,
        "fallback": None,
        "weight": 1,
        "recipe": "recipe's name",
        "raw_caption_from": None,
        "further_captioners": None,
        "further_captions": None,
        "other_captions": None,
    }


@pytest.mark.parametrize("limits", [{}, {"max_samples": 7}, {"megabytes": 3}, {"megabytes": 2, "max_samples": 4}])
def test_every_kept_row_is_in_one_shard(limits: dict[str, Any]) -> None:
    samples = mixture(200)
    for each in samples[::3]:
        each["kept"] = False
    samples[1] |= {"caption": None, "caption_source": None}  # kept, but there is nothing to train on
    rows = planned(samples, **limits)
    expected = [each["row_id"] for each in samples if each["kept"] and each["caption"]]
    assert sorted(row["row_id"] for row in rows) == expected
    assert [(row["shard_id"], row["position"]) for row in rows] == sorted(
        (row["shard_id"], row["position"]) for row in rows
    )
    assert [row["shard_id"] for row in rows] == sorted(row["shard_id"] for row in rows)


def test_shards_keep_their_limits_and_hold_one_bucket() -> None:
    rows = planned(mixture(300), megabytes=2.5, max_samples=8)
    shards = by_shard(rows)
    assert len(shards) == rows[-1]["shard_id"] + 1  # every shard is one run of rows, and no number is left out
    for path, held in shards.items():
        assert len(held) <= 8
        assert sum(row["num_bytes"] for row in held) <= 2_500_000 + max(row["num_bytes"] for row in held)
        assert {row["bucket"] for row in held} == {path.partition("/")[0]}
        assert len({row["shard_id"] for row in held}) == 1
        assert [row["position"] for row in held] == list(range(len(held)))
        assert [row["image_id"] for row in held] == sorted(row["image_id"] for row in held)


def test_shards_of_a_bucket_are_numbered_without_a_gap() -> None:
    rows = planned(mixture(100), max_samples=6)
    for bucket in {row["bucket"] for row in rows}:
        paths = [path for path in by_shard(rows) if path.startswith(f"{bucket}/")]
        assert paths == [f"{bucket}/{bucket}-{number:06d}.tar" for number in range(len(paths))]
        full = [len(by_shard(rows)[path]) for path in paths]
        assert full[:-1] == [6] * (len(full) - 1)


def test_shards_come_from_the_widest_bucket_to_the_tallest() -> None:
    rows = planned([sample(0, 100, 400), sample(1, 400, 100), sample(2), sample(3, 240, 100), sample(4, 250, 100)])
    assert list(by_shard(rows)) == [f"{b}/{b}-000000.tar" for b in ("0.25", "0.4", "0.42", "1.0", "4.0")]


def test_an_image_larger_than_a_shard_still_finds_a_place() -> None:
    rows = planned([sample(row, num_bytes=5_000_000) for row in range(3)], megabytes=1)
    assert [len(held) for held in by_shard(rows).values()] == [1, 1, 1]
    assert len(planned([sample(0), sample(1)], megabytes=1e-9)) == 2


def test_bytes_add_up_over_64_bits() -> None:
    assert len(by_shard(planned([sample(row, num_bytes=2**62) for row in range(5)], megabytes=1_000_000))) == 5


def test_only_the_seed_changes_the_plan() -> None:
    samples = mixture(120)
    first = planned(samples, seed=1, max_samples=5)
    random.Random(0).shuffle(samples)
    assert planned(samples, seed=1, max_samples=5) == first
    other = planned(samples, seed=2, max_samples=5)
    assert {row["row_id"]: row["shard"] for row in other} != {row["row_id"]: row["shard"] for row in first}
    assert Counter(row["bucket"] for row in other) == Counter(row["bucket"] for row in first)


def test_a_shard_is_a_fair_sample_of_its_bucket() -> None:
    """Pictures listed side by side are not packed side by side."""
    first = by_shard(planned([sample(row) for row in range(400)], max_samples=100))["1.0/1.0-000000.tar"]
    assert 10 < sum(row["row_id"] < 100 for row in first) < 45


@pytest.mark.slow
@settings(deadline=None, max_examples=15)
@given(sizes=st.lists(st.tuples(st.integers(1, 9000), st.integers(1, 9000)), min_size=1, max_size=60))
def test_the_bucket_is_the_one_that_python_finds(sizes: list[tuple[int, int]]) -> None:
    rows = planned([sample(row, *size) for row, size in enumerate(sizes)])
    codes = buckets.nearest_codes(np.array([height / width for width, height in sizes]))
    assert {row["row_id"]: row["bucket"] for row in rows} == {
        row: buckets.LABELS[code] for row, code in enumerate(codes)
    }


def test_nothing_kept_plans_nothing() -> None:
    assert planned([sample(0, kept=False)]) == []


def test_the_job_depends_on_seed_and_limits() -> None:
    made = DataRecipe.from_mapping({"images": "a", "out": "b", "seed": 4, "shard": {"max_samples": 9}})
    assert reduce_job(made).knobs == {"seed": 4, "shard.megabytes": 512.0, "shard.max_samples": 9}
