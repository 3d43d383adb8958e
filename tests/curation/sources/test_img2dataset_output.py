"""A folder that img2dataset wrote, in each of its layouts: its rows carried over, failed ones with their reason."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
from img2dataset import writer

from curation.sources import SourceListing, list_source, read_original
from curation.sources.img2dataset_output import explain_failure
from schemas.sources import Img2datasetSource
from tests.building import picture
from tests.photos import encode

PICTURES = [encode(picture(seed), "JPEG") for seed in range(3)]
SCHEMA = pa.schema([(name, pa.string()) for name in ("caption", "url", "license", "key", "status", "error_message")])
WRITERS = {
    "webdataset": writer.WebDatasetSampleWriter,
    "files": writer.FilesSampleWriter,
    "parquet": writer.ParquetSampleWriter,
}


def write_shard(folder: Path, layout: str, shard: int = 0) -> None:
    """Three pictures, a 404, a timeout and an undecodable one, finished in an order of their own."""
    made = WRITERS[layout](shard, str(folder), True, 5, SCHEMA, "jpg")
    failures: dict[int, tuple[str, str]] = {
        1: ("failed_to_download", "HTTP Error 404: Not Found"),
        3: ("failed_to_download", "<urlopen error timed out>"),
        5: ("failed_to_resize", "Image decoding error"),
    }
    for place in (4, 1, 0, 5, 2, 3):
        key = f"{shard:05d}{place:04d}"
        status, message = failures.get(place, ("success", None))
        meta: dict[str, Any] = {"caption": f"caption {place}", "url": f"http://u:p@x/{place}", "license": None}
        meta |= {"key": key, "status": status, "error_message": message}
        made.write(None if message else PICTURES[place // 2], key, f"caption {place}", meta)
    made.close()


def listed(folder: Path) -> SourceListing:
    listing = list_source(Img2datasetSource(path=str(folder)))
    return SourceListing(list(listing.items), listing.ignored)


@pytest.mark.parametrize("layout", list(WRITERS))
def test_every_row_of_its_tables_is_an_input(layout: str, tmp_path: Path) -> None:
    for shard in range(2):
        write_shard(tmp_path, layout, shard)
    items = list(listed(tmp_path).items)
    assert [item.reason for item in items] == [None, "not_found", None, "timeout", None, "corrupt"] * 2
    assert [item.raw_caption for item in items[:6]] == [f"caption {place}" for place in range(6)]
    assert [item.url for item in items[:2]] == ["http://x/0", "http://x/1"]
    assert items[1].detail == "HTTP Error 404: Not Found"
    good = [item for item in items if item.reason is None]
    assert [read_original(one.source, one.member, one.byte_offset, one.num_bytes) for one in good] == PICTURES * 2


def test_the_shards_of_a_killed_run_are_listed_with_reasons(tmp_path: Path) -> None:
    """It leaves a tar cut under its final name and a table of zero bytes."""
    write_shard(tmp_path, "webdataset", 0)
    write_shard(tmp_path, "webdataset", 1)
    write_shard(tmp_path, "webdataset", 2)
    (tmp_path / "00000.parquet").write_bytes(b"")
    (tmp_path / "00001.parquet").unlink()
    whole = (tmp_path / "00002.tar").read_bytes()
    second = whole.index(b"000020000.jpg")
    (tmp_path / "00002.tar").write_bytes(whole[: second + 700])
    found = [(item.member, item.reason) for item in listed(tmp_path).items]
    assert found[:5] == [
        ("00000.tar#000000004.jpg", None),
        ("00000.tar#000000000.jpg", None),
        ("00000.tar#000000002.jpg", None),
        ("00000.parquet", "corrupt"),
        ("00001.tar#000010004.jpg", None),
    ]
    assert found[7:] == [
        ("00002.tar#000020000", "unreadable"),
        ("00002.tar#000020001", "not_found"),
        ("00002.tar#000020002", "unreadable"),
        ("00002.tar#000020003", "timeout"),
        ("00002.tar#000020004.jpg", None),
        ("00002.tar#000020005", "corrupt"),
        ("00002.tar", "truncated"),
    ]


def test_a_table_without_its_columns_is_no_table_of_it(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "00000.parquet")
    with pytest.raises(ValueError, match=r"00000\.parquet: is no table of img2dataset, it lacks the column 'key'"):
        listed(tmp_path)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("HTTP Error 429: Too Many Requests", "rate_limited"),
        ("HTTP Error 503: Service Unavailable", "server_error"),
        ("HTTP Error 451: Unavailable For Legal Reasons", "forbidden"),
        ("The read operation timed out", "timeout"),
        ("IncompleteRead(100 bytes read, 200 more expected)", "timeout"),
        ("Use of image disallowed by X-Robots-Tag directive", "opted_out"),
        ("<urlopen error [Errno -2] Name or service not known>", "unreachable"),
        ("Remote end closed connection without response", "unreachable"),
        ("unknown url type: 'x?token=secret'", "bad_url"),
        ("hash mismatch", "fetch_failed"),
        (None, "fetch_failed"),
    ],
)
def test_messages_have_reasons(message: str | None, reason: str) -> None:
    found = explain_failure("failed_to_download", message)
    assert found[0] == reason
    assert "secret" not in found[1]
    assert "https" not in explain_failure("failed_to_download", "odd https://u:p@x/?token=1")[1]
