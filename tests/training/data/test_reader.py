"""Reading by offset: the right bytes, a clear error for a stale index, damage told apart from it."""

from __future__ import annotations

import io
import shutil
import tarfile

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from schemas.shard_index import read_index
from training.data.reader import DamagedSample, ShardReader, member_of


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


def test_the_caption_asked_for_or_the_other(dataset):
    reader = reader_of(dataset)
    samples = [reader.read(row, (32, 32)) for row in range(7)]
    both = next(sample for sample in samples if sample.synthetic)
    only_raw = next(sample for sample in samples if sample.synthetic is None)
    assert both.caption(True).startswith("a synthetic sentence")
    assert both.caption(False).startswith("raw words")
    assert only_raw.caption(True) == only_raw.raw


@pytest.mark.parametrize("change", [1, 512, -600, 10**9])
def test_an_index_that_does_not_fit_is_an_error(dataset, change):
    index = read_index(dataset / "shards")
    moved = pa.compute.add(index["image_offset"], change)
    index = index.set_column(index.column_names.index("image_offset"), index.schema.field("image_offset"), moved)
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


def test_damage_is_told_apart(make_dataset, tmp_path):
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


def test_bytes_that_are_no_header():
    assert member_of(b"") is None
    assert member_of(bytes(512)) is None
    info = tarfile.TarInfo("key.txt")
    info.size = 7
    assert member_of(info.tobuf(tarfile.USTAR_FORMAT)) == ("key.txt", 7)
