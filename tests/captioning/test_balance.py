from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captioning.balance import reduce_job
from commands.order import pipeline as pipeline_of
from curation import build as pipeline
from engine import catalog
from engine.dataset import Dataset
from engine.ledger import ledger_counts
from schemas.ids import unit_interval
from schemas.recipe import Balance, DataRecipe
from schemas.shard_index import read_index
from schemas.strict import StrictModel
from tests.building import Told, connection_with, count_nouns, recipe, run_query, write_pictures

pytestmark = pytest.mark.slow

Part = Callable[..., pa.Table]


def weigh(
    part: Part, captions: list[list[str] | None], most_images: int, drop: bool = False
) -> list[dict[str, object]]:
    """`balance` over images whose mixed caption is their raw one, with these nouns."""
    num = len(captions)
    there = [None if nouns is None else "raw" for nouns in captions]
    connection = connection_with(
        selection=part("selection", kept=[True] * num),
        mix=part("mix", caption_source=there),
        nouns=part(
            "nouns", image_id=[f"{row:032x}" for row in range(num)], caption_source=["raw"] * num, nouns=captions
        ),
    )
    made = DataRecipe(images="photos", out="out", balance=Balance(most_images=most_images, drop=drop))
    return run_query(count_nouns(connection), reduce_job(made).query(connection))


def test_the_weights_are_those_computed_by_hand(part: Part) -> None:
    rows = weigh(part, [["sky", "sky", "sea"], ["sky", "owl"], ["sky", "sea"], ["sky"], [], None], 2)
    # sky is in 4 images and so common; sea is in 2, owl in 1
    assert [row["row_id"] for row in rows] == [0, 1, 2, 3, 4]  # without a caption there is nothing to weigh
    assert [(row["num_nouns"], row["num_common"]) for row in rows] == [(2, 1), (2, 1), (2, 1), (1, 1), (0, 0)]
    assert [row["weight"] for row in rows] == pytest.approx([1, 1, 1, 2 / 4, 1])
    rows = weigh(part, [["sky", "sea"]] * 4 + [["sea"]] * 4, 2)
    assert rows[0]["weight"] == pytest.approx(1 - (1 - 2 / 4) * (1 - 2 / 8))
    assert rows[4]["weight"] == pytest.approx(2 / 8)


@given(st.lists(st.lists(st.sampled_from("abcd"), max_size=5), max_size=30), st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_the_weight_agrees_with_plain_python(captions: list[list[str]], most_images: int) -> None:
    num_images = Counter(noun for nouns in captions for noun in set(nouns))
    connection, num = connection_with(), len(captions)
    connection.execute("INSERT INTO mix BY NAME SELECT unnest(range($1)) AS row_id, 'raw' AS caption_source", [num])
    connection.execute(
        "INSERT INTO nouns BY NAME SELECT unnest(range($1)) AS row_id, unnest($2) AS image_id, "
        "'raw' AS caption_source, unnest($3::VARCHAR[][]) AS nouns",
        [num, [f"{row:032x}" for row in range(num)], captions],
    )
    made = DataRecipe(images="photos", out="out", balance=Balance(most_images=most_images, drop=True))
    rows = run_query(count_nouns(connection), reduce_job(made).query(connection))
    for row, nouns in zip(rows, captions, strict=True):
        missed = math.prod(1 - min(1, most_images / num_images[noun]) for noun in set(nouns))
        assert row["weight"] == pytest.approx(1 - missed if nouns else 1, rel=1e-6)
        assert row["coin"] == unit_interval(str(row["image_id"]), "balance")
        assert row["dropped"] == (row["coin"] >= row["weight"])


def test_dropping_brings_a_common_noun_down_to_most_images(part: Part) -> None:
    rows = weigh(part, [["sky"]] * 4000 + [["owl"]] * 50, 400, drop=True)
    sky, owls = rows[:4000], rows[4000:]
    assert sum(not row["dropped"] for row in sky) == pytest.approx(400, abs=5 * 19)  # five standard deviations
    assert not any(row["dropped"] for row in owls)
    assert not any(row["dropped"] for row in weigh(part, [["sky"]] * 4000, 400))


def test_dropping_without_weights_is_refused() -> None:
    with pytest.raises(ValueError, match=r"set balance\.most_images"):
        Balance(drop=True)
    assert issubclass(Balance, StrictModel) and DataRecipe(images="a", out="b").balance.most_images is None


def test_from_the_recipe_to_the_index(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    write_pictures(photos)
    built = {}
    for name, knobs in {
        "plain": {},
        "weighed": {"most_images": 1},
        "dropped": {"most_images": 1, "drop": True},
    }.items():
        pipeline.build(
            made := recipe(photos, tmp_path / name, balance=knobs, mix={"synthetic_share": 0.0}),
            pipeline_of(made),
            Told(),
        )
        dataset = Dataset(tmp_path / name)
        with catalog.connect(dataset, threads=1) as connection:
            counts = ledger_counts(connection)
            weights = dict(connection.execute("SELECT image_id, weight FROM balance").fetchall())
            refused = connection.execute("SELECT image_id, value, threshold FROM ledger WHERE reason = 'too_common'")
            built[name] = (read_index(dataset.shards), counts, weights, refused.fetchall())
    plain, weighed, dropped = built["plain"], built["weighed"], built["dropped"]
    assert set(plain[0]["weight"].to_pylist()) == {1.0} and plain[2] == {}
    assert plain[0].num_rows == weighed[0].num_rows == 8
    in_index = dict(zip(weighed[0]["image_id"].to_pylist(), weighed[0]["weight"].to_pylist(), strict=True))
    assert in_index == weighed[2] and min(in_index.values()) < 1
    assert weighed[1] == plain[1]  # the same inputs are kept
    gone = {image_id for image_id, *_ in dropped[3]}
    assert gone and gone == {image for image, weight in weighed[2].items() if unit_interval(image, "balance") >= weight}
    assert set(dropped[0]["image_id"].to_pylist()) == set(in_index) - gone
    assert ("rejected", "balance", "too_common", len(gone)) in dropped[1]
    assert sum(count for *_, count in dropped[1]) == sum(count for *_, count in plain[1])
    for image_id, value, threshold in dropped[3]:
        assert value == pytest.approx(in_index[image_id]) and threshold >= value
