"""A picture that took over a duplicate's raw caption: every job after `select` sees that one, whoever runs it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from commands import order
from curation.upkeep.doctor import check_dataset
from curation.upkeep.find import Wanted, find
from curation.upkeep.purge import purge
from engine import catalog
from engine.dataset import Dataset
from schemas.recipe import DataRecipe
from schemas.shard import decode_json
from schemas.shard_index import read_index
from schemas.tables import SCHEMAS
from tests.building import build, picture, recipe, rows

pytestmark = pytest.mark.slow

WORDS = "A red lighthouse above the harbour."


def write_photos(folder: Path, prefix: str = "") -> None:
    """A large picture named as a camera names it, two small copies of it with captions, and three others."""
    folder.mkdir(parents=True)
    large = picture(0, 240, 160)
    large.save(folder / f"{prefix}large.png")
    beside: dict[str, dict[str, Any]] = {
        "large": {"caption": "DSC_0001.JPG", "url": "https://a.example/large", "license": "CC0"}
    }
    for number, text in ((1, WORDS), (2, "A lighthouse.")):
        name = f"{prefix}small{number}"
        large.resize((120 - 12 * number, 80 - 8 * number)).save(folder / f"{name}.png")
        beside[f"small{number}"] = {"caption": text, "url": f"https://b.example/{name}", "license": "other"}
    for number in range(3):
        picture(number + 10).save(folder / f"{prefix}other{number}.png")
        beside[f"other{number}"] = {"caption": f"Hill number {number} in the fog."}
    for name, said in beside.items():
        (folder / f"{prefix}{name}.json").write_text(json.dumps(said), encoding="utf-8")


def made(root: Path, out: str, **sections: Any) -> DataRecipe:
    return recipe(root / "photos", root / out, mix={"synthetic_share": 0.0}, part_rows=2, **sections)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("inherited")
    write_photos(root / "photos")
    return build(made(root, "dataset", ground={"enabled": False}), without=())[0]


def ids(dataset: Dataset) -> dict[str, str]:
    return {Path(row["member"]).stem: row["image_id"] for row in rows(dataset, "images")}


def test_the_survivor_names_the_image_whose_caption_it_carries(dataset: Dataset) -> None:
    image = ids(dataset)
    (taken,) = (row for row in rows(dataset, "selection") if row["inherited_caption"])
    assert taken["kept"]
    assert (taken["image_id"], taken["inherited_caption"], taken["inherited_from"]) == (
        image["large"],
        WORDS,
        image["small1"],
    )
    fallen = [row for row in rows(dataset, "selection") if row["rejected_by"] == "duplicate"]
    assert {row["image_id"] for row in fallen} == {image["small1"], image["small2"]}
    assert {(row["duplicate_of"], row["duplicate_method"]) for row in fallen} == {(image["large"], "phash")}
    with catalog.connect(dataset) as connection:
        ledger = connection.execute("SELECT image_id, inherited_from FROM ledger WHERE inherited_from IS NOT NULL")
        assert ledger.fetchall() == [(image["large"], image["small1"])]


def test_mix_nouns_statistics_and_views_see_the_caption_taken_over(dataset: Dataset) -> None:
    image = ids(dataset)
    mixed = next(row for row in rows(dataset, "mix") if row["image_id"] == image["large"])
    assert (mixed["caption"], mixed["caption_source"], mixed["fallback"]) == (WORDS, "raw", None)
    nouns = next(row for row in rows(dataset, "nouns") if row["image_id"] == image["large"])
    assert (nouns["caption_source"], nouns["nouns"]) == ("raw", ["lighthouse", "harbour"])
    counted = {row["caption_source"]: row for row in rows(dataset, "statistics")}
    assert counted["raw"]["num_images"] == counted["mix"]["num_images"] == 4
    for measure in ("average_caption_words", "average_caption_tokens", "total_nouns"):
        assert counted["raw"][measure] == counted["mix"][measure]
    with catalog.connect(dataset) as connection:
        offered = connection.execute(
            "SELECT caption, reason, inherited_from FROM raw_offers WHERE image_id = ?", [image["large"]]
        ).fetchone()
    assert offered == (WORDS, None, image["small1"])
    own = next(row for row in rows(dataset, "raw_captions") if row["image_id"] == image["large"])
    assert (own["caption"], own["reason"]) == (None, "file_name")


def test_the_sample_names_the_inherited_caption_and_keeps_its_own_url_and_licence(dataset: Dataset) -> None:
    image = ids(dataset)
    found = {}
    for row in read_index(dataset.shards).to_pylist():
        data = (dataset.shards / row["shard"]).read_bytes()
        text = data[row["txt_offset"] : row["txt_offset"] + row["txt_size"]].decode()
        found[row["key"]] = text, decode_json(data[row["json_offset"] : row["json_offset"] + row["json_size"]])
    text, said = found.pop(image["large"])
    assert (text, said["caption_raw"], said["caption_raw_from"]) == (WORDS, WORDS, image["small1"])
    assert (said["caption_original"], said["caption_raw_reason"]) == ("DSC_0001.JPG", None)
    assert (said["url"], said["license"]) == ("https://a.example/large", "CC0")
    assert {said["caption_raw_from"] for _, said in found.values()} == {None}
    assert len(found) == 3


def test_without_the_knob_no_caption_is_taken_over(dataset: Dataset) -> None:
    root = dataset.root.parent
    without = build(made(root, "without", select={"inherit_captions": False}), upto="mix")[0]
    assert [row["inherited_caption"] for row in rows(without, "selection")] == [None] * 6
    mixed = next(row for row in rows(without, "mix") if row["image_id"] == ids(dataset)["large"])
    assert mixed["caption"] != WORDS and mixed["fallback"] == "raw_refused"


def test_other_names_and_parts_give_the_same_captions(dataset: Dataset, tmp_path: Path) -> None:
    """The names turn the order of the listing around, the parts another way of cutting it."""
    write_photos(tmp_path / "photos")
    for name in sorted(tmp_path.glob("photos/*"), reverse=True):
        turned = "".join(chr(ord("a") + ord("z") - ord(c)) if c.isalpha() else c for c in name.stem)
        name.rename(name.with_stem(turned))
    turned_around = build(recipe(tmp_path / "photos", tmp_path / "out", part_rows=4), upto="select")[0]

    def taken(found: Dataset) -> set[tuple[Any, ...]]:
        return {(row["image_id"], row["kept"], row["inherited_caption"], row["inherited_from"])
                for row in rows(found, "selection")}  # fmt: skip

    assert taken(turned_around) == taken(dataset)


def test_a_caption_of_a_purged_picture_goes_from_whoever_took_it_over(dataset: Dataset, tmp_path: Path) -> None:
    image = ids(dataset)
    copy = Dataset(tmp_path / "copy")
    shutil.copytree(dataset.root, copy.root)
    plan = DataRecipe.load(copy.recipe, [f"out={copy.root}"])
    steps = order.pipeline(plan)
    found = find(copy, Wanted(image_ids=(image["small1"],)), "asked")
    assert found.num_inheriting == 1
    purge(copy, steps, found)
    said = [path for path in copy.root.rglob("*") if path.is_file() and WORDS.encode() in path.read_bytes()]
    said += [table for table in SCHEMAS if copy.record(table) and WORDS in repr(rows(copy, table))]
    assert said == []
    nouns = [row["nouns"] for row in rows(copy, "nouns") if row["image_id"] == image["large"]]
    assert nouns == [None, None]
    with catalog.connect(copy) as connection:
        states = dict(connection.execute("SELECT image_id, outcome FROM ledger").fetchall())
    assert (states[image["small1"]], states[image["large"]]) == ("purged", "pending")
    assert image["large"] not in read_index(copy.shards)["key"].to_pylist()
    build(plan, without=())
    mixed = next(row for row in rows(copy, "mix") if row["image_id"] == image["large"])
    assert mixed["caption"] == "A lighthouse."
    sample = next(row for row in rows(copy, "shard_plan") if row["image_id"] == image["large"])
    assert sample["raw_caption_from"] == image["small2"]
    assert image["large"] in read_index(copy.shards)["key"].to_pylist()
    assert [finding for finding in check_dataset(copy.root) if not finding.fine] == []
