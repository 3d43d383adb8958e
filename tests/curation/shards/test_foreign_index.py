"""Tars of WebDataset and img2dataset are indexed where they are, and the trainer reads the samples they hold."""

from __future__ import annotations

import io
import json
import os
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from curation.shards.foreign_index import Indexed, find_tars, index_tars
from schemas.shard_index import ShardIndex, read_index
from tests.bombs import HOSTILE
from tests.dying import Died, dying_at
from tests.training.conftest import write_dataset
from training.data.reader import DamagedSample, ShardReader
from training.data.selection import Selection

Members = list[tuple[str, bytes]]


def picture(width: int = 48, height: int = 32, colour: int = 90, form: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (colour, 120, 10)).save(buffer, form)
    return buffer.getvalue()


def write_tar(path: Path, members: Members, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def index(folder: Path, out: Path | None = None) -> Indexed:
    return index_tars(find_tars(str(folder)), out, lambda _: None)


def reader_of(dataset: Path) -> ShardReader:
    return ShardReader(dataset / "shards", Selection(ShardIndex(dataset / "shards")))


def captions(dataset: Path) -> list[str]:
    reader = reader_of(dataset)
    return [reader.read(row, (32, 48)).mixed for row in range(len(reader))]


IMG2DATASET = [
    ("000000000.jpg", picture()),
    ("000000000.txt", b"a red field"),
    ("000000000.json", json.dumps({"caption": "a red field", "url": "http://x/y.jpg", "status": "success"}).encode()),
    ("000000001.jpg", picture(64, 64)),
    ("000000001.json", json.dumps({"caption": "a square"}).encode()),
]


def test_img2dataset_tars_are_read_in_place(tmp_path):
    tar = write_tar(tmp_path / "00000.tar", IMG2DATASET)
    before = tar.read_bytes()
    done = index(tmp_path)
    assert (done.buckets, done.left_out) == ({"0.68": 1, "1.0": 1}, {})
    rows = read_index(tmp_path / "shards").to_pylist()
    assert [(row["key"], row["width"], row["height"], row["num_tokens"]) for row in rows] == [
        ("000000000", 48, 32, 4),
        ("000000001", 64, 64, 3),
    ]
    assert captions(tmp_path) == ["a red field", "a square"] and tar.read_bytes() == before
    sample = reader_of(tmp_path).read(0, (32, 48))
    assert np.abs(sample.pixels[0].astype(int) - 90).max() < 4 and sample.read(None) == ("a red field", False, False)


@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_of_any_names_are_read(tmp_path, tar_format):
    long = "deep/" + "n" * 60 + "/" + "k" * 90 if tar_format != tarfile.USTAR_FORMAT else "deep/k"
    members = [
        (f"./{long}.JPG", picture()),
        (f"./{long}.txt", "eine Straße".encode("latin-1")),
        ("café.webp", picture(form="WEBP")),
        ("café.txt", "\ufefftwo".encode()),
        ("v1.0/one.seg.png", picture(form="PNG")),
        ("v1.0/one.json", b'{"text": ["three", "four"]}'),
        ("v1.0/two.caption", b"five"),
        ("v1.0/two.bmp", picture(form="BMP")),
    ]
    write_tar(tmp_path / "a.tar", members, format=tar_format)
    assert index(tmp_path).left_out == {}
    assert captions(tmp_path) == ["eine Straße", "two", "three", "five"]


def test_equal_keys_in_two_tars_and_joined_tars_are_different_pictures(tmp_path):
    members = [("0.jpg", picture()), ("0.txt", b"one")]
    for name in ("a.tar", "b.tar"):
        write_tar(tmp_path / name, members)
    joined = tmp_path / "c.tar"
    joined.write_bytes((tmp_path / "a.tar").read_bytes() + (tmp_path / "b.tar").read_bytes())
    index(tmp_path)
    ids = read_index(tmp_path / "shards")["image_id"].to_pylist()
    assert len(ids) == len(set(ids)) == 4 and captions(tmp_path) == ["one"] * 4


def test_links_have_the_bytes_that_they_lead_to(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, content in (("0.jpg", picture()), ("0.txt", b"one")):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for name, kind, target in (
            ("1.jpg", tarfile.LNKTYPE, "0.jpg"),
            ("1.txt", tarfile.SYMTYPE, "0.txt"),
            ("2.jpg", tarfile.SYMTYPE, "/etc/passwd"),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            tar.addfile(info)
    assert index(tmp_path).left_out == {"links and special members": 1}
    assert captions(tmp_path) == ["one", "one"]


def test_what_cannot_be_trained_on_is_counted(tmp_path):
    animated = io.BytesIO()
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue")]
    frames[0].save(animated, "GIF", save_all=True, append_images=frames[1:])
    members = [
        ("0.jpg", picture()),
        ("1.jpg", b"no picture"),
        ("1.txt", b"words"),
        ("2.gif", animated.getvalue()),
        ("2.txt", b"words"),
        ("3.jpg", picture()),
        ("3.png", picture(form="PNG")),
        ("3.txt", b"words"),
        ("4.jpg", picture()),
        ("4.json", b'{"caption": 4}'),
        ("5.txt", b"words alone"),
    ]
    write_tar(tmp_path / "a.tar", members)
    whole = write_tar(tmp_path / "b.tar", [("0.jpg", picture()), ("0.txt", b"kept"), ("1.jpg", picture(200, 200))])
    whole.write_bytes(whole.read_bytes()[:2600])
    assert index(tmp_path).left_out == {
        "without a caption": 2,
        "pictures that are not_an_image": 1,
        "pictures that are animated": 1,
        "further pictures of a sample": 1,
        "tars whose end is lost (truncated)": 1,
    }
    assert captions(tmp_path) == ["words", "kept"]


def test_hostile_pictures_cost_neither_the_index_nor_the_trainer_much(tmp_path, ghostscript_log):
    """Those that no header shows are samples until they are read, and damaged ones then."""
    members = ((f"{number}.{name.partition('.')[2]}", f"{number}.txt", name) for number, name in enumerate(HOSTILE))
    write_tar(
        tmp_path / "0.tar",
        [one for file, text, name in members for one in ((file, HOSTILE[name]), (text, name.encode()))],
    )
    begun = time.process_time()
    found = index(tmp_path)
    reader = reader_of(tmp_path)
    whole, damaged = [], 0
    for row in range(len(reader)):
        try:
            whole.append(reader.read(row, (32, 32)).mixed)
        except DamagedSample:
            damaged += 1
    assert time.process_time() - begun < 3
    assert whole == ["endless.png"]
    assert damaged + sum(found.left_out.values()) == len(HOSTILE) - 1
    assert not ghostscript_log.exists()


def test_an_index_may_be_elsewhere_and_tars_may_be_links(tmp_path):
    tar = write_tar(tmp_path / "disk" / "0.tar", IMG2DATASET)
    (tmp_path / "tars").mkdir()
    (tmp_path / "tars" / "0.tar").symlink_to(tar)
    index(tmp_path / "tars", tmp_path / "dataset")
    assert captions(tmp_path / "dataset") == ["a red field", "a square"]
    assert sorted(path.name for path in (tmp_path / "tars").iterdir()) == ["0.tar"]


def test_tars_that_moved_with_their_index_are_read(tmp_path):
    write_tar(tmp_path / "old" / "0.tar", IMG2DATASET)
    index(tmp_path / "old")
    (tmp_path / "old").rename(tmp_path / "new")
    assert captions(tmp_path / "new") == ["a red field", "a square"]


def test_a_tar_that_was_replaced_is_an_error_that_says_what_to_type(tmp_path):
    tar = write_tar(tmp_path / "0.tar", IMG2DATASET)
    index(tmp_path)
    write_tar(tar, IMG2DATASET[3:])
    with pytest.raises(ValueError, match=rf"the index says .*; run sigma index {tmp_path} again") as caught:
        reader_of(tmp_path).read(0, (32, 48))
    assert not isinstance(caught.value, DamagedSample)


def test_a_picture_or_a_caption_of_the_same_size_in_its_place_is_no_sample_of_the_index(tmp_path):
    tar = write_tar(tmp_path / "0.tar", IMG2DATASET)
    index(tmp_path)
    before = read_index(tmp_path / "shards")["content"].to_pylist()
    tar.write_bytes(tar.read_bytes().replace(b"a red field", b"a new field"))
    with pytest.raises(DamagedSample, match=r"0 in 0\.tar: has another picture or caption than when it was indexed"):
        captions(tmp_path)
    index(tmp_path)
    now = read_index(tmp_path / "shards")["content"].to_pylist()
    assert [a == b for a, b in zip(before, now, strict=True)] == [False, True]


def test_an_index_that_was_killed_is_written_by_running_it_again(tmp_path):
    write_tar(tmp_path / "0.tar", IMG2DATASET)
    index(tmp_path)
    first = (tmp_path / "shards" / "index.parquet").read_bytes()
    write_tar(tmp_path / "1.tar", IMG2DATASET)
    index(tmp_path, tmp_path / "undisturbed")
    with pytest.raises(Died), dying_at(0):
        index(tmp_path)
    assert (tmp_path / "shards" / "index.parquet").read_bytes() == first
    index(tmp_path)
    assert [path.name for path in (tmp_path / "shards").iterdir()] == ["index.parquet"]
    assert read_index(tmp_path / "shards").equals(read_index(tmp_path / "undisturbed" / "shards"))


def test_folders_without_samples_and_datasets_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no tar found"):
        index(tmp_path)
    os.mkfifo(tmp_path / "0.tar")
    with pytest.raises(ValueError, match=r"no sample .* \(1 tars that cannot be read \(a pipe, a socket or a device"):
        index(tmp_path)
    (tmp_path / "0.tar").unlink()
    write_tar(tmp_path / "0.tar", [("0.npy", b"latents")])
    with pytest.raises(ValueError, match=r"no sample in 1 tar .* \(they hold no picture\)"):
        index(tmp_path)
    write_tar(tmp_path / "0.tar", [("0.jpg", picture())])
    with pytest.raises(ValueError, match=r"no sample in 1 tar has a picture and a caption \(1 without a caption\)"):
        index(tmp_path)
    assert not (tmp_path / "shards" / "index.parquet").exists()
    with pytest.raises(ValueError, match="a store is no folder"):
        find_tars("s3://bucket/tars")
    built = write_dataset(tmp_path / "built", [(picture(), "raw", None)], [(48, 32)])
    write_tar(built / "0.tar", IMG2DATASET)
    with pytest.raises(ValueError, match="is a dataset that sigma build made"):
        index(built)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 4095), byte=st.integers(0, 255), cut=st.integers(0, 6000) | st.none())
def test_no_damage_of_a_tar_is_more_than_a_count(tmp_path, place, byte, cut):
    tar = write_tar(tmp_path / "a.tar", IMG2DATASET)
    data = bytearray(tar.read_bytes())
    data[place] = byte
    tar.write_bytes(data[:cut])
    write_tar(tmp_path / "b.tar", IMG2DATASET)
    done = index(tmp_path)
    assert 2 <= done.buckets.total() <= 4
