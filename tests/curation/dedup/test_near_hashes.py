from __future__ import annotations

import random

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from curation.dedup import near_hashes
from curation.dedup.near_hashes import choose_blocks, cut, find_pairs, masks

pytestmark = pytest.mark.slow

ALL = 2**64 - 1


def pairs(left: list[int], right: list[int] | None, max_distance: int) -> set[tuple[int, int, int]]:
    with duckdb.connect(config={"threads": 2}) as connection:
        for name, hashes in (("mine", left), ("theirs", right or [])):
            connection.register(f"_{name}", pa.table({"phash": pa.array(sorted(set(hashes)), pa.uint64())}))
            connection.execute(f"CREATE TABLE {name} AS FROM _{name}")
        find_pairs(connection, "mine", "theirs" if right is not None else "mine", max_distance, into="near")
        found = connection.execute("SELECT x, y, distance FROM near").fetchall()
        (left_over,) = connection.execute("SELECT count(*) FROM duckdb_tables() WHERE temporary").fetchone() or (0,)
    assert left_over == 1  # `near` itself
    assert len(found) == len(set(found))
    return set(found)


def all_pairs(hashes: list[int], max_distance: int) -> set[tuple[int, int, int]]:
    each = np.array(sorted(set(hashes)), np.uint64)
    found = ((place, np.bitwise_count(x ^ each[place + 1 :])) for place, x in enumerate(each))
    near = (
        (place, place + 1 + int(other), far) for place, far in found for other in np.flatnonzero(far <= max_distance)
    )
    return {(int(each[x]), int(each[y]), int(far[y - x - 1])) for x, y, far in near}


def near(phash: int, distance: int, chance: random.Random) -> int:
    for bit in chance.sample(range(64), distance):
        phash ^= 1 << bit
    return phash


def spread(seed: int, count: int = 600) -> list[int]:
    chance = random.Random(seed)
    hashes = [chance.getrandbits(64) for _ in range(count)]
    return hashes + [near(phash, chance.randint(0, 7), chance) for phash in hashes]


def crowded(seed: int, count: int = 900) -> list[int]:
    """Hashes most of whose bits are 0, as those of symmetric pictures are: full buckets in every table."""
    chance = random.Random(seed)
    return [near(0xF0 << 40, chance.randint(0, 9), chance) for _ in range(count)]


@pytest.mark.parametrize("max_distance", range(7))
def test_no_pair_is_missed_and_none_is_too_far(max_distance: int) -> None:
    hashes = spread(max_distance)
    assert pairs(hashes, None, max_distance) == all_pairs(hashes, max_distance)


@pytest.mark.parametrize("max_distance", [1, 3, 4])
def test_full_buckets_are_cut_again_and_lose_no_pair(max_distance: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_hashes, "_FULL", 16)
    monkeypatch.setattr(near_hashes, "_PAIR_COST", 10.0)
    depths: list[int] = []
    join = near_hashes._Search.join

    def watched(self: near_hashes._Search, left: str, right: str, mask: int, depth: int) -> None:
        depths.append(depth)
        join(self, left, right, mask, depth)

    monkeypatch.setattr(near_hashes._Search, "join", watched)
    hashes = crowded(max_distance)
    expected = all_pairs(hashes, max_distance)
    assert len(expected) > 20
    assert pairs(hashes, None, max_distance) == expected
    assert max(depths) >= 1


@pytest.mark.parametrize("max_distance", [0, 1, 3])
def test_pairs_across_two_tables(max_distance: int) -> None:
    chance = random.Random(max_distance)
    mine = spread(7, 200)
    theirs = [near(phash, chance.randint(0, 5), chance) for phash in mine[:150]] + mine[190:200]
    expected = {
        (x, y, (x ^ y).bit_count()) for x in set(mine) for y in set(theirs) if (x ^ y).bit_count() <= max_distance
    }
    assert pairs(mine, theirs, max_distance) == expected
    assert len(expected) >= 10


@pytest.mark.parametrize("max_distance", range(1, 7))
def test_every_few_bits_leave_one_key_whole(max_distance: int) -> None:
    """The pigeonhole: whichever bits differ, one table's key holds none of them."""
    chance = random.Random(0)
    for num_blocks in range(max_distance + 1, max_distance + 5):
        keys = masks(num_blocks, max_distance)
        for _ in range(200):
            flipped = sum(1 << bit for bit in chance.sample(range(64), max_distance))
            assert any(not flipped & key for key in keys)


def test_blocks_share_the_bits_evenly() -> None:
    pieces = cut(ALL, 5)
    assert sum(pieces) == ALL
    assert sorted(piece.bit_count() for piece in pieces) == [12, 13, 13, 13, 13]
    assert [piece.bit_count() for piece in cut(0b1011_0001, 2)] == [2, 2]


def test_at_33_million_a_row_has_few_candidates() -> None:
    num_rows, max_distance = 33_000_000, 3
    keys = masks(choose_blocks(num_rows, num_rows, max_distance), max_distance)
    assert sum(num_rows / 2 ** key.bit_count() for key in keys) < 10
    assert len(keys) <= 20
