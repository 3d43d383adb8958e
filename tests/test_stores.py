"""Datasets in an object store: a build there gives the bytes of a local one, whatever happens on the way."""

from __future__ import annotations

import hashlib
import re
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import obstore
import pytest
from obstore.exceptions import GenericError
from typer.testing import CliRunner

from commands.front_door import app
from curation.upkeep.doctor import check_dataset
from engine.dataset import Dataset, read_parquet
from engine.pace import commit_times
from engine.place import lease
from engine.place.mirror import Mirror
from engine.place.store import Store, _client
from schemas.files import mount_point, read_file
from schemas.recipe import DataRecipe
from schemas.unread import StoreError
from tests.building import build, computed, put, recipe, rows, table_of, write_pictures
from tests.dying import Died
from tests.engine.flowing import listed
from tests.memory_store import URL, Memory, counted_requests
from tests.storing import Store as Server
from tests.trees import content, sigma, start_sigma
from viewer.cards import proxies

SIZES = [(96, 64), (64, 96), (96, 64), (80, 80), (96, 64), (96, 64), (64, 96)]


@pytest.fixture
def quick_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT_S", 0.1)
    monkeypatch.setattr(lease, "STILL_S", 0.4)


@pytest.fixture
def server(bucket: Server, quick_leases: None) -> Server:
    return bucket


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    write_pictures(folder, SIZES)
    return folder


@pytest.fixture(scope="module")
def few_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Those of one part, for a server that answers slowly."""
    folder = tmp_path_factory.mktemp("few")
    write_pictures(folder, SIZES[:3])
    return folder


@pytest.fixture(scope="module")
def local(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the same recipe writes on a disk."""
    return built_here(photos, tmp_path_factory.mktemp("local") / "dataset")


@pytest.fixture(scope="module")
def few_local(few_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The same of few photos."""
    return built_here(few_photos, tmp_path_factory.mktemp("few_local") / "dataset")


def built_here(photos: Path, out: Path) -> dict[str, str]:
    build(recipe(photos, out))
    return content(out)


def in_store(store: Store, folders: tuple[str, ...] = ("tables", "shards")) -> dict[str, str]:
    """As `tests.trees.content`, of a dataset in a store."""
    found = (each.key for folder in folders for each in store.below(folder))
    return {key: hashlib.sha256(store.get(key)).hexdigest() for key in found}


@pytest.mark.slow
def test_a_build_in_a_store_writes_the_bytes_of_a_local_one_and_nothing_twice(
    server: Server, photos: Path, local: dict[str, str]
) -> None:
    made = stored(photos, "s3://photos/deep/ds")
    build(made)
    store = Store.at("s3://photos/deep/ds")
    assert in_store(store) == local
    assert {*store.names()[0], *store.names()[1]} == {
        ".ledger",
        "tables",
        "shards",
        "paid",
        "runs",
        "recipe.yaml",
    }
    _, told = build(made)
    assert computed(told) == {}
    assert in_store(store) == local


def test_parts_have_the_times_of_their_objects(server: Server) -> None:
    dataset = listed(mount_point("s3://photos/times"), 2)
    assert [abs(time.time() - at) < 60 for at in commit_times(dataset.held(), "listing")] == [True, True]


@pytest.fixture
def memory(quick_leases: None, tmp_path: Path) -> Iterator[Memory]:
    """An empty store in memory."""
    store = Memory()
    with store.used(tmp_path / "scratch"):
        yield store


@pytest.fixture(scope="module")
def whole(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What is in a store after a build."""
    store = Memory()
    with store.used(tmp_path_factory.mktemp("scratch")):
        build(stored(photos))
    return store.objects()


@pytest.fixture
def built(quick_leases: None, whole: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dataset]:
    """A dataset in a store, on a machine that has read nothing of it."""
    with Memory(whole).used(tmp_path_factory.mktemp("scratch")):
        yield Dataset(mount_point(URL))


def stored(photos: Path, out: str = URL, **sections: Any) -> DataRecipe:
    return recipe(photos, Path("x"), **sections).model_copy(update={"out": out})


@pytest.mark.slow
def test_a_build_sends_few_requests_and_one_with_nothing_to_do_fewer(memory: Memory, photos: Path) -> None:
    with counted_requests() as first:
        build(stored(photos))
    with counted_requests() as again:
        build(stored(photos))
    reads = ("get", "get_range", "head", "list", "list_with_delimiter")
    assert first["put"] <= 74 and sum(first[kind] for kind in reads) <= 115, first
    assert again.total() <= 50, again


@pytest.mark.slow
@pytest.mark.parametrize("place", [0, 3, 24, 45])
def test_a_build_that_died_at_a_request_goes_on_to_the_same_bytes(
    quick_leases: None, photos: Path, local: dict[str, str], tmp_path: Path, place: int
) -> None:
    store = Memory()
    with store.used(tmp_path / "one", place), pytest.raises(Died):
        build(stored(photos))
    store = Memory(store.objects() if place else {URL.partition("ket/")[2] + "/.lock": b"{}"})
    with store.used(tmp_path / "another machine"):
        build(stored(photos))
    assert store.content() == local


@pytest.mark.slow
def test_a_tar_that_was_copied_aside_and_not_yet_deleted_is_no_shard(
    quick_leases: None, photos: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    fewer, begun = stored(photos, select={"min_short_side_px": 70}), Memory(whole)
    with begun.used(tmp_path / "scratch"):
        build(fewer, redo=["select"])
    gone = min({key for key in whole if key.endswith(".tar")} - {*begun.objects()})
    aside = gone.replace("shards/", "shards/.previous/")
    killed = Memory(begun.objects() | {gone: whole[gone], aside: whole[gone]})
    with killed.used(tmp_path / "another machine"):
        build(fewer)
    assert killed.content() == begun.content()


def test_a_part_that_another_machine_deleted_is_written_again_whatever_copies_there_are(
    quick_leases: None, photos: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    store = Memory(whole)
    with store.used(tmp_path / "here"):
        dataset = Dataset(mount_point(URL))
        (name,) = (name for name in dataset.held().listed("scores") if name.number == 1)
        rows = dataset.read_part("scores", 1)  # which leaves a copy
        Store.at(URL).delete([f"tables/scores/{name.file}"])  # as a process on another machine does
        dataset.commit_part("scores", 1, name.made_from, rows)
    assert store.objects() == whole


@pytest.mark.parametrize("table", ["images", "proxies", "listing"])
def test_a_store_that_does_not_answer_says_nothing_of_the_parts_in_it(
    built: Dataset, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(get: Any) -> Any:
        def asked(client: Any, key: str, **more: Any) -> Any:
            if f"/tables/{table}/" in key:
                raise GenericError("InternalError")
            return get(client, key, **more)

        return asked

    for name in ("get", "get_range"):
        monkeypatch.setattr(obstore, name, silent(getattr(obstore, name)))
    with pytest.raises(StoreError, match=rf"tables/{table}/part-0000.*InternalError$"):
        built.read_part(table, 0)
    with suppress(StoreError):
        bad = [finding for finding in check_dataset(built.root) if not finding.fine]
        assert bad and not any(finding.remove for finding in bad)


def run(*words: str | Path) -> str:
    """What a command prints, which must succeed."""
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.slow
def test_every_command_reads_a_dataset_in_a_store_and_says_where_it_is(
    built: Dataset, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "7 of 7" not in run("status", "s3://bucket/ds") and "kept" in run("status", "s3://bucket/ds")
    assert "7" in run("sql", "s3://bucket/ds", "SELECT count(*) FROM ledger")
    assert "7" in run("sql", "s3://bucket/ds", "SELECT count(jpeg) FROM proxies", "--format", "csv")
    assert run("report", "s3://bucket/ds") == "report: s3://bucket/ds/report.html\n"
    page = Store.at("s3://bucket/ds").get("report.html").decode()
    assert "s3://bucket/ds" in page and "data:image/jpeg" in page and "sigma-stores" not in page
    assert "bad" not in run("doctor", "s3://bucket/ds")
    assert "kept: 7 now" in run(
        "cuts", "s3://bucket/ds", "select.min_short_side_px=80", "--html", tmp_path / "cuts.html"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["cuts.html"]


def test_a_folder_of_a_store_without_a_dataset_is_named_by_its_address(memory: Memory) -> None:
    done = CliRunner().invoke(app, ["status", "s3://bucket/none"])
    assert done.exit_code == 1
    assert "s3://bucket/none: no dataset here" in done.output and "sigma-stores" not in done.output


def test_other_files_in_the_store_are_left_alone(memory: Memory, photos: Path) -> None:
    Store.at("s3://bucket/mine").put("thesis.txt", b"years of work")
    with pytest.raises(ValueError, match="holds other files and no dataset"):
        build(stored(photos, "s3://bucket/mine"))
    assert [found.key for found in Store.at("s3://bucket/mine").below()] == ["thesis.txt"]


@pytest.mark.parametrize("command", ["build", "plan", "ingest", "ingest --probe-only"])
def test_a_url_list_for_a_dataset_in_a_store_is_refused_before_anything_is_written(
    memory: Memory, tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.yaml").write_text(f"out: {URL}\nsources: [{{kind: urls, path: s3://bucket/list.parquet}}]\n")
    verb, *options = command.split()
    done = CliRunner().invoke(app, [verb, "list.yaml", *options])
    assert done.exit_code == 1 and f"{URL} is in a store: name an out on a disk, or fetch the list" in done.output
    assert memory.objects() == {} and [path.name for path in tmp_path.glob("[!s]*")] == ["list.yaml"]


@pytest.mark.parametrize(
    "command",
    [
        *("status DS", "sql DS SELECT", "doctor DS --repair", "purge DS --image-id 0 --why w", "stats DS"),
        *("work DS caption --share 0/2", "build folder NEW", "build folder NEW --only caption", "plan folder NEW"),
        *("ingest folder NEW", "build folder NEW out=s3://bucket/new dedup.against=[DS]"),
    ],
)
def test_an_old_layout_in_a_store_is_refused_by_every_command_before_anything_is_written(
    photos: Path, whole: dict[str, bytes], tmp_path: Path, command: str
) -> None:
    is_part, record = re.compile(r"/part-(\d+)\.\w+\.\w+\."), b'{"job": "ingest", "knobs": {}, "upstream": {}}'
    old = Memory({is_part.sub(r"/part-\1.", key): record if "/.records/" in key else whole[key] for key in whole})
    before = old.objects()
    words = command.replace("NEW", f"images={photos} out=DS").replace("DS", URL).split()
    with old.used(tmp_path):
        done = CliRunner().invoke(app, words)
    assert done.exit_code == 1 and "copy it to a disk, run sigma status FOLDER once there" in done.output, done.output
    assert old.objects() == before


def test_a_scratch_folder_that_cannot_be_written_is_named(
    built: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    for scratch, said in {
        tmp_path / "file": f"{tmp_path}/file: copies of what a store holds cannot be written",
        "s3://bucket/scratch": "s3://bucket/scratch: a store is no folder",
    }.items():
        monkeypatch.setenv("SIGMA_SCRATCH", str(scratch))
        done = CliRunner().invoke(app, ["sql", URL, "SELECT count(*) FROM ledger"])  # status copies nothing
        assert done.exit_code == 1 and said in done.output
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.slow
def test_doctor_looks_at_the_store_and_a_damaged_copy_is_fetched_anew(built: Dataset) -> None:
    path = built.parts("scores")[0]
    whole = read_file(path)
    read_parquet(path)  # which leaves a copy
    path.write_bytes(whole[:40] + b"?" + whole[41:])
    with pytest.raises(ValueError, match=r"the copy of it on this machine was damaged .* run the same command again"):
        read_parquet(path)
    assert path.read_bytes() == whole
    path.write_bytes(whole[:-9])
    assert "bad" not in run("doctor", URL)
    Store.at(URL).put(str(path.relative_to(built.root)), whole[:40] + b"?" + whole[41:])
    done = CliRunner().invoke(app, ["doctor", URL])
    assert done.exit_code == 1 and "is damaged" in done.output and "sigma-stores" not in done.output
    with pytest.raises(ValueError, match=r"damaged .* delete it and run sigma build again"):
        read_parquet(path)


@pytest.mark.slow
def test_a_dataset_is_compared_with_one_in_a_store_by_its_address(built: Dataset, photos: Path, tmp_path: Path) -> None:
    against, _ = build(recipe(photos, tmp_path / "mine", dedup={"against": [URL]}), upto="dedup")
    record = against.record("duplicates")
    assert record is not None and record.knobs["dedup.against"][0].startswith(f"{URL} ")
    assert {row["other_dataset"] for row in rows(against, "duplicates")} == {URL}


def test_a_whole_bucket_may_be_a_dataset(memory: Memory, photos: Path) -> None:
    build(stored(photos, "s3://bucket"), upto="ingest")
    _, told = build(stored(photos, "s3://bucket/"), upto="ingest")
    found = {key.split("/")[0] for key in memory.objects()}
    assert computed(told) == {} and found == {".ledger", "recipe.yaml", "runs", "tables"}


def test_one_thumbnail_of_a_large_part_is_read_by_range(server: Server, monkeypatch: Any) -> None:
    monkeypatch.setattr("engine.place.mirror.MOST_KEPT", 200_000)
    dataset, random = Dataset(mount_point("s3://photos/wide")), np.random.default_rng(0)
    ids = [{"row_id": row, "image_id": f"{row:032x}"} for row in range(800)]
    listed = {"source": "s", "source_name": "s", "member": "m"}
    put(dataset, "listing", 0, table_of("listing", ({"row_id": row["row_id"]} | listed for row in ids)))
    put(dataset, "proxies", 0, table_of("proxies", (row | {"jpeg": random.bytes(4000)} for row in ids)))
    server.forget()
    assert [*proxies(dataset.held(), [300, 310])] == [300, 310]
    sent = sum(size for key, size in server.num_sent.items() if "/proxies/" in key)
    assert 400_000 < sent < 1_400_000, "of 3,200,000"


@pytest.mark.slow
def test_a_picture_that_is_purged_leaves_the_store(built: Dataset, tmp_path: Path) -> None:
    store, gone = Store.at("s3://bucket/ds"), rows(built, "images")[0]["image_id"]
    assert any(gone.encode() in store.get(found.key) for found in store.below("shards"))
    run("purge", "s3://bucket/ds", "--image-id", gone, "--why", "asked")
    assert [found.key for found in store.below("shards") if gone.encode() in store.get(found.key)] == []
    assert [row["caption"] for row in rows(built, "captions") if row["image_id"] == gone] == [None]


@pytest.mark.slow
def test_copies_of_a_purged_picture_go_wherever_this_machine_has_them(
    memory: Memory, photos: Path, tmp_path: Path
) -> None:
    run_in = {"runner": "local", "threads": 1, "scratch": str(tmp_path / "nvme")}
    dataset, _ = build(stored(photos, run=run_in))
    gone = min(row["image_id"] for row in rows(dataset, "proxies"))
    run("sql", URL, f"SELECT raw_caption FROM images WHERE image_id = '{gone}'")
    copies = [path for path in tmp_path.rglob("*.parquet") if "/tables/" in str(path)]
    assert {path.relative_to(tmp_path).parts[0] for path in copies} == {"nvme", "scratch"}
    run("purge", URL, "--image-id", gone, "--why", "asked")
    there = {found.key for found in Store.at(URL).below()}
    left = [path for path in tmp_path.rglob("*.parquet") if str(path).partition("/bucket/ds/")[2] not in there]
    assert left == []
    assert "bad" not in run("doctor", "s3://bucket/ds")


@pytest.mark.slow
def test_a_bucket_that_keeps_versions_refuses_a_takedown(server: Server, whole: dict[str, bytes]) -> None:
    server.put(whole)
    server.keep_versions()
    try:
        gone = rows(Dataset(mount_point("s3://photos/ds")), "images")[0]["image_id"]
        done = CliRunner().invoke(app, ["purge", "s3://photos/ds", "--image-id", gone, "--why", "asked"])
        assert done.exit_code == 1 and "s3://photos keeps old versions of its objects" in done.output
    finally:
        server.keep_versions(False)


def test_a_second_build_is_refused_while_one_writes(built: Dataset, photos: Path) -> None:
    with built.lock(), pytest.raises(ValueError, match=r"process \d+ on .* is writing this dataset"):
        build(stored(photos))


@pytest.mark.slow
def test_a_storm_of_refusals_ends_and_the_build_is_whole(
    server: Server, few_photos: Path, few_local: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server.refuse_every = 17
    try:
        build(stored(few_photos, "s3://photos/storm"))
    finally:
        server.refuse_every = 0
    assert in_store(Store.at("s3://photos/storm")) == few_local


@pytest.mark.slow
def test_a_part_for_which_the_store_does_not_answer_is_computed_again(
    server: Server, few_photos: Path, few_local: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.place.store.RETRIES", 0)
    _client.cache_clear()
    publish, failed = Mirror.publish, list[str]()

    def once_down(self: Mirror, aside: Path, path: Path) -> None:
        if "scores/part-00000" in str(path) and len(failed) < 2:
            failed.append(path.name)
            server.refused["down/tables/scores"] = 503
        try:
            publish(self, aside, path)
        finally:
            server.refused.clear()

    monkeypatch.setattr(Mirror, "publish", once_down)
    build(stored(few_photos, "s3://photos/down"))
    assert len(failed) == 2 and in_store(Store.at("s3://photos/down")) == few_local


@pytest.mark.slow
def test_killed_and_run_again_on_ray_the_bytes_are_the_same(
    server: Server, photos: Path, local: dict[str, str]
) -> None:
    """A real process, a real SIGKILL: its lease stands still, and the next build takes over."""
    words = [
        "build",
        "folder",
        f"images={photos}",
        "out=s3://photos/killed",
        "part_rows=3",
        "select.min_short_side_px=1",
    ]
    store = Store.at("s3://photos/killed")
    process = start_sigma(*words, "run.runner=local")
    until = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < until and not store.names("tables/scores")[1]:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert store.find(".lock") is not None and not store.names("tables/samples")[1]
    store.delete([".lock"])  # a real takeover takes half a minute
    done = sigma(*words, "run.workers=2")
    assert done.returncode == 0, done.stderr
    found = in_store(store)
    compared = [key for key in local if "selection" not in key]  # whose thresholds differ
    assert {key: found[key] for key in compared} == {key: local[key] for key in compared}
