"""What a stage trains on: limits act, and what is repeated, enlarged or held out is said in numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from schemas.ids import image_id
from schemas.shard_index import INDEX_SCHEMA, ShardIndex
from schemas.training import Data, TrainingRecipe
from training.data.order import BatchOrder
from training.data.selection import Selection, select_rows
from training.data.transform import shapes_of
from training.data.usable import Usable, enlargement, held_out, without_enlarged, without_repeated


def selection(sizes: list[tuple[int, int]], weight: float | None = 1.0) -> Selection:
    """Rows of pictures of (width, height)."""
    rows = [
        {field.name: 0 if pa.types.is_integer(field.type) else "" for field in INDEX_SCHEMA if not field.nullable}
        | {"image_id": image_id(f"{number:032x}" * 2), "width": width, "height": height, "weight": weight}
        for number, (width, height) in enumerate(sizes)
    ]
    return Selection(ShardIndex.of(pa.Table.from_pylist(rows, schema=INDEX_SCHEMA), part_rows=50))


def usable(sizes: list[tuple[int, int]], resolution: int = 1024) -> Usable:
    rows = selection(sizes)
    return Usable(rows, shapes_of(rows, resolution, 16, multi_aspect=True))


def kept(found: Usable) -> list[tuple[int, int]]:
    return [
        (width, height)
        for part in found.rows.parts(("width", "height"))
        for width, height in zip(part["width"].to_pylist(), part["height"].to_pylist(), strict=True)
    ]


def test_a_picture_is_enlarged_by_as_much_as_its_crop_scales_it():
    found = usable([(1024, 256), (1024, 683), (1024, 1024), (4000, 3000)])
    assert enlargement(found.rows, found.shapes).tolist() == pytest.approx([2.0, 1.22, 1.0, 0.29], abs=0.005)


def test_enlarged_pictures_are_said_and_kept_without_a_limit():
    found = without_enlarged(usable([(1024, 256), (1024, 683), (2000, 2000)]), None)
    assert found.rows.num_rows == 3
    assert found.notes == (
        "2 of 3 pictures are enlarged to cover their bucket, half of them more than 1.61 times, at most 2.00 times; "
        "data.max_upscale sets a limit",
    )
    assert without_enlarged(usable([(2000, 2000)]), None).notes == ()


@pytest.mark.parametrize(("most", "left"), [(1, [(2000, 2000)]), (1.5, [(1024, 683), (2000, 2000)])])
def test_pictures_over_the_limit_are_left_out(most, left):
    found = without_enlarged(usable([(1024, 256), (1024, 683), (2000, 2000)]), most)
    assert kept(found) == left and len(found.shapes) == len(left)
    assert f"of 3 pictures are left out: they would be enlarged more than {most} times" in found.notes[0]


def test_a_limit_that_leaves_nothing_is_refused():
    with pytest.raises(ValueError, match=r"data\.max_upscale: 1\.5 leaves out all 1 pictures, .* enlarged 2\.00 times"):
        without_enlarged(usable([(1024, 256)]), 1.5)
    with pytest.raises(ValueError, match=r"data\.max_repeats: 2 leaves out all 3 pictures, .* repeats each 3 times"):
        without_repeated(usable([(64, 64)] * 3, 32), Data(batch=8, max_repeats=2))


def test_a_bucket_with_fewer_pictures_than_a_batch_is_said_in_numbers():
    found = without_repeated(usable([(64, 64)] * 61 + [(128, 64)], 32), Data(batch=32))
    assert found.notes == (
        "1 of 62 pictures are seen up to 32 times an epoch, where others are seen once: a batch is 32, and a bucket "
        "holds fewer (48x16 px with 1, 32 times); data.max_repeats sets a limit",
    )
    assert without_repeated(usable([(64, 64)] * 32, 32), Data(batch=32)).notes == ()


@pytest.mark.parametrize(("most", "left"), [(1, 32), (3, 32), (4, 42), (32, 43)])
def test_buckets_that_repeat_more_often_are_left_out(most, left):
    sizes = [(64, 64)] * 32 + [(64, 128)] * 10 + [(128, 64)]
    found = without_repeated(usable(sizes, 32), Data(batch=32, max_repeats=most))
    assert found.rows.num_rows == left
    order = BatchOrder(found.rows.codes("shard"), found.shapes, 32, 0, 100)
    rows = np.concatenate([order.batch(step).rows for step in range(len(order))])
    assert set(rows.tolist()) == set(range(left)) and np.bincount(rows).max() <= most


def test_dealt_weights_count_where_concepts_are_balanced():
    rows = selection([(64, 64)] * 40, weight=0.5)
    found = Usable(rows, shapes_of(rows, 32, 16, multi_aspect=True))
    assert without_repeated(found, Data(batch=40)).notes == ()
    assert "up to 2 times an epoch" in without_repeated(found, Data(batch=40, balance_concepts=True)).notes[0]


def test_a_coin_of_the_id_holds_pictures_out():
    rows = selection([(64, 64)] * 400)
    held = held_out(rows, 0.25)
    assert 70 < held.sum() < 130
    assert (held_out(rows, 0.1) <= held).all(), "a larger share holds out more, and those of a smaller one"
    some = np.arange(400) % 3 == 0
    assert (held_out(rows.where(some), 0.25) == held[some]).all(), "the other pictures change no coin"


@pytest.mark.parametrize("resolution", [512, 1024, 2048, 2880])
def test_the_papers_chain_enlarges_no_picture_from_512_px_on(resolution):
    recipe = TrainingRecipe.load(Path(__file__).parents[3] / "recipes" / "train_sigma.yaml")
    side, generator = resolution, np.random.default_rng(0)
    sizes = [(side, side // 4), (side, side * 2 // 3), (side, side), (2 * side, side), (3 * side, 3 * side)]
    sizes += [tuple(pair) for pair in generator.integers(side // 4, 3 * side, (200, 2)).tolist()]
    for stage in (stage for stage in recipe.stages if stage.resolution == resolution):
        rows = select_rows(selection(sizes)._index, stage.where, stage.name)
        found = without_enlarged(
            Usable(rows, shapes_of(rows, resolution, 32, stage.multi_aspect)), recipe.data_of(stage).max_upscale
        )
        assert (side, side) in kept(found) and (3 * side, 3 * side) in kept(found)
        assert not {(side, side // 4), (side, side * 2 // 3)} & set(kept(found))
        assert enlargement(found.rows, found.shapes).max() <= 1
