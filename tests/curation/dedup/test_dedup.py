from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.dedup.dedup import find_groups, reduce_job
from engine.dataset import Dataset
from schemas.recipe import DataRecipe, Dedup
from tests.building import connection_with, put, run_query, table_of

pytestmark = pytest.mark.slow

FLAT = (0, 2**64 - 1)


def row(
    row_id: int, phash: int | None, sha256: str = "", pixels: str = "", reason: str | None = None
) -> dict[str, Any]:
    return {
        "row_id": row_id,
        "image_id": f"id{row_id}",
        "source": "s",
        "source_name": "s",
        "member": f"{row_id}.jpg",
        "sha256": sha256 or f"sha{row_id}",
        "phash": phash,
        "pixel_sha256": pixels or f"pixels{row_id}",
        "reason": reason,
    }


def found(rows: Iterable[dict[str, Any]], max_distance: int | None = 3) -> list[dict[str, Any]]:
    rows = list(rows)
    columns = {name: ("row_id", "image_id", *more) for name, more in COLUMNS.items()}
    tables = {
        name: table_of(name, ({key: each[key] for key in keys} for each in rows)) for name, keys in columns.items()
    }
    with connection_with(**tables) as connection:
        return run_query(connection, find_groups(connection, Dedup(max_distance=max_distance)))


COLUMNS = {
    "images": ("source", "source_name", "member", "sha256", "reason"),
    "fingerprints": ("phash", "pixel_sha256"),
}


def groups(rows: Iterable[dict[str, Any]], max_distance: int | None = 3) -> dict[int, int]:
    return {each["row_id"]: each["group_id"] for each in found(rows, max_distance)}


def brute_force(hashes: Sequence[int], max_distance: int) -> dict[int, int]:
    """Row -> lowest row of its connected component, by comparing all pairs; rows alone are left out."""
    label = list(range(len(hashes)))

    def root(node: int) -> int:
        while label[node] != node:
            node = label[node]
        return node

    for a, one in enumerate(hashes):
        for b in range(a):
            if (one ^ hashes[b]).bit_count() <= max_distance:
                low, high = sorted((root(a), root(b)))
                label[high] = low
    roots = [root(node) for node in range(len(hashes))]
    return {node: top for node, top in enumerate(roots) if roots.count(top) > 1}


def test_pictures_that_differ_have_no_row() -> None:
    assert found([row(0, 0x0F0F), row(1, 0xF0F0), row(2, None)]) == []


def test_equal_bytes_pixels_and_hashes_are_different_methods() -> None:
    same_bytes = [row(0, 0xABCD, "sha", "px"), row(1, 0xABCD, "sha", "px")]
    same_pixels = [row(2, 0xABCD << 40, "", "other px"), row(3, 0xABCD << 40, "", "other px")]
    near = [row(4, 0x1234_5678_9ABC_DEF0), row(5, 0x1234_5678_9ABC_DEF3)]
    assert [(each["row_id"], each["group_id"], each["method"], each["distance"]) for each in
            found([*same_bytes, *same_pixels, *near])] == [
        (0, 0, "bytes", 0),
        (1, 0, "bytes", 0),
        (2, 2, "pixels", 0),
        (3, 2, "pixels", 0),
        (4, 4, "phash", 2),
        (5, 4, "phash", 2),
    ]  # fmt: skip


def test_equal_hashes_of_other_pixels_are_at_distance_0() -> None:
    assert [(each["method"], each["distance"]) for each in found([row(0, 5), row(1, 5), row(2, 5)])] == [
        ("phash", 0)
    ] * 3


@pytest.mark.parametrize(("max_distance", "expected"), [(0, {}), (1, {0: 0, 1: 0}), (2, {0: 0, 1: 0, 2: 0})])
def test_the_limit_is_the_largest_distance_that_counts(max_distance: int, expected: dict[int, int]) -> None:
    base = 0x0123_4567_89AB_CDEF
    assert groups([row(0, base), row(1, base ^ 1), row(2, base ^ 0b110)], max_distance) == expected


@pytest.mark.parametrize("bits", [(63,), (0, 16), (0, 16, 32), (15, 31, 63), (61, 62, 63), (0, 1, 2)])
def test_bits_may_differ_anywhere(bits: tuple[int, ...]) -> None:
    base = 0x8000_0000_0000_0001 ^ 0x5A5A_5A5A_5A5A_5A5A
    other = base
    for bit in bits:
        other ^= 1 << bit
    assert [(each["row_id"], each["distance"]) for each in found([row(0, base), row(1, other)])] == [
        (0, len(bits)),
        (1, len(bits)),
    ]


def test_four_bits_are_another_picture() -> None:
    assert groups([row(0, 0xFFFF), row(1, 0xFFFF ^ (1 | 1 << 17 | 1 << 33 | 1 << 49))]) == {}


def test_a_chain_is_one_group() -> None:
    """Each link is 3 bits from the next; the ends are far apart."""
    base, chain = 0x0F1E_2D3C_4B5A_6978, []
    for link in range(21):
        chain.append(base)
        base ^= 0b111 << (3 * link)
    order = list(range(len(chain)))
    random.Random(3).shuffle(order)
    assert groups(row(number, chain[place]) for number, place in enumerate(order)) == dict.fromkeys(range(21), 0)


def test_evidence_of_every_kind_joins_one_group() -> None:
    rows = [row(7, 111, "a", "p"), row(3, 9 << 20, "a", "q"), row(5, 77 << 40, "b", "q"), row(9, (77 << 40) + 1, "c")]
    assert [(each["row_id"], each["group_id"], each["method"]) for each in found(rows)] == [
        (3, 3, "bytes"),
        (5, 3, "pixels"),
        (7, 3, "bytes"),
        (9, 3, "phash"),
    ]


def test_null_finds_exact_copies_only() -> None:
    rows = [row(0, 6), row(1, 6), row(2, 7, "x"), row(3, 7, "x"), row(4, 8, "", "y"), row(5, 8, "", "y")]
    assert groups(rows, None) == {2: 2, 3: 2, 4: 4, 5: 4}
    assert groups(rows, 0) == {0: 0, 1: 0, 2: 2, 3: 2, 4: 4, 5: 4}


@pytest.mark.parametrize("phash", FLAT)
def test_a_hash_without_structure_is_no_evidence(phash: int) -> None:
    near = phash ^ 1
    assert groups([row(0, phash), row(1, phash), row(2, near)]) == {}
    assert groups([row(0, phash, "s"), row(1, phash, "s"), row(2, phash, "", "p"), row(3, phash, "", "p")]) == {
        0: 0,
        1: 0,
        2: 2,
        3: 2,
    }


def test_only_pictures_have_doubles() -> None:
    rows = [row(0, None, "empty", reason="empty"), row(1, None, "empty", reason="empty"), row(2, 5), row(3, 5)]
    assert groups(rows) == {2: 2, 3: 2}


def test_missing_pixels_are_not_equal_to_each_other() -> None:
    rows = [row(0, None) | {"pixel_sha256": None}, row(1, None) | {"pixel_sha256": None}]
    assert groups(rows) == {}


def planted(seed: int, count: int, doubles: int) -> list[int]:
    chance = random.Random(seed)
    hashes = [chance.getrandbits(64) for _ in range(count)]
    for _ in range(doubles):
        near = chance.choice(hashes)
        for bit in chance.sample(range(64), chance.randint(0, 3)):
            near ^= 1 << bit
        hashes.append(near)
    chance.shuffle(hashes)
    return hashes


@pytest.mark.parametrize("max_distance", [0, 1, 2, 3, 5, 6])
def test_every_near_pair_among_many_is_found(max_distance: int) -> None:
    hashes = planted(max_distance, 1500, 400)
    expected = brute_force(hashes, max_distance)
    assert len(expected) > 50
    assert groups((row(number, phash) for number, phash in enumerate(hashes)), max_distance) == expected


@settings(deadline=None, max_examples=25)
@given(
    hashes=st.lists(st.integers(0, 12) | st.integers(2**63 - 2, 2**63 + 8), min_size=1, max_size=14),
    max_distance=st.integers(0, 6),
)
def test_dense_hashes_group_as_all_pairs_do(hashes: list[int], max_distance: int) -> None:
    hashes = [phash + 1 for phash in hashes]  # 0 is a flat picture
    assert groups((row(n, phash) for n, phash in enumerate(hashes)), max_distance) == brute_force(hashes, max_distance)


def test_the_order_of_the_rows_does_not_matter() -> None:
    rows = [row(number, phash) for number, phash in enumerate(planted(9, 150, 150))]
    first = found(rows)
    for seed in (1, 2):
        random.Random(seed).shuffle(rows)
        assert found(rows) == first


def by_content(rows: list[dict[str, Any]]) -> set[tuple[frozenset[str], str]]:
    """Groups as sets of pictures, whatever their row_ids."""
    members: dict[int, list[dict[str, Any]]] = {}
    for each in rows:
        members.setdefault(each["group_id"], []).append(each)
    return {
        (frozenset(each["image_id"] for each in group), str(sorted((e["image_id"], e["distance"]) for e in group)))
        for group in members.values()
    }


def test_the_order_of_the_inputs_changes_no_group() -> None:
    """Other row_ids for the same pictures: the same groups, of the same pictures at the same distances."""
    hashes = planted(5, 200, 200)
    before = by_content(found(row(number, phash) for number, phash in enumerate(hashes)))
    order = list(range(len(hashes)))
    random.Random(1).shuffle(order)
    moved = [row(place, hashes[number]) | {"image_id": f"id{number}"} for place, number in enumerate(order)]
    assert by_content(found(moved)) == before
    assert len(before) > 50


# ------------------------------------------------------------------------------------------------ other datasets


def write_dataset(folder: Path, rows: Iterable[dict[str, Any]], part_rows: int = 2) -> Path:
    """images and fingerprints of a dataset, as `find_in_others` reads them."""
    rows = list(rows)
    for number, begin in enumerate(range(0, len(rows), part_rows)):
        listed = ({"row_id": each["row_id"], "source": "s", "source_name": "s", "member": "m"} for each in rows[begin:])
        put(Dataset(folder), "listing", number, table_of("listing", listed))
        for name, more in COLUMNS.items():
            part = (
                {key: each[key] for key in ("row_id", "image_id", *more)} for each in rows[begin : begin + part_rows]
            )
            put(Dataset(folder), name, number, table_of(name, part))
    return folder


def matched(rows: list[dict[str, Any]], *others: Path, max_distance: int | None = 3) -> dict[int, tuple[Any, ...]]:
    section = Dedup(max_distance=max_distance, against=tuple(str(path) for path in others))
    columns = {name: ("row_id", "image_id", *more) for name, more in COLUMNS.items()}
    tables = {name: table_of(name, ({k: r[k] for k in keys} for r in rows)) for name, keys in columns.items()}
    with connection_with(**tables) as connection:
        result = run_query(connection, find_groups(connection, section))
    names = ("other_dataset", "other_image_id", "other_method", "other_distance")
    return {each["row_id"]: tuple(each[name] for name in names) for each in result}


BASE = 0x0123_4567_89AB_CDEF


def other(number: int, phash: int | None, sha256: str = "", pixels: str = "") -> dict[str, Any]:
    return row(number, phash, sha256 or f"other{number}", pixels or f"other pixels{number}") | {
        "image_id": f"other{number}"
    }


def test_a_picture_of_another_dataset_is_named_with_its_evidence(tmp_path: Path) -> None:
    theirs = write_dataset(
        tmp_path / "eval", [other(0, None, "same"), other(1, 77 << 30, "", "same px"), other(2, BASE), other(3, BASE)]
    )
    ours = [row(0, 5, "same"), row(1, 9 << 50, "", "same px"), row(2, BASE ^ 0b101), row(3, 0xABCD << 33)]
    folder = str(theirs)
    assert matched(ours, theirs) == {
        0: (folder, "other0", "bytes", 0),
        1: (folder, "other1", "pixels", 0),
        2: (folder, "other2", "phash", 2),
    }
    assert set(matched(ours, theirs, max_distance=None)) == {0, 1}
    assert set(matched(ours, theirs, max_distance=1)) == {0, 1}


def test_the_strongest_and_nearest_match_is_named(tmp_path: Path) -> None:
    one = write_dataset(tmp_path / "a", [other(0, BASE ^ 0b11), other(1, BASE ^ 1)])
    two = write_dataset(tmp_path / "b", [other(2, BASE, "same")])
    assert matched([row(0, BASE, "same")], one, two) == {0: (str(two), "other2", "bytes", 0)}
    assert matched([row(0, BASE)], one) == {0: (str(one), "other1", "phash", 1)}


def test_a_match_with_another_dataset_does_not_pass_along_a_chain(tmp_path: Path) -> None:
    """Row 1 is near row 0, which is near theirs; row 1 is too far from theirs."""
    theirs = write_dataset(tmp_path / "eval", [other(0, BASE)])
    rows = matched([row(0, BASE ^ 0b111), row(1, BASE ^ 0b111111)], theirs)
    assert rows == {0: (str(theirs), "other0", "phash", 3), 1: (None, None, None, None)}


def test_a_flat_picture_is_in_no_other_dataset_by_its_hash(tmp_path: Path) -> None:
    assert matched([row(0, 0), row(1, 2**64 - 1)], write_dataset(tmp_path / "o", [other(0, 0), other(1, 1)])) == {}


def test_a_folder_without_a_dataset_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"dedup.against: {tmp_path}: no dataset with images"):
        matched([row(0, 5)], tmp_path)


def test_the_job_notices_when_another_dataset_is_built_anew(tmp_path: Path) -> None:
    theirs = write_dataset(tmp_path / "eval", [other(0, BASE)])
    against = {"against": [str(theirs)]}
    made = DataRecipe.from_mapping({"images": "photos", "out": "out", "dedup": against})
    before = reduce_job(made).knobs
    assert str(theirs) in str(before["dedup.against"])
    put(Dataset(theirs), "fingerprints", 0, Dataset(theirs).read_part("fingerprints", 0).slice(0, 0))
    assert reduce_job(made).knobs != before


def test_the_job_names_its_knob() -> None:
    made = DataRecipe.from_mapping({"images": "photos", "out": str(Path("out")), "dedup": {"max_distance": 2}})
    assert reduce_job(made).knobs == {"dedup.max_distance": 2, "dedup.semantic_threshold": None, "dedup.against": []}
    assert reduce_job(made).inputs == ("images", "fingerprints")
