from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation import catalog
from curation.dataset import Dataset, commit_table, write_atomically
from curation.doctor import Finding, check_dataset, check_machine
from schemas.shard_index import read_index
from schemas.tables import SCHEMAS
from tests.building import build, recipe, write_pictures


@pytest.fixture
def dataset(demo: Dataset, copy_of: Callable[[Dataset], Dataset]) -> Dataset:
    copy = copy_of(demo)
    catalog.write_catalog(copy)  # its views name absolute paths
    return copy


def bad(dataset: Dataset) -> list[Finding]:
    return [finding for finding in check_dataset(dataset.root) if not finding.fine]


def only(dataset: Dataset) -> Finding:
    found = bad(dataset)
    assert len(found) == 1, found
    return found[0]


def a_tar(dataset: Dataset) -> Path:
    return sorted(dataset.shards.glob("*/*.tar"))[0]


def test_a_whole_dataset_is_fine(demo: Dataset) -> None:
    found = {finding.subject: finding for finding in check_dataset(demo.root)}
    assert all(finding.fine for finding in found.values())
    assert found["images"].text == "2 of 2 parts"
    assert found["selection"].text == "there"
    assert found["shards"].text.endswith("15 samples; wids index there")
    assert found["ledger"].text == "22 rows for 22 inputs"
    assert set(found) == {*SCHEMAS, "shards", "ledger"}


def test_a_half_built_dataset_is_fine(tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos", [(20, 10)] * 4)
    dataset, _ = build(recipe(tmp_path / "photos", tmp_path / "ds"), upto="select")
    found = {finding.subject: finding.text for finding in check_dataset(dataset.root)}
    assert bad(dataset) == []
    assert (found["captions"], found["samples"]) == ("0 of 2 parts", "0 of 0 parts")
    assert (found["selection"], found["shard_plan"]) == ("there", "not computed yet")


def test_a_folder_without_a_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no dataset here"):
        check_dataset(tmp_path)


# ------------------------------------------------------------------------------------------------ tables


@pytest.mark.parametrize("table", ["images", "proxies", "scores", "captions", "nouns", "samples"])
def test_a_truncated_part_is_named(dataset: Dataset, table: str) -> None:
    path = dataset.part(table, 0)
    path.write_bytes(path.read_bytes()[:-20])
    found = only(dataset)
    assert found == Finding(table, f"{path} is damaged (1 damaged): delete it and run sigma build again", fine=False)


def test_a_damaged_listing_is_not_to_be_deleted(dataset: Dataset) -> None:
    path = dataset.part("listing", 1)
    path.write_bytes(b"")
    found = only(dataset)
    assert (found.subject, found.text) == ("listing", f"{path} is damaged (1 damaged): put it back from a copy")


@pytest.mark.parametrize("table", ["selection", "duplicates", "statistics", "shard_plan"])
def test_a_truncated_reduce_table_is_named(dataset: Dataset, table: str) -> None:
    path = dataset.reduced(table)
    path.write_bytes(path.read_bytes()[:100])
    found = only(dataset)
    assert (found.subject, found.text) == (table, f"{path} is damaged: delete it and run sigma build again")


def test_a_flipped_byte_in_a_part_is_named(dataset: Dataset) -> None:
    path = dataset.part("proxies", 1)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    assert only(dataset).text.startswith(f"{path} is damaged")


def test_what_doctor_says_mends_a_part(tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos", [(20, 10)] * 5)
    made = recipe(tmp_path / "photos", tmp_path / "ds")
    dataset, _ = build(made)
    for path in (dataset.part("images", 1), dataset.part("samples", 0), dataset.reduced("selection")):
        path.write_bytes(path.read_bytes()[:60])
        assert "delete it and run sigma build again" in only(dataset).text
        path.unlink()
        build(made)
        assert bad(dataset) == []


def test_a_missing_part_is_named(dataset: Dataset) -> None:
    dataset.part("scores", 0).unlink()
    assert only(dataset) == Finding("scores", "1 of 2 parts: run sigma build again to finish", fine=False)


def test_other_columns_are_named(dataset: Dataset) -> None:
    path = dataset.part("mix", 0)
    pq.write_table(pa.table({"row_id": [1]}), path)
    assert only(dataset).text.startswith(f"{path} has other columns than its table")


def test_a_part_that_is_there_twice_is_found_by_the_ledger(dataset: Dataset) -> None:
    commit_table(dataset.part("images", 1), dataset.read_part("images", 0), SCHEMAS["images"], {})
    found = only(dataset)
    assert found.subject == "ledger"
    assert found.text.endswith("rows for 22 inputs")


# ------------------------------------------------------------------------------------------------ files


def test_half_written_files_are_named_once(dataset: Dataset) -> None:
    stray = a_tar(dataset).with_name(".tmp-4711-0.5-000000.tar")
    stray.write_bytes(b"half")
    found = only(dataset)
    assert (found.subject, found.text) == (
        "half-written files",
        f"1, e.g. {stray}: the next sigma build sweeps them",
    )


def test_a_tar_that_no_table_knows_is_named(dataset: Dataset) -> None:
    stray = a_tar(dataset).with_name("0.5-000099.tar")
    stray.write_bytes(a_tar(dataset).read_bytes())
    found = only(dataset)
    assert (found.subject, found.text) == (
        "unknown shards",
        f"1, e.g. {stray}: no table knows them; delete them",
    )


# ------------------------------------------------------------------------------------------------ shards


def name_of(dataset: Dataset, tar: Path) -> str:
    return str(tar.relative_to(dataset.shards))


def test_a_deleted_shard_is_named(dataset: Dataset) -> None:
    tar = a_tar(dataset)
    tar.unlink()
    found = only(dataset)
    assert (found.subject, found.text) == (
        name_of(dataset, tar),
        "missing; sigma doctor --repair writes it again",
    )


@pytest.mark.parametrize(
    ("keep", "problem"), [(-512, "is cut short"), (-1024, "is cut short"), (700, "does not hold"), (0, "does not hold")]
)
def test_a_truncated_shard_is_named(dataset: Dataset, keep: int, problem: str) -> None:
    tar = a_tar(dataset)
    tar.write_bytes(tar.read_bytes()[:keep])
    found = only(dataset)
    assert found.subject == name_of(dataset, tar)
    assert found.text.startswith(problem)


@pytest.mark.parametrize("member", ["image", "txt", "json"])
@pytest.mark.parametrize("place", [0, 130, 500])
def test_a_flipped_byte_in_a_header_is_named(dataset: Dataset, member: str, place: int) -> None:
    row = read_index(dataset.shards).to_pylist()[1]
    tar = dataset.shards / row["shard"]
    data = bytearray(tar.read_bytes())
    data[row[f"{member}_offset"] - 512 + place] ^= 4
    tar.write_bytes(bytes(data))
    extension = row["image_ext"] if member == "image" else member
    found = only(dataset)
    assert (found.subject, found.text) == (
        row["shard"],
        f"does not hold {row['key']}.{extension} where the index says; sigma doctor --repair writes it again",
    )


def test_a_damaged_json_is_named(dataset: Dataset) -> None:
    row = read_index(dataset.shards).to_pylist()[0]
    tar = dataset.shards / row["shard"]
    data = bytearray(tar.read_bytes())
    data[row["json_offset"]] = 0
    tar.write_bytes(bytes(data))
    assert only(dataset).text.startswith(f"{row['key']}.json is damaged")


def test_a_json_of_another_image_is_named(dataset: Dataset) -> None:
    row = read_index(dataset.shards).to_pylist()[0]
    tar = dataset.shards / row["shard"]
    data = tar.read_bytes().replace(f'"image_id":"{row["key"]}"'.encode(), f'"image_id":"{"0" * 32}"'.encode())
    tar.write_bytes(data)
    assert only(dataset).text.startswith(f"{row['key']}.json speaks of another image")


@pytest.mark.parametrize("damage", ["deleted", "cut short"])
def test_a_damaged_index_is_named(dataset: Dataset, damage: str) -> None:
    path = dataset.shards / "index.parquet"
    if damage == "deleted":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:90])
    found = only(dataset)
    assert found.subject == "shards"
    assert found.text.startswith(f"{path}: ")


def test_a_missing_wids_index_is_named(dataset: Dataset) -> None:
    (dataset.shards / "wids.json").unlink()
    assert only(dataset).text.endswith("wids index missing")


def test_several_problems_are_all_named(dataset: Dataset) -> None:
    dataset.part("images", 0).write_bytes(b"")
    dataset.part("samples", 0).write_bytes(b"")
    a_tar(dataset).unlink()
    write_atomically(dataset.shards / "1.0" / ".tmp-1-x.tar", b"")
    assert {finding.subject for finding in bad(dataset)} == {
        "images",
        "samples",
        "half-written files",
        name_of(dataset, sorted(dataset.root.glob("shards/*"))[0] / a_name(dataset)),
    }


def a_name(dataset: Dataset) -> str:
    first = sorted({row["shard"] for row in read_index(dataset.shards).to_pylist()})[0]
    return Path(first).name


def test_the_machine_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    found = {finding.subject: finding.text for finding in check_machine()}
    assert found["ray"] == "will join head:6379"
    monkeypatch.delenv("RAY_ADDRESS")
    found = {finding.subject: finding.text for finding in check_machine()}
    assert found["ray"] == "will start a cluster on this machine"
    assert set(found) == {"python", "cores", "memory", "free disk here", "accelerator", "ray", "en_core_web_sm"}


def test_a_flipped_byte_inside_an_image_is_found(dataset: Dataset) -> None:
    row = read_index(dataset.shards).to_pylist()[0]
    path = dataset.shards / row["shard"]
    with path.open("r+b") as tar:
        tar.seek(row["image_offset"] + row["image_size"] // 2)
        byte = tar.read(1)[0]
        tar.seek(-1, 1)
        tar.write(bytes([byte ^ 1]))
    assert only(dataset).subject == row["shard"]
    assert "has other bytes than the original" in only(dataset).text
