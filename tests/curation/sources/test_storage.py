"""Remote folders are listed as local ones, read by ranges, and their failures have reasons."""

from __future__ import annotations

import socket
import threading
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import fsspec
import pytest

from curation.sources import SourceListing, list_source, read_original
from curation.sources.storage import RemoteError, filesystem, read_file, read_remote
from schemas.reasons import FetchError
from schemas.sources import FolderSource
from tests.building import build, recipe, rows
from tests.photos import encode, photo, write_files
from tests.serving import Served, serving

COFFEE = encode(photo("coffee.png"), "JPEG")
FILES = {
    "a.jpg": COFFEE,
    "deep/b.JPG": COFFEE + b"2",
    "deep/b.txt": b"A cup.",
    "deep-er/c.jpg": COFFEE + b"3",
    ".hidden.jpg": b"",
    "notes.pdf": b"",
    "captions.csv": b"file_name,caption,url\na.jpg,from the table,https://me:pw@x/a.jpg?sig=1\n",
}


def listed(path: str) -> SourceListing:
    listing = list_source(FolderSource(path=path))
    return SourceListing(list(listing.items), listing.ignored)


@pytest.fixture
def memory() -> Iterator[str]:
    fs = fsspec.filesystem("memory")
    for name, data in FILES.items():
        fs.pipe(f"/bucket/photos/{name}", data)
    yield "memory://bucket/photos"
    fs.rm("/bucket", recursive=True)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    with serving(write_files(tmp_path / "served", FILES)) as served:
        yield served


def test_a_file_is_read_into_memory_of_its_own_size_and_grown_ones_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(bytes(1 << 20))
    tracemalloc.start()
    try:
        assert len(read_file(str(path), most_bytes=1 << 32)) == 1 << 20
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()
    assert read_file("/proc/self/stat", most_bytes=1 << 20)  # its size is said to be zero
    with pytest.raises(OSError, match="of which 10 at most"):
        read_file("/proc/self/stat", most_bytes=10)


def test_a_remote_folder_is_listed_as_a_local_one(memory: str, tmp_path: Path) -> None:
    remote, local = listed(memory), listed(str(write_files(tmp_path, FILES)))
    assert remote == local
    assert [item.member for item in remote.items] == ["a.jpg", "deep-er/c.jpg", "deep/b.JPG"]
    assert remote.items[0].url == "https://x/a.jpg"
    assert remote.items[2].sidecar == "deep/b.txt"


@pytest.mark.slow
@pytest.mark.parametrize("path", ["{}", "{}/**/*.[jJ][pP][gG]"])
def test_a_remote_folder_or_pattern_becomes_a_dataset(path: str, memory: str, tmp_path: Path) -> None:
    made = recipe(None, tmp_path / "ds", sources=[{"path": path.format(memory)}], select={"drop_duplicates": False})
    dataset, _ = build(made)
    images = rows(dataset, "images")
    assert [(row["source"], row["reason"], row["raw_caption"]) for row in images] == [
        (memory, None, "from the table"),
        (memory, None, None),
        (memory, None, "A cup."),
    ]
    assert [row["reason"] for row in rows(dataset, "samples")] == [None] * 3


@pytest.mark.parametrize("pattern", ["deep*", "deep*/*.[jJ]*", "**/*.[jJ][pP][gG]"])
def test_patterns(pattern: str, memory: str, tmp_path: Path) -> None:
    remote, local = listed(f"{memory}/{pattern}"), listed(f"{write_files(tmp_path, FILES)}/{pattern}")
    assert [item._replace(source=None) for item in remote.items] == [item._replace(source=None) for item in local.items]
    assert ({item.source for item in remote.items}, {item.source for item in local.items}) == (
        {memory},
        {str(tmp_path)},
    )
    named = [item.member for item in remote.items if item.member != "a.jpg"]
    assert named == ["deep-er/c.jpg", "deep/b.JPG"]
    assert next(item for item in remote.items if item.member == "deep/b.JPG").sidecar == "deep/b.txt"
    assert read_original(memory, "deep/b.JPG") == COFFEE + b"2"


def test_a_pattern_without_a_match_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="matches no image; check the pattern"):
        listed(f"{tmp_path}/*.jpg")
    with pytest.raises(ValueError, match=r"memory://nowhere: cannot be listed \(not found\)"):
        listed("memory://nowhere")


def test_an_index_page_is_a_folder(server: Served) -> None:
    found = listed(f"{server.url}/files")
    assert [item.member for item in found.items] == ["a.jpg", "deep-er/c.jpg", "deep/b.JPG"]
    assert read_original(f"{server.url}/files", "deep/b.JPG") == COFFEE + b"2"


def test_only_the_range_is_requested_and_returned(server: Served) -> None:
    source = f"{server.url}/files"
    assert read_original(source, "a.jpg", 10, 20) == COFFEE[10:30]
    assert server.ranges == ["bytes=10-29"]
    assert read_original(f"{server.url}/norange", "a.jpg", 10, 20) == COFFEE[10:30]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("files/none.jpg", FetchError.NOT_FOUND),
        ("status/410", FetchError.NOT_FOUND),
        ("status/403", FetchError.FORBIDDEN),
        ("status/418", FetchError.FETCH_FAILED),
    ],
)
def test_a_final_error_is_not_retried(server: Served, path: str, reason: FetchError) -> None:
    with pytest.raises(RemoteError) as failed:
        read_remote(f"{server.url}/{path}")
    assert failed.value.reason is reason
    assert server.requests.total() == 1
    assert server.url not in failed.value.detail


@pytest.mark.parametrize(
    ("path", "reason"), [("status/503", FetchError.SERVER_ERROR), ("status/429", FetchError.RATE_LIMITED)]
)
def test_a_passing_error_is_retried(
    server: Served, path: str, reason: FetchError, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("curation.sources.storage.FIRST_PAUSE_S", 0.01)
    with pytest.raises(RemoteError) as failed:
        read_remote(f"{server.url}/{path}")
    assert failed.value.reason is reason
    assert server.requests.total() == 3


def test_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curation.sources.storage.FIRST_PAUSE_S", 0.01)
    with pytest.raises(RemoteError) as failed:
        read_remote("http://127.0.0.1:9/a.jpg")
    assert failed.value.reason is FetchError.UNREACHABLE


@pytest.mark.skipif(find_spec("gcsfs") is not None, reason="gcsfs is installed here")
def test_a_missing_client_names_its_package() -> None:
    with pytest.raises(ValueError, match=r"gs://: its client is not installed; pip install gcsfs$"):
        filesystem("gs://bucket/a")


def test_a_scheme_without_a_client_is_refused() -> None:
    with pytest.raises(ValueError, match="gdrive://: its client is not installed; Please install gdrive"):
        filesystem("gdrive://folder/a")
    with pytest.raises(ValueError, match="nope://: Protocol not known: nope; name a scheme that fsspec knows"):
        filesystem("nope://bucket/a")
    with pytest.raises(ValueError, match="s3://: names no bucket; write s3://BUCKET/FOLDER"):
        filesystem("s3://")


def test_a_web_server_that_falls_silent_costs_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """aiohttp alone would wait for five minutes, three times."""
    monkeypatch.setattr("curation.sources.storage.SILENCE_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begun = time.monotonic()
        with pytest.raises(RemoteError) as refused:
            read_remote(f"http://127.0.0.1:{silent.getsockname()[1]}/a.jpg")
    assert refused.value.reason == FetchError.TIMEOUT and time.monotonic() - begun < 20


@pytest.mark.parametrize("is_bomb", [False, True])
def test_of_an_answer_without_end_no_more_is_read_than_a_picture_may_have(is_bomb: bool) -> None:
    class Endless(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Encoding", "gzip" if is_bomb else "identity")
            self.end_headers()
            packed = zlib.compressobj(wbits=31)
            with suppress(OSError):
                for _ in range(512):
                    zeros = bytes(1 << 20)
                    self.wfile.write(packed.compress(zeros) + packed.flush(zlib.Z_SYNC_FLUSH) if is_bomb else zeros)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Endless) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/a.jpg"
        with pytest.raises(RemoteError, match="more than 3,000,000 bytes, which are not read"):
            read_original(url.removesuffix("/a.jpg"), "a.jpg", most_bytes=3_000_000)
        server.shutdown()
