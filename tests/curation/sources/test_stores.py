"""Sources in an object store, against a real S3 server: the same inputs as from a copy on disk, and clear failures."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from commands import order
from curation.sources import list_source, read_original
from curation.sources.read import open_lazily
from curation.sources.storage import RemoteError, read_remote
from curation.sources.stores import explain_store
from curation.upkeep.doctor import check_dataset
from curation.upkeep.find import Wanted, find
from curation.upkeep.purge import purge
from engine.dataset import Dataset
from schemas.reasons import FetchError
from schemas.sources import FolderSource, UrlSource, WebDatasetSource
from tests.building import build, recipe, rows, write_pictures
from tests.photos import write_files
from tests.storing import KEY, SECRET, Store, environment, storing
from tests.trees import sigma

NAMES = ["a b.jpg", "x+y.jpg", "50%.jpg", "%41.jpg", "Grüße 世界.jpg", "what?#.jpg", "quote'\".jpg"]


@pytest.fixture(scope="module")
def server() -> Iterator[Store]:
    with storing() as found:
        yield found


@pytest.fixture
def store(server: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """The server as a user has set it, with nothing in its bucket."""
    monkeypatch.setattr("curation.sources.storage.FIRST_PAUSE_S", 0.01)
    for name, value in environment(server.url).items():
        monkeypatch.setenv(name, value)
    yield server
    server.refused.clear()
    server.empty()


def pictures(folder: Path, num: int = 8) -> dict[str, bytes]:
    """Pictures and their captions by name."""
    write_pictures(folder, [(96, 64)] * num)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def tar_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def table_of_paths(names: list[str], root: str) -> bytes:
    table = pa.table({"file": [f"{root}/{name}" for name in names], "text": [f"Words of {name}." for name in names]})
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def said(dataset: Dataset) -> list[dict[str, Any]]:
    """What a dataset says about its pictures, except where they lie."""
    placed = {"image_id", "source", "member", "byte_offset"}
    return [{name: row[name] for name in row if name not in placed} for row in rows(dataset, "images")]


def packed(dataset: Dataset) -> list[bytes]:
    """The pictures in the shards."""
    found = []
    for path in dataset.root.rglob("*.tar"):
        with tarfile.open(path) as archive:
            found += [archive.extractfile(m).read() for m in archive if m.name.endswith(".jpg")]  # type: ignore[union-attr]
    return sorted(found)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "pattern", "tar", "table"])
def test_a_dataset_from_the_store_is_the_one_from_disk(kind: str, store: Store, tmp_path: Path) -> None:
    files = pictures(tmp_path / "pictures", num=4)  # of two parts
    names = sorted(name for name in files if name.endswith(".jpg"))
    beside = {Path(name).with_suffix(".txt").name: f"Words of {name}.".encode() for name in names}
    sources = {
        "folder": {"path": "{}/in"},
        "pattern": {"path": "{}/in/**/*.jpg"},
        "tar": {"kind": "webdataset", "urls": "{}/*.tar"},
        "table": {"kind": "table", "path": "{}/list.parquet", "columns": {"path": "file", "caption": "text"}},
    }
    made = []
    for number, root in enumerate([f"s3://{store.bucket}", str(tmp_path / "disk")]):
        content = {
            **{f"in/deep er/{name}": data for name, data in files.items()},
            "00000.tar": tar_of(dict(sorted((files | beside).items()))),
            "list.parquet": table_of_paths(names, f"{root}/in/deep er"),
        }
        store.put(content) if not number else write_files(tmp_path / "disk", content)
        source = json.loads(json.dumps(sources[kind]).replace("{}", root))
        made.append(build(recipe(None, tmp_path / f"out{number}", sources=[source]))[0])
    assert len(said(made[0])) == 4
    assert {row["reason"] for row in rows(made[0], "samples")} == {None}
    assert all(row["source"].startswith("s3://photos") for row in rows(made[0], "images"))
    assert said(made[0]) == said(made[1])
    assert [row["member"] for row in rows(made[0], "images")] == [row["member"] for row in rows(made[1], "images")]
    assert packed(made[0]) == packed(made[1]) and len(packed(made[0])) == 4


@pytest.mark.slow
def test_of_a_tar_only_the_bytes_that_are_needed_are_sent(store: Store) -> None:
    blob = bytes(range(256)) * 4096
    store.put({"t/0.tar": tar_of({f"{number}.jpg": blob for number in range(16)})})
    items = list(list_source(WebDatasetSource(urls=("s3://photos/t/0.tar",))).items)
    assert len(items) == 16
    assert store.num_sent["t/0.tar"] < 16 * len(blob) / 2
    store.forget()
    place = items[7]
    assert read_original("s3://photos/t", place.member, place.byte_offset, place.num_bytes) == blob
    assert store.num_sent == {"t/0.tar": len(blob)}
    read_original("s3://photos/t", items[8].member, items[8].byte_offset, items[8].num_bytes)
    assert store.requests == {("GET", "t/0.tar"): 2}  # its size is known from the listing
    store.forget()
    data = open_lazily("s3://photos/t", place.member, place.byte_offset, place.num_bytes)
    assert data[:4] == blob[:4]
    assert store.num_sent == {"t/0.tar": 16 * 1024}


@pytest.mark.parametrize("path", ["s3://photos/odd one", "s3://photos/odd one/**/*.jpg"])
def test_names_are_those_of_the_keys(path: str, store: Store, tmp_path: Path) -> None:
    store.put({f"odd one/{name}": name.encode() for name in NAMES})
    found = {item.member: item for item in list_source(FolderSource(path=path)).items}
    local = write_files(tmp_path / "odd", {name: name.encode() for name in NAMES})
    assert list(found) == [item.member for item in list_source(FolderSource(path=str(local))).items]
    assert {read_original("s3://photos/odd one", member).decode() for member in found} == set(NAMES)
    assert all(item.num_bytes == len(read_original("s3://photos/odd one", item.member)) for item in found.values())


@pytest.mark.parametrize("path", ["s3://photos/in", "s3://photos/in/**/*.jpg"])
def test_a_key_that_no_folder_can_hold_is_a_row(path: str, store: Store) -> None:
    store.put({"in/a.jpg": b"1", "in/d//e.jpg": b"2"})
    items = list(list_source(FolderSource(path=path)).items)
    assert [(item.member, item.reason) for item in items] == [("a.jpg", None), ("d", "bad_url")]
    assert "two slashes in a row" in str(items[1].detail)


@pytest.mark.slow
@pytest.mark.parametrize("path", ["s3://photos/in", "s3://photos/in/**/*.jpg"])
def test_a_sub_folder_without_permission_is_a_row(path: str, store: Store, tmp_path: Path) -> None:
    files = pictures(tmp_path / "pictures")
    store.put({f"in/{'shut' if name < '003' else 'open'}/{name}": files[name] for name in files if name[-3:] == "jpg"})
    store.refused["in/shut"] = 403
    dataset, told = build(recipe(None, tmp_path / "ds", sources=[{"path": path}]))
    images = rows(dataset, "images")
    assert [(row["member"], row["reason"]) for row in images if row["reason"]] == [("shut", "forbidden")]
    assert len(images) == 6 and told.inputs is not None and told.inputs.num_inputs == 6
    assert len(rows(dataset, "samples")) == 5


@pytest.mark.slow
def test_a_passing_error_stops_the_listing_and_the_next_one_is_complete(store: Store, tmp_path: Path) -> None:
    files = {name: data for name, data in pictures(tmp_path / "pictures").items() if name.endswith(".jpg")}
    store.put({f"in/{name[2]}/{name}": data for name, data in files.items()})
    made = recipe(None, tmp_path / "ds", sources=[{"path": "s3://photos/in"}])
    store.refused["in/6"] = 503
    with pytest.raises(
        ValueError,
        match=r"^s3://photos/in/6: cannot be listed \(slow down\); .* run again once it can be$",
    ):
        build(made, "ingest")
    store.refused.clear()
    dataset, _ = build(made, "ingest")
    assert [row["member"] for row in rows(dataset, "images")] == [f"{name[2]}/{name}" for name in sorted(files)]


@pytest.mark.slow
def test_a_tar_that_fails_half_way_stops_the_listing_and_the_next_one_has_all(store: Store, tmp_path: Path) -> None:
    files = {name: data for name, data in pictures(tmp_path / "pictures").items() if name.endswith(".jpg")}
    store.put({f"{number}.tar": tar_of({f"{number}{name}": data for name, data in files.items()}) for number in "01"})
    made = recipe(None, tmp_path / "ds", sources=[{"kind": "webdataset", "urls": "s3://photos/{0,1}.tar"}])
    store.refused["1.tar"] = 503
    with pytest.raises(ValueError, match=r"^s3://photos/1.tar: cannot be read \(.*\); run again once it can be$"):
        build(made, "ingest")
    store.refused.clear()
    assert len(rows(build(made, "ingest")[0], "images")) == 16


@pytest.mark.slow
def test_a_missing_key_is_a_row_and_its_return_is_packed(store: Store, tmp_path: Path) -> None:
    files = pictures(tmp_path / "pictures")
    store.put({f"in/{name}": data for name, data in files.items()})
    names = sorted(name for name in files if name.endswith(".jpg"))
    store.put({"list.parquet": table_of_paths([*names, "none.jpg"], "s3://photos/in")})
    source = {"kind": "table", "path": "s3://photos/list.parquet", "columns": {"path": "file"}}
    made = recipe(None, tmp_path / "ds", sources=[source])
    dataset, _ = build(made, "select")
    images = rows(dataset, "images")
    assert [(row["member"], row["reason"], row["detail"]) for row in images if row["reason"]] == [
        ("in/none.jpg", "not_found", "not found")
    ]
    assert len(images) == 9
    store.delete("in/000.jpg")
    dataset, _ = build(made)
    assert [row["reason"] for row in rows(dataset, "samples")].count("source_missing") == 1
    store.put({"in/000.jpg": files["000.jpg"]})
    dataset, _ = build(made, redo=["shard"])
    assert packed(dataset) == sorted(files[name] for name in names)
    assert [finding for finding in check_dataset(dataset.root) if not finding.fine] == []


@pytest.mark.slow
def test_wrong_credentials_are_one_line_and_the_secret_is_nowhere(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put({f"in/{name}": data for name, data in pictures(tmp_path / "pictures").items()})
    path = tmp_path / "recipe.yaml"
    source = {"path": "s3://photos/in"}
    path.write_text(json.dumps({"out": str(tmp_path / "ds"), "sources": [source], "run": {"runner": "local"}}))
    with store.asking_for_credentials() as (key, secret):
        for wrong_key, wrong_secret in ((KEY, SECRET), (key, SECRET)):
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", wrong_key)
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", wrong_secret)
            refused = sigma("ingest", path)
            assert (refused.returncode, refused.stderr) == (
                1,
                "error: s3://photos/in: cannot be listed (the credentials are refused); check the spelling and the "
                "rights\n",
            )
            assert SECRET not in refused.stdout and wrong_key not in refused.stdout
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
        done = sigma("ingest", path)
    assert done.returncode == 0, done.stderr
    dataset = Dataset(tmp_path / "ds")
    assert [row["reason"] for row in rows(dataset, "images")] == [None] * 8
    everything = b"".join(file.read_bytes() for file in dataset.root.rglob("*") if file.is_file())
    for word in (secret, key, SECRET):
        assert word not in done.stdout + done.stderr
        assert word.encode() not in everything and word not in repr(rows(dataset, "images"))


@pytest.mark.skipif(find_spec("s3fs") is not None, reason="s3fs is installed here")
def test_fetching_into_a_store_that_img2dataset_cannot_write_is_refused(store: Store, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("http://127.0.0.1:9/a.jpg\n")
    source = UrlSource(path=str(tmp_path / "list.txt"), into="s3://photos/tars")
    with pytest.raises(
        ValueError, match=r"^s3://photos/tars: img2dataset cannot write there \(.*s3fs.*\); pip install"
    ):
        list(list_source(source, str(tmp_path / "work")).items)
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    ("name", "said"), [("a.txt", "kind: urls, path"), ("a.parquet", "kind: table, path"), ("a.tar", "webdataset, urls")]
)
def test_a_list_that_is_named_as_a_folder_is_one_of_another_kind(store: Store, name: str, said: str) -> None:
    store.put({f"in/{name}": b"http://127.0.0.1:9/a.jpg"})
    with pytest.raises(ValueError, match=rf"holds no image; name it .*{said}: s3://photos/in/{name}"):
        list(list_source(FolderSource(path=f"s3://photos/in/{name}")).items)


def test_no_server_is_a_clear_line(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curation.sources.storage.ATTEMPTS", 1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(ValueError, match=r"^s3://photos/in: cannot be listed \(no connection\); check the spelling"):
        list(list_source(FolderSource(path="s3://photos/in")).items)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "ftp://me:word@host")
    with pytest.raises(ValueError, match=r"^AWS_ENDPOINT_URL: is no address of a server; set it to one like http"):
        list(list_source(FolderSource(path="s3://photos/in")).items)


@pytest.mark.parametrize(
    ("url", "status", "reason", "detail"),
    [
        ("s3://photos/none.jpg", None, FetchError.NOT_FOUND, "not found"),
        ("s3://photos", None, FetchError.NOT_FOUND, "not found"),
        ("s3://elsewhere/a.jpg", None, FetchError.NOT_FOUND, "not found"),
        ("s3://photos/a.jpg", 403, FetchError.FORBIDDEN, "permission denied"),
        ("s3://photos/a.jpg", 500, FetchError.SERVER_ERROR, "HTTP 500"),
    ],
)
def test_failures_have_reasons(url: str, status: int | None, reason: FetchError, detail: str, store: Store) -> None:
    store.put({"a.jpg": b"1"})
    store.refused |= {"a": status} if status else {}
    with pytest.raises(RemoteError) as failed:
        read_remote(url)
    assert (failed.value.reason, failed.value.detail) == (reason, detail)


def test_an_object_that_grew_is_read_whole(store: Store) -> None:
    store.put({"a.jpg": b"short"})
    assert read_remote("s3://photos/a.jpg", 0, 3) == b"sho"
    store.put({"a.jpg": b"much longer"})
    assert read_remote("s3://photos/a.jpg") == b"much longer"


def test_other_errors_are_not_explained_as_a_stores() -> None:
    assert explain_store(OSError("disk full")) is None
    stalled = "AWS Error NETWORK_CONNECTION during GetObject operation: curlCode: 28, Timeout was reached"
    assert explain_store(OSError(stalled)) == (FetchError.TIMEOUT, "timed out")


@pytest.mark.slow
def test_a_damaged_picture_is_written_again_from_the_store(store: Store, tmp_path: Path) -> None:
    files = pictures(tmp_path / "pictures")
    store.put({f"in/{name}": data for name, data in files.items()})
    dataset, _ = build(recipe(None, tmp_path / "ds", sources=[{"path": "s3://photos/in"}]))
    before = packed(dataset)
    tar = next(iter(sorted(dataset.root.rglob("*.tar"))))
    with tarfile.open(tar) as archive:
        place = next(member for member in archive if member.name.endswith(".jpg"))
    data = bytearray(tar.read_bytes())
    data[place.offset_data + place.size // 2] ^= 1
    tar.write_bytes(data)
    assert packed(dataset) != before
    damaged = [str(finding) for finding in check_dataset(dataset.root) if not finding.fine]
    assert len(damaged) == 1 and tar.name in damaged[0]
    done = sigma("doctor", dataset.root, "--repair")
    assert done.returncode == 0, done.stdout + done.stderr
    assert packed(dataset) == before


@pytest.mark.slow
def test_a_picture_is_taken_out_of_a_dataset_from_the_store(store: Store, tmp_path: Path) -> None:
    store.put({f"in/{name}": data for name, data in pictures(tmp_path / "pictures").items()})
    made = recipe(None, tmp_path / "ds", sources=[{"path": "s3://photos/in"}], shard={"max_samples": 3})
    dataset, _ = build(made, without=())
    image = next(row for row in rows(dataset, "images") if row["member"] == "002.jpg")
    purge(dataset, order.pipeline(made), find(dataset, Wanted(image_ids=(image["image_id"],)), "the owner asked"))
    assert [row["reason"] for row in rows(dataset, "images")].count(None) == 7
    assert len(packed(dataset)) == 7
    build(made, without=())
    assert len(packed(dataset)) == 7
    assert [finding for finding in check_dataset(dataset.root) if not finding.fine] == []
