from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from aiohttp import web

from commands import order
from curation.dedup.fingerprint import phash
from curation.ingest.takedown_log import read_log
from curation.shards.rewriter import members_of
from curation.upkeep.doctor import check_dataset
from curation.upkeep.find import Wanted, find
from curation.upkeep.purge import purge, show_and_purge
from engine import catalog
from engine.dataset import Dataset, commit_table
from engine.paid import Paid, paid_files
from schemas.features import RECORD_FILE
from schemas.recipe import DataRecipe, Run
from schemas.shard_index import read_index
from tests.building import build, computed, picture, put, recipe, rows, write_pictures
from tests.captioning.chat_server import ChatServer, completion
from tests.processes import run_python
from tests.trees import content, sigma

pytestmark = pytest.mark.slow

WHY = "the photographer asked"


async def describe(server: ChatServer, request: web.Request, text: str, times: int) -> web.StreamResponse:
    return completion("A striped zebra on a lawn.")


@pytest.fixture(scope="module")
def server() -> Iterator[ChatServer]:
    with ChatServer(dict.fromkeys(range(0, 280, 20), describe)) as serving:
        yield serving


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, server: ChatServer) -> Dataset:
    """Nine pictures of two hosts in two buckets, one of them twice, with two captioners; not to be changed."""
    folder = tmp_path_factory.mktemp("made")
    names = write_pictures(folder / "photos", [(96, 64)] * 5 + [(64, 96)] * 3, captions=False)
    shutil.copy(folder / "photos" / "001.jpg", folder / "photos" / "copy.jpg")
    for number, name in enumerate([*names, "copy.jpg"]):
        beside = {
            "caption": f"Secret words {number} of this picture.",
            "url": f"https://{'a.' if number % 2 else ''}example.org/{name}",
        }
        (folder / "photos" / name).with_suffix(".json").write_text(json.dumps(beside))
    captioners = {"beside": ["endpoint"], "endpoint": {"url": server.url, "model": "m", "concurrency": 1}}
    made = recipe(folder / "photos", folder / "dataset", shard={"max_samples": 3}, caption=captioners)
    return build(made, without=())[0]


@pytest.fixture
def dataset(made: Dataset, copy_of: Callable[[Dataset], Dataset]) -> Dataset:
    copy = copy_of(made)
    catalog.write_catalog(copy)
    return copy


def recipe_of(dataset: Dataset) -> DataRecipe:
    return DataRecipe.load(dataset.recipe, [f"out={dataset.root}"])


def take_out(dataset: Dataset, **wanted: Any) -> int:
    found = find(dataset, Wanted(**wanted), WHY)
    return purge(dataset, order.pipeline(recipe_of(dataset)), found)


def image_of(dataset: Dataset, member: str) -> dict[str, Any]:
    return next(row for row in rows(dataset, "images") if row["member"] == member)


def everything(dataset: Dataset) -> bytes:
    """All that a dataset says, decompressed: tables as text, shards as they are."""
    said = [repr(rows(dataset, table)).encode() for table in dataset.held().tables()]
    return b"".join(said + [path.read_bytes() for path in sorted(dataset.root.rglob("*.tar"))])


def bad(dataset: Dataset) -> list[Any]:
    return [finding for finding in check_dataset(dataset.root) if not finding.fine]


def test_nothing_of_a_purged_picture_is_left(dataset: Dataset) -> None:
    image = image_of(dataset, "003.jpg")
    jpeg = next(row["jpeg"] for row in rows(dataset, "proxies") if row["row_id"] == image["row_id"])
    before = everything(dataset)
    assert repr(jpeg).encode()[2:-1] in before and b"Secret words 3" in before and b"a.example.org/003" in before
    take_out(dataset, image_ids=(image["image_id"],))
    after = everything(dataset)
    original = (Path(image["source"]) / "003.jpg").read_bytes()
    assert original in before and original not in after
    assert (
        repr(jpeg).encode()[2:-1] not in after and b"Secret words 3" not in after and b"a.example.org/003" not in after
    )
    assert after.count(b"Secret words 4") == before.count(b"Secret words 4") > 0
    assert b"Secret words 3" not in b"".join(path.read_bytes() for path in dataset.root.rglob("*") if path.is_file())


def test_its_row_stays_in_the_ledger_and_the_counts_conserve(dataset: Dataset) -> None:
    image = image_of(dataset, "003.jpg")
    take_out(dataset, image_ids=(image["image_id"],))
    with catalog.connect(dataset) as connection:
        found = connection.execute(
            "SELECT row_id, outcome, stage, reason, detail, image_id FROM ledger WHERE member = '003.jpg'"
        ).fetchall()
        total = connection.execute("SELECT count(*) FROM ledger").fetchone()
    assert found == [(image["row_id"], "purged", "purge", "purged", WHY, image["image_id"])]
    assert total == (9,)
    row = next(row for row in rows(dataset, "selection") if row["row_id"] == image["row_id"])
    assert (row["rejected_by"], row["kept"], row["subsets"]) == ("purged", False, [])
    assert next(row["reason"] for row in rows(dataset, "captions") if row["row_id"] == image["row_id"]) == "purged"
    entry = read_log(dataset)[0]
    assert (entry.row_id, entry.sha256, entry.why, entry.finished) == (image["row_id"], image["sha256"], WHY, True)
    assert (entry.matched_by, entry.name) == (f"image_id={image['image_id']}", "photos/003.jpg")


def test_only_the_shard_that_held_it_is_rewritten_and_its_other_members_are_the_same_bytes(dataset: Dataset) -> None:
    samples = {row["key"]: row for row in read_index(dataset.shards).to_pylist()}
    key = image_of(dataset, "003.jpg")["image_id"]
    tars = {path: (path.stat().st_ino, path.read_bytes()) for path in dataset.shards.glob("*/*.tar")}
    assert take_out(dataset, image_ids=(key,)) == 1
    held = dataset.shards / samples[key]["shard"]
    assert {path for path, (inode, _) in tars.items() if not path.exists() or path.stat().st_ino != inode} == {held}
    now = read_index(dataset.shards).to_pylist()
    assert {row["key"] for row in now} == samples.keys() - {key}
    for row in now:
        old = samples[row["key"]]
        data, was = (dataset.shards / row["shard"]).read_bytes(), tars[dataset.shards / old["shard"]][1]
        for member in ("image", "txt", "json"):
            assert row[f"{member}_size"] == old[f"{member}_size"]
            here, there, size = row[f"{member}_offset"], old[f"{member}_offset"], row[f"{member}_size"]
            assert data[here - 512 : here + size] == was[there - 512 : there + size]
    assert key not in {member.key for member in members_of(held)}
    wids = json.loads((dataset.shards / "wids.json").read_text())
    assert sum(entry["nsamples"] for entry in wids["shardlist"]) == len(now) == len(samples) - 1
    assert {entry["url"]: entry["filesize"] for entry in wids["shardlist"]} == {
        str(path.relative_to(dataset.shards)): path.stat().st_size for path in dataset.shards.glob("*/*.tar")
    }


def test_the_statistics_are_those_of_what_is_left(dataset: Dataset) -> None:
    before = {row["caption_source"]: row["num_images"] for row in rows(dataset, "statistics")}
    take_out(dataset, image_ids=(image_of(dataset, "003.jpg")["image_id"],))
    after = {row["caption_source"]: row["num_images"] for row in rows(dataset, "statistics")}
    assert after == before | {name: before[name] - 1 for name in ("raw", "synthetic", "endpoint", "mix")}


def test_a_build_afterwards_does_nothing_and_doctor_is_happy(dataset: Dataset) -> None:
    take_out(dataset, image_ids=(image_of(dataset, "003.jpg")["image_id"],))
    before = content(dataset.root)
    _, told = build(recipe_of(dataset), without=())
    assert [result for _, result in told.results if result] == []
    assert content(dataset.root) == before
    assert bad(dataset) == []


@pytest.mark.parametrize("job", ["ingest", "select", "shard"])
def test_no_job_brings_it_back(dataset: Dataset, job: str) -> None:
    take_out(dataset, image_ids=(image_of(dataset, "006.jpg")["image_id"],))
    before = everything(dataset)
    _, told = build(recipe_of(dataset), without=(), redo=(job,))
    assert b"Secret words 6" not in everything(dataset)
    assert len(read_index(dataset.shards)) == 7
    assert bad(dataset) == []
    if job == "select":
        assert everything(dataset) == before
        assert computed(told) == {"selection": 3}


def test_the_same_bytes_from_a_source_that_comes_later_are_refused(dataset: Dataset, tmp_path: Path) -> None:
    image = image_of(dataset, "006.jpg")
    take_out(dataset, image_ids=(image["image_id"],))
    (tmp_path / "later").mkdir()
    shutil.copy(Path(image["source"]) / "006.jpg", tmp_path / "later" / "new_name.jpg")
    picture(77).save(tmp_path / "later" / "other.jpg")
    (tmp_path / "later" / "other.txt").write_text("Another picture altogether.")
    sources = [{"path": image["source"]}, {"path": str(tmp_path / "later")}]
    more = DataRecipe.from_mapping(recipe_of(dataset).resolved() | {"images": None, "sources": sources})
    build(more, without=())
    with catalog.connect(dataset) as connection:
        found = dict(connection.execute("SELECT member, outcome FROM ledger WHERE row_id >= 9").fetchall())
    assert found == {"new_name.jpg": "purged", "other.jpg": "kept"}
    assert next(row["jpeg"] for row in rows(dataset, "proxies") if row["row_id"] == 9) is None


def test_bytes_go_wherever_they_lie(dataset: Dataset) -> None:
    assert take_out(dataset, sha256s=(image_of(dataset, "copy.jpg")["sha256"],)) == 1
    gone = {row["member"] for row in rows(dataset, "images") if row["reason"] == "purged"}
    assert gone == {"001.jpg", "copy.jpg"}


def test_a_domain_takes_its_subdomains_and_a_url_only_itself(made: Dataset) -> None:
    assert {entry.name for entry in find(made, Wanted(domains=("a.example.org",)), WHY).entries} == {
        f"photos/00{number}.jpg" for number in (1, 3, 5, 7)
    } | {"photos/copy.jpg"}
    assert find(made, Wanted(domains=("EXAMPLE.org",)), WHY).num_rows == 9
    assert find(made, Wanted(urls=("https://example.org/002.jpg",)), WHY).num_rows == 1
    for nothing in ({"domains": ("ample.org",)}, {"domains": ("org.example",)}, {"urls": ("https://example.org/",)}):
        with pytest.raises(ValueError, match="nothing matches"):
            find(made, Wanted(**nothing), WHY)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org./a.jpg",
        "example.org/a.jpg",
        "//example.org/a.jpg",
        "HTTPS://Example.ORG:8443/a.jpg",
        "example.org:8080/a",
        "https://user:secret@example.org/a.jpg",
        "user@example.org/a",
        "http:\\\\example.org\\a.jpg",
        " https://cdn.example.org?x=1",
        "s3://example.org",
    ],
)
def test_a_host_is_found_however_its_url_is_written(url: str) -> None:
    [(selector, condition, values)] = Wanted(domains=("example.org.",)).conditions()
    assert selector == "domain=example.org"
    sql = f"SELECT {condition} FROM (SELECT ? AS url) AS images, (SELECT NULL AS url) AS listing"
    with duckdb.connect() as connection:
        assert connection.execute(sql, [*values, url]).fetchall() == [(True,)], url
        for other in (
            "https://example.org.evil.com/",
            "https://evil.com/example.org",
            "myexample.org/a",
            "a?example.org",
        ):
            assert connection.execute(sql, [*values, other]).fetchall() == [(False,)], other


def test_the_beginning_of_an_image_id_stands_for_the_whole(made: Dataset) -> None:
    whole = image_of(made, "002.jpg")["image_id"]
    [entry] = find(made, Wanted(image_ids=(whole[:8].upper(),)), WHY).entries
    assert (entry.image_id, entry.matched_by) == (whole, f"image_id={whole}")
    with pytest.raises(ValueError, match="nothing matches image_id=00000000"):
        find(made, Wanted(image_ids=("0" * 8,)), WHY)


def test_the_beginning_of_several_image_ids_is_refused(dataset: Dataset) -> None:
    images = dataset.read_part("images", 0)
    place = images.schema.get_field_index("image_id")
    ids = pa.array([f"{'ab' * 15}{number:02d}" for number in range(images.num_rows)])
    put(dataset, "images", 0, images.set_column(place, images.schema.field(place), ids))
    with pytest.raises(ValueError, match=r"image_id=abababab begins several, such as (ab){15}00 and "):
        find(dataset, Wanted(image_ids=("ab" * 4,)), WHY)


def test_everything_of_a_domain_goes_shards_and_all(dataset: Dataset) -> None:
    take_out(dataset, domains=("a.example.org",))
    kept = {row["member"] for row in rows(dataset, "images") if row["reason"] is None}
    assert kept == {"000.jpg", "002.jpg", "004.jpg", "006.jpg"}
    assert len(read_index(dataset.shards)) == 4
    assert bad(dataset) == []
    assert [result for _, result in build(recipe_of(dataset), without=())[1].results if result] == []


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_shard_may_lose_its_last_sample(dataset: Dataset, number: int) -> None:
    names = sorted({row["shard"] for row in read_index(dataset.shards).to_pylist()})
    keys = tuple(row["key"] for row in read_index(dataset.shards).to_pylist() if row["shard"] == names[number])
    take_out(dataset, image_ids=keys)
    assert not (dataset.shards / names[number]).exists()
    assert {row["shard"] for row in read_index(dataset.shards).to_pylist()} == set(names) - {names[number]}
    assert bad(dataset) == []
    assert [result for _, result in build(recipe_of(dataset), without=())[1].results if result] == []


def test_pictures_that_look_like_it_go_and_are_refused_later(dataset: Dataset, tmp_path: Path) -> None:
    looks = f"{next(row['phash'] for row in rows(dataset, 'fingerprints') if row['row_id'] == 4):016x}"
    take_out(dataset, phashes=(looks,), distance=3)
    source = image_of(dataset, "004.jpg")["source"]
    assert image_of(dataset, "004.jpg")["reason"] == "purged"
    (tmp_path / "later").mkdir()
    picture(4, 192, 128).save(tmp_path / "later" / "larger.png")
    assert (phash(picture(4, 192, 128)) ^ int(looks, 16)).bit_count() <= 3
    picture(78).save(tmp_path / "later" / "other.png")
    sources = [{"path": source}, {"path": str(tmp_path / "later")}]
    build(DataRecipe.from_mapping(recipe_of(dataset).resolved() | {"images": None, "sources": sources}), upto="ingest")
    assert {row["member"]: row["reason"] for row in rows(dataset, "images")[9:]} == {
        "larger.png": "purged",
        "other.png": None,
    }


def test_a_hash_that_nothing_matches_is_refused_in_future(dataset: Dataset) -> None:
    found = find(dataset, Wanted(sha256s=("ab" * 32,)), WHY)
    assert (found.num_rows, found.entries[0].image_id) == (0, "ab" * 16)
    before = content(dataset.root)
    purge(dataset, order.pipeline(recipe_of(dataset)), found)
    assert content(dataset.root) == before
    assert find(dataset, Wanted(sha256s=("ab" * 32,)), WHY).entries == []


def test_the_same_takedown_twice_is_one(dataset: Dataset) -> None:
    take_out(dataset, urls=("https://example.org/002.jpg",))
    before = content(dataset.root)
    again = find(dataset, Wanted(urls=("https://example.org/002.jpg",)), WHY)
    assert again.entries == []
    take_out(dataset, image_ids=(image_of(dataset, "002.jpg")["image_id"],))
    assert content(dataset.root) == before
    assert len(read_log(dataset)) == 1


@pytest.mark.parametrize(
    ("wanted", "complaint"),
    [
        ({}, "say what to take out"),
        ({"image_ids": ("xyz",)}, "32 hex digits"),
        ({"sha256s": ("ab" * 16,)}, "64 hex digits"),
        ({"phashes": ("12",)}, "16 hex digits"),
        ({"phashes": ("ab" * 8,), "distance": 40}, "0 to 16 bits"),
        ({"domains": ("https://example.org/x",)}, "without scheme"),
    ],
)
def test_what_is_no_selector_is_refused(made: Dataset, wanted: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        find(made, Wanted(**wanted), WHY)


def test_near_doubles_stay_out_unless_they_are_asked_for(tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos", [(96, 64)] * 3)
    picture(0, 48, 32).save(tmp_path / "photos" / "small.png")
    dataset, _ = build(recipe(tmp_path / "photos", tmp_path / "dataset"))
    key = image_of(dataset, "000.jpg")["image_id"]
    found = find(dataset, Wanted(image_ids=(key,)), WHY)
    assert (found.num_rows, found.num_beside) == (1, 1)
    both = find(dataset, Wanted(image_ids=(key,), duplicates=True), WHY)
    assert {entry.name for entry in both.entries} == {"photos/000.jpg", "photos/small.png"}
    take_out(dataset, image_ids=(key,))
    assert len(read_index(dataset.shards)) == 2


def test_what_was_kept_aside_is_cleaned_too(dataset: Dataset) -> None:
    image = image_of(dataset, "003.jpg")
    other = image_of(dataset, "004.jpg")
    captions, paid = dataset.read_part("captions", 1), Paid.of(dataset, "captions", 1)
    paid.note(captions)
    outdated = dataset.commit_part("captions", 1, "1" * 12, captions)
    assert [table for table, _ in paid_files(dataset, [1])].count("captions") == 2
    dataset.report.write_text("a page with pictures")
    held = next(row["shard"] for row in read_index(dataset.shards).to_pylist() if row["key"] == image["image_id"])
    features = dataset.root / "features" / "latents-x"
    for name, keys in ((held, [image["image_id"]]), ("9.0/9.0-000000.tar", [other["image_id"]])):
        commit_table(
            (features / name).with_suffix(".parquet"), pa.table({"key": keys}), pa.schema([("key", pa.string())]), {}
        )
        (features / name).write_bytes(b"arrays")
    (features / RECORD_FILE).write_text("{}")
    deleted = dataset.root / "features" / ".tmp-9latents-y" / held  # by an encode that was killed at it
    begun = features / ".tmp-9-0.tar"
    for path in (deleted, begun):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"arrays of a picture that goes")
    take_out(dataset, image_ids=(image["image_id"],))
    assert [path.name for path in (dataset.root / "features").iterdir()] == ["latents-x"] and not begun.exists()
    for kept in (paid.earlier(), paid.noted()):
        assert kept["row_id"].to_pylist() == [4, 5]
    assert not outdated.exists()
    assert not dataset.report.exists()
    assert sorted(str(path.relative_to(features)) for path in features.glob("*/*")) == [
        "9.0/9.0-000000.parquet",
        "9.0/9.0-000000.tar",
    ]


def test_a_build_that_was_not_finished_can_be_purged(tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos", [(96, 64)] * 6)
    made = recipe(tmp_path / "photos", tmp_path / "dataset")
    dataset, _ = build(made, upto="dedup")
    dataset.part("scores", 1).unlink()
    take_out(dataset, image_ids=(image_of(dataset, "004.jpg")["image_id"],))
    build(made)
    assert len(read_index(dataset.shards)) == 5
    assert bad(dataset) == []


# ------------------------------------------------------------------------------------------------ the command


def test_the_command_shows_then_takes_out(dataset: Dataset) -> None:
    before = content(dataset.root)
    dry = sigma("purge", dataset.root, "--url", "https://example.org/002.jpg", "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert "photos/002.jpg" in dry.stdout and "1 input would be taken out" in dry.stdout
    assert content(dataset.root) == before
    unsaid = sigma("purge", dataset.root, "--url", "https://example.org/002.jpg")
    assert unsaid.returncode == 1 and "--why is missing" in unsaid.stderr
    done = sigma("purge", dataset.root, "--url", "https://example.org/002.jpg", "--why", WHY)
    assert done.returncode == 0, done.stderr
    assert "1 input taken out, 1 shard rewritten" in done.stdout
    assert "purged" in sigma("status", dataset.root).stdout


KILLED = """
import os, signal, sys
from pathlib import Path
import sigma
left, rename = int(sys.argv.pop(1)), Path.rename
def counted(path, target):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(path, target)
Path.rename = counted
sigma.main()
"""
"""Runs the command and kills it, as kill -9 does, when it is about to give the n-th file its name."""


def test_killed_at_many_points_a_takedown_is_finished_by_the_next_one(made: Dataset, tmp_path: Path) -> None:
    shutil.copytree(made.root, tmp_path / "whole")
    whole = Dataset(tmp_path / "whole")
    take_out(whole, domains=("a.example.org",))
    expected = content(whole.root)
    for num_renamed in (2, 18, 36, 39):  # the first is the catalog of the copied dataset
        dataset = Dataset(tmp_path / str(num_renamed))
        shutil.copytree(made.root, dataset.root)
        command_line = ["purge", dataset.root, "--domain", "a.example.org", "--why", WHY]
        done = run_python("-c", KILLED, str(num_renamed), *command_line)
        assert done.returncode == -signal.SIGKILL, f"it renames no {num_renamed} files any more"
        assert content(dataset.root) != expected
        with pytest.raises(ValueError, match=r"finish it first: sigma purge .* --resume"):
            build(recipe_of(dataset))
        told = list(show_and_purge(dataset, order.pipeline(recipe_of(dataset)), None, "", [], False, Run()))
        assert told[0].startswith("finished the takedown")
        assert content(dataset.root) == expected, num_renamed
        assert all(entry.finished for entry in read_log(dataset))
