from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from commands import order
from curation.ingest.takedown_log import write_log
from curation.shards.writer import samples_digest
from curation.upkeep.doctor import check_dataset
from curation.upkeep.find import Wanted, find
from curation.upkeep.repair import repair
from engine import catalog
from engine.dataset import Dataset, commit_table
from engine.names import PartName
from schemas.commit import write_bytes
from schemas.features import RECORD_FILE
from schemas.recipe import DataRecipe
from schemas.shard_index import read_index
from tests.building import LIGHT, Told, build, recipe, rows, write_pictures
from tests.trees import content, sigma

pytestmark = pytest.mark.slow


@pytest.fixture
def dataset(small: Dataset, tmp_path: Path, copy_of: Callable[[Dataset], Dataset]) -> Dataset:
    copy = copy_of(small)
    catalog.write_catalog(copy)
    return copy


def mend(dataset: Dataset) -> list[str]:
    made = DataRecipe.load(dataset.recipe, [f"out={dataset.root}"])
    steps = [step for step in order.pipeline(made) if step.job not in LIGHT]
    return list(repair(made, steps, Told()))


FINE = ["nothing is damaged"]
"""What `mend` gives where doctor finds nothing."""


def bad(dataset: Dataset) -> list[Any]:
    return [finding for finding in check_dataset(dataset.root) if not finding.fine]


def flip(path: Path, place: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1]))


def first(dataset: Dataset) -> dict[str, Any]:
    row: dict[str, Any] = read_index(dataset.shards).to_pylist()[0]
    return row


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


INDEXES = {"shards/index.parquet", "shards/wids.json", "shards/README.md"}

DAMAGES: dict[str, tuple[Callable[[Dataset], None], set[str]]] = {
    "cut part": (lambda d: cut(d.part("scores", 1)), {"scores 1"}),
    "flipped byte in a part": (
        lambda d: flip(d.part("proxies", 1), d.part("proxies", 1).read_bytes().index(b"\xff\xd8\xff") + 300),
        {"proxies 1", "images 1"},
    ),
    "empty caption part": (lambda d: d.part("captions", 0).write_bytes(b""), {"captions 0"}),
    "missing part": (lambda d: d.part("mix", 2).unlink(), {"mix 2"}),
    "cut selection": (lambda d: cut(d.part("selection", 1)), {"selection 1"}),
    "missing plan": (lambda d: d.part("shard_plan", 0).unlink(), {"shard_plan 0"}),
    "missing record": (
        lambda d: d.record_path("fingerprints").unlink(),
        {"tables/.records/fingerprints.json"},
    ),
    "damaged record": (
        lambda d: cut(d.record_path("scores")),
        {"tables/.records/scores.json"},
    ),
    "flipped byte in a picture": (
        lambda d: flip(d.shards / first(d)["shard"], first(d)["image_offset"] + 200),
        {"shard", "sample", *INDEXES},
    ),
    "flipped byte in a text": (
        lambda d: flip(d.shards / first(d)["shard"], first(d)["txt_offset"] + 3),
        {"shard", "sample", *INDEXES},
    ),
    "flipped byte inside a json": (
        lambda d: flip(d.shards / first(d)["shard"], first(d)["json_offset"] + first(d)["json_size"] - 3),
        {"shard", "sample", *INDEXES},
    ),
    "bytes behind the end": (
        lambda d: (d.shards / first(d)["shard"]).open("ab").write(b"x") and None,
        {"shard", "sample", *INDEXES},
    ),
    "deleted tar": (lambda d: (d.shards / first(d)["shard"]).unlink(), {"shard", "sample", *INDEXES}),
    "cut samples": (lambda d: cut(d.part("samples", 0)), {"shard", "sample", *INDEXES}),
    "index of other places": (
        lambda d: commit_table(
            d.shards / "index.parquet",
            (index := read_index(d.shards)).set_column(
                index.schema.get_field_index("aesthetic"), "aesthetic", [[9.0] * len(index)]
            ),
            index.schema,
            {"sigma.samples": samples_digest(d.held())},
        ),
        INDEXES,
    ),
    "damaged wids": (lambda d: cut(d.shards / "wids.json"), INDEXES),
    "stray files": (lambda d: write_bytes(d.shards / "1.5" / ".tmp-1-1.5-000000.tar", b""), set()),
    "stale catalog": (lambda d: d.catalog.write_bytes(b"no database"), set()),
}


def short(file: str) -> str:
    """The table and number of a part; any other file as it is."""
    name = PartName.parse(Path(file).name)
    return file if name is None else f"{Path(file).parent.name} {name.number}"


@pytest.mark.parametrize("damage", DAMAGES)
def test_it_makes_again_what_is_broken_and_touches_nothing_else(dataset: Dataset, damage: str) -> None:
    break_it, expected = DAMAGES[damage]
    whole = content(dataset.root)
    names = {f"shards/{first(dataset)['shard']}": "shard", "samples 0": "sample"}
    break_it(dataset)
    inodes = {path: path.stat().st_ino for path in dataset.root.rglob("*") if path.is_file()}
    told = mend(dataset)
    assert told != FINE
    assert content(dataset.root) == whole, told
    touched = {
        str(p.relative_to(dataset.root)) for p, inode in inodes.items() if not p.exists() or p.stat().st_ino != inode
    }
    touched -= {"recipe.yaml", "catalog.duckdb", ".ledger"} | {name for name in touched if ".tmp-" in name}
    touched = {names.get(name, name) for name in map(short, touched)}
    assert touched <= expected, touched
    assert mend(dataset) == FINE


@pytest.mark.parametrize("other", [None, "mix"])
def test_rows_that_were_paid_for_are_taken_back_from_their_table(dataset: Dataset, other: str | None) -> None:
    (path,) = (dataset.root / "paid" / "captions").glob("part-00000.*")
    whole = path.read_bytes()
    path.unlink()
    path.write_bytes(whole[:-20] if other is None else dataset.part(other, 0).read_bytes())
    assert [finding.subject for finding in check_dataset(dataset.root) if not finding.fine] == ["paid"]
    mend(dataset)
    assert path.read_bytes() == whole
    assert mend(dataset) == FINE


def test_all_at_once(dataset: Dataset) -> None:
    whole = content(dataset.root)
    for damage in (
        "cut part",
        "cut selection",
        "flipped byte in a picture",
        "missing part",
        "cut samples",
        "damaged wids",
    ):
        DAMAGES[damage][0](dataset)
    mend(dataset)
    assert bad(dataset) == []
    assert content(dataset.root) == whole


@pytest.fixture
def without_originals(tmp_path: Path) -> Dataset:
    write_pictures(tmp_path / "photos", [(96, 64)] * 4)
    dataset, _ = build(recipe(tmp_path / "photos", tmp_path / "dataset"))
    shutil.rmtree(tmp_path / "photos")
    return dataset


@pytest.mark.parametrize("also", [None, "samples"])
def test_without_originals_the_damaged_shard_gives_what_it_holds(without_originals: Dataset, also: str | None) -> None:
    dataset, row = without_originals, first(without_originals)
    before = {sample["key"]: sample for sample in read_index(dataset.shards).to_pylist()}
    data = (dataset.shards / row["shard"]).read_bytes()
    name = next(r["member"] for r in rows(dataset, "images") if r["image_id"] == row["key"])
    flip(dataset.shards / row["shard"], row["image_offset"] + 200)
    if also:
        cut(dataset.part("samples", 0))
    told = mend(dataset)
    assert any("lost 1 sample," in line and f"photos/{name}" in line for line in told), told
    left = read_index(dataset.shards).to_pylist()
    assert {sample["key"] for sample in left} == before.keys() - {row["key"]}
    now = (dataset.shards / row["shard"]).read_bytes()
    for sample in left:
        old = before[sample["key"]]
        stored = data[old["image_offset"] : old["image_offset"] + old["image_size"]]
        assert now[sample["image_offset"] :][: sample["image_size"]] == stored


def test_a_damaged_part_of_ingest_stays_where_its_originals_are_gone(without_originals: Dataset) -> None:
    dataset = without_originals
    cut(dataset.part("proxies", 1))
    before = content(dataset.root)
    told = mend(dataset)
    assert any("cannot be made again, 1 originals are gone: photos/003.jpg" in line for line in told), told
    assert content(dataset.root) == before
    assert [finding.subject for finding in bad(dataset)] == ["proxies"]


def test_a_listing_is_never_deleted(dataset: Dataset) -> None:
    cut(dataset.part("listing", 1))
    with pytest.raises(ValueError, match="listing"):
        mend(dataset)
    assert dataset.part("listing", 1).is_file()


def test_features_that_do_not_fit_go(dataset: Dataset) -> None:
    places = (dataset.root / "features" / "latents-x" / first(dataset)["shard"]).with_suffix(".parquet")
    table = dataset.read_part("samples", 0).select(["key"])
    for tar_bytes, fine in ((6, True), (7, False)):
        commit_table(places, table, table.schema, {"sigma.tar_bytes": str(tar_bytes)})
        places.with_suffix(".tar").write_bytes(b"arrays")
        (places.parents[1] / RECORD_FILE).write_text('{"made_by": {}}')
        assert ([finding.subject for finding in bad(dataset)] == []) is fine
    mend(dataset)
    assert not places.exists() and not places.with_suffix(".tar").exists()
    assert bad(dataset) == []


def test_an_interrupted_takedown_is_finished(dataset: Dataset) -> None:
    write_log(dataset, find(dataset, Wanted(image_ids=(first(dataset)["key"],)), "asked").entries)
    cut(dataset.part("scores", 0))
    assert {finding.subject for finding in bad(dataset)} == {"scores", "takedowns"}
    mend(dataset)
    assert bad(dataset) == []
    assert len(read_index(dataset.shards)) == 7


def test_the_command_exits_with_1_while_damage_stays(dataset: Dataset) -> None:
    cut(dataset.part("scores", 1))
    found = sigma("doctor", dataset.root)
    assert found.returncode == 1 and "bad scores" in found.stdout
    mended = sigma("doctor", dataset.root, "--repair")
    assert mended.returncode == 0, mended.stdout + mended.stderr
    assert "scores: took away tables/scores/part-00001." in mended.stdout
    assert "aesthetic: made 1 of 3 parts again" in mended.stdout
