"""Rows of tables are inputs: files they name, or bytes they hold, read again from the row."""

from __future__ import annotations

import json
import os
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.sources import SourceListing, list_source, read_original
from schemas.sources import HFDatasetSource, TableSource
from tests.building import build, picture, recipe, rows, write_pictures
from tests.photos import encode
from tests.serving import serving

PICTURES = [encode(picture(seed, 48, 32), "PNG") for seed in range(40)]


def listed(table: str | Path, root: str | None = None, **columns: str) -> SourceListing:
    source = TableSource.from_mapping({"path": str(table), "columns": columns, "root": root})
    listing = list_source(source)
    return SourceListing(list(listing.items), listing.ignored)


def bytes_of(listing: SourceListing) -> list[bytes]:
    return [read_original(item.source or "", item.member, item.byte_offset, item.num_bytes) for item in listing.items]


def write_table(path: Path, values: list[dict[str, Any]]) -> Path:
    """Rows as the file's extension has it."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(values), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in values))
    else:
        names = list(values[0])
        lines = [",".join(names), *(",".join(row[name] or "" for name in names) for row in values)]
        path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize("extension", ["parquet", "jsonl", "csv"])
def test_paths_and_urls(extension: str, tmp_path: Path) -> None:
    write_pictures(tmp_path / "images" / "deep", [(20, 10)] * 3)
    elsewhere = tmp_path / "elsewhere"
    write_pictures(elsewhere, [(20, 10)], first_seed=9)
    with serving(elsewhere) as server:
        values = [
            {"file": "deep/000.jpg", "words": " one ", "from": "https://u:p@x/1?sig=2", "rights": "CC0"},
            {"file": str(tmp_path / "images" / "deep" / "001.jpg"), "words": None, "from": None, "rights": None},
            {"file": "../elsewhere/000.jpg", "words": "three", "from": None, "rights": None},
            {"file": f"{server.url}/files/000.jpg", "words": "four", "from": None, "rights": None},
            {"file": None, "words": "five", "from": None, "rights": None},
            {"file": "https://x/y.jpg?X-Amz-Signature=secret", "words": "six", "from": None, "rights": None},
        ]
        table = write_table(tmp_path / f"list.{extension}", values)
        columns = {"path": "file", "caption": "words", "url": "from", "license": "rights"}
        found = listed(table, root=str(tmp_path / "images"), **columns)
        assert [(item.source, item.member) for item in found.items] == [
            (str(tmp_path / "images"), "deep/000.jpg"),
            (str(tmp_path / "images"), "deep/001.jpg"),
            (str(elsewhere), "000.jpg"),
            (f"{server.url}/files", "000.jpg"),
            (str(tmp_path), f"list.{extension}#4/file"),
            ("https://x", "y.jpg"),
        ]
        assert [item.raw_caption for item in found.items] == ["one", None, "three", "four", "five", "six"]
        assert (found.items[0].url, found.items[0].license) == ("https://x/1", "CC0")
        assert [item.reason for item in found.items] == [None] * 4 + ["unreadable", "bad_url"]
        assert "secret" not in repr(found)
        pieces = bytes_of(SourceListing(list(found.items)[:4], {}))
        assert pieces[0] == (tmp_path / "images" / "deep" / "000.jpg").read_bytes()
        assert pieces[2] == pieces[3] == (elsewhere / "000.jpg").read_bytes()
    assert listed(write_table(tmp_path / "images" / f"list.{extension}", values[:1]), path="file").items[
        0
    ].source == str(tmp_path / "images")


@pytest.mark.parametrize("as_struct", [False, True])
def test_bytes_in_parquet(as_struct: bool, tmp_path: Path) -> None:
    cells: list[Any] = [{"bytes": data, "path": None} for data in PICTURES] if as_struct else list(PICTURES)
    cells[7] = None
    table = pa.table({"image.x": cells, "text": [f"caption {number}" for number in range(40)]})
    (tmp_path / "tables").mkdir()
    pq.write_table(table.slice(0, 25), tmp_path / "tables" / "a#1.parquet", row_group_size=10)
    pq.write_table(table.slice(25), tmp_path / "tables" / "b.parquet", row_group_size=100)
    found = listed(tmp_path / "tables", bytes="image.x", caption="text")
    assert found.items[0].member == "a%231.parquet#0/image.x"
    assert [item.raw_caption for item in found.items] == [f"caption {number}" for number in range(40)]
    expected = [b"" if number == 7 else data for number, data in enumerate(PICTURES)]
    assert bytes_of(found) == expected
    shuffled = random.Random(0).sample(range(40), 40)
    items = list(found.items)
    assert bytes_of(SourceListing([items[number] for number in shuffled], {})) == [expected[n] for n in shuffled]
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(lambda item: read_original(item.source, item.member, item.byte_offset), items))
    assert read == expected
    assert [item.raw_caption for item in listed(tmp_path / "tables" / "b.parquet", bytes="image.x").items] == [
        None
    ] * 15


@pytest.mark.slow
def test_bytes_in_parquet_become_a_dataset(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [*PICTURES[:4], None, b"<html>"]}), tmp_path / "a.parquet")
    source = {"kind": "table", "path": str(tmp_path / "a.parquet"), "columns": {"bytes": "image"}}
    dataset, _ = build(recipe(None, tmp_path / "ds", sources=[source]))
    images = rows(dataset, "images")
    assert [row["reason"] for row in images] == [None] * 4 + ["empty", "not_an_image"]
    assert [row["num_bytes"] for row in images[:4]] == [len(data) for data in PICTURES[:4]]
    assert [row["reason"] for row in rows(dataset, "samples")] == [None] * 4


def test_a_table_over_http(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": PICTURES[:3], "text": ["a", "b", "c"]}), tmp_path / "a.parquet")
    with serving(tmp_path) as server:
        found = listed(f"{server.url}/files/a.parquet", bytes="image", caption="text")
        assert [item.raw_caption for item in found.items] == ["a", "b", "c"]
        assert bytes_of(found) == PICTURES[:3]


def test_a_replaced_table_is_opened_anew(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": PICTURES[:2]}), tmp_path / "a.parquet")
    found = listed(tmp_path / "a.parquet", bytes="image")
    assert bytes_of(found) == PICTURES[:2]
    pq.write_table(pa.table({"image": PICTURES[2:3]}), tmp_path / "a.parquet")
    first, second = found.items
    assert read_original(first.source, first.member, first.byte_offset) == PICTURES[2]
    with pytest.raises(OSError, match="row 1 cannot be read"):
        read_original(second.source, second.member, second.byte_offset)


def hf_dataset(numbers: range) -> datasets.Dataset:
    values = {
        "image": [{"bytes": PICTURES[number], "path": f"{number}.png"} for number in numbers],
        "text": [f"caption {number}" for number in numbers],
    }
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    return datasets.Dataset.from_dict(values, features=features)


def test_hugging_face_datasets_saved_to_disk(tmp_path: Path) -> None:
    hf_dataset(range(10)).save_to_disk(tmp_path / "one", num_shards=3)
    both = {"test": hf_dataset(range(30, 33)), "train": hf_dataset(range(20, 25))}
    datasets.DatasetDict(both).save_to_disk(tmp_path / "splits")

    def found(folder: str, **columns: str) -> SourceListing:
        listing = list_source(HFDatasetSource.from_mapping({"path": str(tmp_path / folder), "columns": columns}))
        return SourceListing(list(listing.items), listing.ignored)

    one = found("one", caption="text")
    assert bytes_of(one) == PICTURES[:10]
    assert [item.raw_caption for item in one.items] == [f"caption {number}" for number in range(10)]
    splits = found("splits")
    assert bytes_of(splits) == PICTURES[30:33] + PICTURES[20:25]
    assert {item.member.partition("/")[0] for item in splits.items} == {"test", "train"}
    assert bytes_of(found("splits/train")) == PICTURES[20:25]
    with pytest.raises(ValueError, match="column 'text' holds string, not the bytes of images"):
        found("one", image="text")
    with pytest.raises(
        ValueError, match=r"holds no saved dataset \(state.json: .*\); name the folder that save_to_disk"
    ):
        found(".")


def test_tables_that_are_refused(tmp_path: Path) -> None:
    table = write_table(tmp_path / "a.csv", [{"file": "1.jpg", "words": "x"}])
    with pytest.raises(ValueError, match=r"a\.csv: has no column 'path'; it has file, words"):
        listed(table, path="path")
    with pytest.raises(ValueError, match=r"a\.csv: columns\.bytes needs Parquet"):
        listed(table, bytes="file")
    with pytest.raises(ValueError, match="no table found"):
        listed(tmp_path / "*.parquet", path="file")
    write_table(tmp_path / "b.parquet", [{"file": "1.jpg", "words": "x"}])
    with pytest.raises(ValueError, match="column 'words' holds string"):
        listed(tmp_path / "b.parquet", bytes="words")
    (tmp_path / "c.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(ValueError, match=r"c\.parquet: cannot be read as Parquet"):
        listed(tmp_path / "c.parquet", bytes="image")


def test_one_row_that_names_nothing_stops_no_source(tmp_path: Path) -> None:
    (tmp_path / "img").mkdir()
    (tmp_path / "img" / "0.jpg").write_bytes(PICTURES[0])
    paths = [
        "img/0.jpg",
        ".\\img\\0.jpg",
        "img/\0.jpg",
        "http://[::1/x.jpg",
        "http://h:99999999/x.jpg",
        "jup://x/y.jpg",
        "jupyter://x/y.jpg",
        "ssh://host/y.jpg",
        "gs://bucket/y.jpg",
        "s3:///y.jpg",
        7,
        ["img/0.jpg"],
        "x" * 5000,
        "img/0.jpg/1",
        "\udcff.jpg",
    ]
    table = write_table(tmp_path / "a.jsonl", [{"path": path, "caption": f"of {n}"} for n, path in enumerate(paths)])
    with table.open("a") as file:
        file.write('{"path": "img/0.jpg"\n')
    sources = [{"kind": "table", "path": str(table), "columns": {"path": "path", "caption": "caption"}}]
    dataset, _ = build(recipe(None, tmp_path / "ds", sources=sources), "ingest")
    images = rows(dataset, "images")
    assert [row["raw_caption"] for row in images] == [*(f"of {number}" for number in range(len(paths))), None]
    assert [row["reason"] for row in images[:3]] == [None, None, "unreadable"]
    assert [row["reason"] for row in images[3:6]] == ["bad_url"] * 3
    assert None not in [row["reason"] for row in images[6:]]
    assert images[-1]["detail"].startswith("line 16 is not JSON")


def test_pictures_and_captions_in_any_layout_of_arrow(tmp_path: Path) -> None:
    words = [f"caption {number}" for number in range(4)]
    kinds: list[tuple[pa.DataType, pa.DataType]] = [
        (pa.binary_view(), pa.string_view()),
        (pa.large_binary(), pa.large_string()),
        (pa.binary(), pa.binary()),
        (pa.binary(), pa.list_(pa.string())),
    ]
    for bytes_as, text_as in kinds:
        texts: list[Any] = [[word, "another"] for word in words] if pa.types.is_list(text_as) else words
        values = [text.encode() for text in texts] if text_as == pa.binary() else texts
        table = pa.table({"image": pa.array(PICTURES[:4], bytes_as), "text": pa.array(values, text_as)})
        pq.write_table(table, tmp_path / "a.parquet")
        found = listed(tmp_path / "a.parquet", bytes="image", caption="text")
        assert bytes_of(found) == PICTURES[:4]
        assert [item.raw_caption for item in found.items] == words
    table = pa.table(
        {"image": pa.array(PICTURES[:2]).dictionary_encode(), "text": pa.array(words[:2]).dictionary_encode()}
    )
    pq.write_table(table, tmp_path / "a.parquet")
    found = listed(tmp_path / "a.parquet", bytes="image", caption="text")
    assert (bytes_of(found), [item.raw_caption for item in found.items]) == (PICTURES[:2], words[:2])
    for column, kind in (("n", "int64"), ("s", "struct<x: string>")):
        odd = pa.table({"image": PICTURES[:1], "n": [1], "s": [{"x": "y"}]})
        pq.write_table(odd, tmp_path / "a.parquet")
        with pytest.raises(ValueError, match=f"column '{column}' holds {kind}, not text; name another column"):
            listed(tmp_path / "a.parquet", bytes="image", caption=column)


def test_cells_that_name_no_file_are_rows(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "0.png").write_bytes(PICTURES[0])
    for path in ("pipe", "nowhere", "a\0b", 7):
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string() if isinstance(path, str) else pa.int64())])
        pq.write_table(pa.table({"image": pa.array([{"bytes": None, "path": path}], kind)}), tmp_path / "a.parquet")
        (item,) = listed(tmp_path / "a.parquet", bytes="image").items
        with pytest.raises(OSError):
            read_original(item.source or "", item.member, item.byte_offset)


def test_hidden_and_empty_files_among_tables(tmp_path: Path) -> None:
    (tmp_path / "._a.jsonl").write_bytes(b"\0\5\26\7")
    (tmp_path / "b.jsonl").write_bytes(b"")
    write_table(tmp_path / "a.jsonl", [{"path": "1.jpg"}])
    for where in (tmp_path, f"{tmp_path}/*.jsonl"):
        found = listed(where, path="path")
        assert ([item.member for item in found.items], found.ignored) == (["1.jpg"], {"hidden": 1})


def test_paths_of_this_machine_in_other_words(tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b" / "0.png").write_bytes(PICTURES[0])
    (tmp_path / "a b" / "c\\d.png").write_bytes(PICTURES[1])
    paths = [f"file://{tmp_path}/a%20b/0.png", "a b\\c/../0.png", "a b\\0.png", "a b/c\\d.png"]
    table = write_table(tmp_path / "a.jsonl", [{"path": path} for path in paths])
    assert bytes_of(listed(table, path="path")) == [PICTURES[0]] * 3 + [PICTURES[1]]
    os.mkfifo(tmp_path / "pipe")
    odd = [f"file://{tmp_path}/pipe", "memory://x/y.jpg", "simplecache::file:///etc/passwd", "zip://a::file:///b"]
    for item in listed(write_table(tmp_path / "b.jsonl", [{"path": path} for path in odd]), path="path").items:
        if item.reason is None:
            with pytest.raises(OSError):
                read_original(item.source or "", item.member)
