"""Reading by offset: the right bytes, a clear error for a stale index, damage told apart from it."""

from __future__ import annotations

import gc
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

import training.data.reader as reader_module
from schemas.shard_index import INDEX_SCHEMA, read_index
from tests.training.conftest import photo, write_dataset
from training.data.captions import by_words
from training.data.reader import Captions, DamagedSample, ShardReader, member_of
from training.data.selection import Entry

Member = tuple[str, bytes]
"""Name and content."""


def reader_of(dataset) -> ShardReader:
    return ShardReader(dataset / "shards", read_index(dataset / "shards"))


def test_a_sample_is_what_its_tar_holds(dataset):
    index = read_index(dataset / "shards")
    reader = reader_of(dataset)
    assert len(reader) == 7
    for row, entry in enumerate(index.to_pylist()):
        sample = reader.read(row, (entry["height"], entry["width"]))
        with tarfile.open(dataset / "shards" / entry["shard"]) as tar:
            image = Image.open(io.BytesIO(tar.extractfile(f"{entry['key']}.png").read()))
            text = tar.extractfile(f"{entry['key']}.txt").read().decode()
        assert np.array_equal(sample.pixels, np.asarray(image).transpose(2, 0, 1))
        assert sample.mixed == text and sample.image_id == entry["image_id"]
    reader.close()


def test_a_missing_caption_is_replaced_by_the_other(dataset):
    reader = reader_of(dataset)
    samples = [reader.read(row, (32, 32)) for row in range(7)]
    both = next(sample for sample in samples if sample.synthetic)
    only_raw = next(sample for sample in samples if sample.synthetic is None)
    assert both.read(True).caption.startswith("a synthetic sentence")
    assert both.read(False).caption.startswith("raw words")
    assert only_raw.read(True).caption == only_raw.raw
    for row, sample in enumerate(samples):
        assert reader.captions(row) == Captions(sample.mixed, sample.raw, sample.synthetic)
        assert reader.entry(row).image_id == sample.image_id


@pytest.mark.parametrize("before", [b"a sentence", b"raw words", b"IDAT"])
def test_a_picture_or_a_caption_that_was_changed_in_its_tar_is_named(tmp_path, before):
    pictures = [(photo(1, 16, 16), "raw words", "a sentence"), (photo(2, 16, 16), "other", None)]
    reader = reader_of(write_dataset(tmp_path, pictures, [(16, 16)] * 2, digests=True))
    for row in range(2):
        reader.read(row, (16, 16))
    (tar,) = tmp_path.rglob("*.tar")
    data = tar.read_bytes()
    place = data.index(before) + (8 if before == b"IDAT" else 0)
    tar.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    with pytest.raises(DamagedSample, match="has another picture or caption than when it was indexed"):
        [reader.read(row, (16, 16)) for row in range(2)]


@pytest.mark.parametrize("change", [1, 512, -600, 10**9, 2**40])
@pytest.mark.parametrize("column", ["image_offset", "image_size"])
def test_an_index_that_does_not_fit_is_an_error(dataset, column, change):
    index = read_index(dataset / "shards")
    moved = pa.compute.add(index[column], change)
    index = index.set_column(index.column_names.index(column), index.schema.field(column), moved)
    with pytest.raises(ValueError, match=r"the index says .* rebuild the shards") as caught:
        ShardReader(dataset / "shards", index).read(0, (32, 32))
    assert not isinstance(caught.value, DamagedSample)


def test_a_missing_or_foreign_shard(dataset, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(dataset, copy)
    reader = reader_of(copy)
    shard = read_index(copy / "shards")["shard"][0].as_py()
    (copy / "shards" / shard).unlink()
    with pytest.raises(ValueError, match="names this shard, but No such file"):
        reader.read(0, (32, 32))
    index = read_index(dataset / "shards")
    outside = pa.array(["../../etc/passwd"] * index.num_rows)
    index = index.set_column(index.column_names.index("shard"), index.schema.field("shard"), outside)
    with pytest.raises(ValueError, match="names a shard outside"):
        ShardReader(dataset / "shards", index).read(0, (32, 32))


def rewritten(dataset: Path, folder: Path, members: Callable[[list[Member]], list[Member]], **options: Any) -> pa.Table:
    """Writes every tar anew with its members as `members` has them; the index that fits it then."""
    index = read_index(dataset / "shards")
    rows = {row["key"]: row for row in index.to_pylist()}
    for shard in sorted({row["shard"] for row in rows.values()}):
        with tarfile.open(dataset / "shards" / shard) as tar:
            found = [(info.name, tar.extractfile(info).read()) for info in tar]
        (folder / shard).parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(folder / shard, "w", **options) as tar:
            for name, content in members(found):
                key, extension = name.split(".")
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
                kind = "image" if extension == "png" else extension
                rows[key] |= {f"{kind}_offset": tar.offset - len(content) - -len(content) % 512}
                rows[key] |= {f"{kind}_size": len(content)}
    return pa.Table.from_pylist(list(rows.values()), schema=INDEX_SCHEMA)


@pytest.mark.parametrize(
    ("members", "reads"),
    [(list, 1), (lambda found: found[::-1], 1), (lambda found: sorted(found, key=lambda m: m[0].split(".")[1]), 3)],
    ids=["as written", "backwards", "far apart"],
)
@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_neighbouring_members_are_read_at_once(dataset, tmp_path, monkeypatch, members, reads, tar_format):
    index = rewritten(dataset, tmp_path, members, format=tar_format)
    reader, expected = ShardReader(tmp_path, index), reader_of(dataset)
    spans = []
    preadv = os.preadv
    monkeypatch.setattr(os, "preadv", lambda *arguments: spans.append(arguments) or preadv(*arguments))
    for row, shard in enumerate(index["shard"].to_pylist()):
        spans.clear()
        found = reader.members(row)
        if shard.startswith("1.0/"):  # four samples; where there is one, its members cannot lie far apart
            assert len(spans) == reads
        assert found == expected.members(row) and list(found) == ["image", "txt", "json"]
        assert json.loads(bytes(found["json"]))["image_id"] == index["key"][row].as_py()


@pytest.mark.slow
def test_few_tars_stay_open(dataset, monkeypatch):
    def num_open() -> int:
        targets = [str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.exists()]
        return sum(target.startswith(str(dataset)) for target in targets)

    gc.collect()  # readers of other tests, which an exception or a cycle has kept
    assert num_open() == 0
    monkeypatch.setattr(reader_module, "MOST_OPEN", 1)
    reader = reader_of(dataset)
    expected = [reader_of(dataset).members(row)["json"] for row in range(7)]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda number: reader.members(number * 3 % 7)["json"], range(70)))
    assert found == [expected[number * 3 % 7] for number in range(70)]
    assert num_open() == 1
    reader.close()
    assert num_open() == 0


@pytest.mark.parametrize("change", ["other", "shorter", "longer", "cut", "empty"])
def test_a_tar_that_was_changed_is_an_error(dataset, tmp_path, change):
    def changed(found: list[Member]) -> list[Member]:
        if change == "other":
            return [(f"{'0' * 32}.{name.split('.')[1]}", content) for name, content in found]
        size = {"shorter": -1, "longer": 1}.get(change, 0)
        return [(name, (content + b"x")[: len(content) + size]) for name, content in found]

    shutil.copytree(dataset, tmp_path / "copy")
    shard = read_index(dataset / "shards")["shard"][0].as_py()
    if change in ("cut", "empty"):
        path = tmp_path / "copy" / "shards" / shard
        path.write_bytes(path.read_bytes()[: 700 if change == "cut" else 0])
    else:
        with tarfile.open(dataset / "shards" / shard) as tar:
            found = [(info.name, tar.extractfile(info).read()) for info in tar]
        with tarfile.open(tmp_path / "copy" / "shards" / shard, "w", format=tarfile.USTAR_FORMAT) as tar:
            for name, content in changed(found):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    with pytest.raises(
        ValueError, match=r"the index says [0-9a-f]{32}\.\w+ of \d+ bytes .*; rebuild the shards"
    ) as caught:
        reader_of(tmp_path / "copy").read(0, (32, 32))
    assert not isinstance(caught.value, DamagedSample)
    assert ("the tar ends inside of it; " in str(caught.value)) == (change == "cut")


def test_damaged_members_are_damaged_samples(make_dataset, tmp_path):
    whole = Image.new("RGB", (40, 40), "red")
    buffer = io.BytesIO()
    whole.save(buffer, "PNG")
    pictures = [(buffer.getvalue()[:-30], "cut short", None), (buffer.getvalue(), None, None)]
    reader = reader_of(make_dataset(tmp_path, pictures, [(40, 40), (40, 40)]))
    messages = []
    for row in range(2):
        with pytest.raises(DamagedSample) as caught:
            reader.read(row, (32, 32))
        messages.append(str(caught.value))
    assert any("has no caption" in message for message in messages)


@pytest.mark.parametrize(
    ("text", "facts", "why"),
    [
        (b"\xff", b"{}", "can't decode"),
        (b"a", b"[]", "its json is no mapping"),
        (b"a", b"{", "line 1 column 2"),
        (b"a", b'{"captions_synthetic": ["x"]}', "its json is no sample's"),
        (b"a", b'{"captions_synthetic": 3}', "its json is no sample's"),
        (b"a", b'{"caption_raw": 7}', "a caption in its json is no text"),
        (b"a", b"[" * 100_000, "its json is no sample's"),
    ],
)
def test_captions_that_cannot_be_read_name_their_sample(text, facts, why):
    entry = Entry("0123", "1.0/1.0-000000.tar", "jpg", (0, 0, 0), (0, 0, 0))
    with pytest.raises(DamagedSample, match=rf"^0123 in 1\.0/1\.0-000000\.tar: .*{why}"):
        reader_module._captions(entry, memoryview(text), memoryview(facts), by_words, None)


def test_bytes_that_are_no_header():
    assert member_of(b"") is None
    assert member_of(bytes(512)) is None
    info = tarfile.TarInfo("key.txt")
    info.size = 7
    assert member_of(info.tobuf(tarfile.USTAR_FORMAT)) == ("key.txt", 7)
