"""Tar members: headers that repeat, names that WebDataset does not split, JSON that reads back."""

from __future__ import annotations

import io
import tarfile

import pytest

from schemas.shard import (
    BLOCK,
    END_OF_ARCHIVE,
    decode_json,
    encode_json,
    extension,
    member_header,
    padding,
)


def test_header_is_read_by_tarfile_and_holds_no_time_or_owner() -> None:
    payload = b"hello"
    tar = member_header("abc.txt", len(payload)) + payload + bytes(padding(len(payload))) + END_OF_ARCHIVE
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        (member,) = archive.getmembers()
        read = archive.extractfile(member)
        assert read is not None
        assert read.read() == payload
    assert (member.name, member.mtime, member.uid, member.gid, member.uname, member.gname, member.mode) == (
        ("abc.txt", 0, 0, 0, "", "", 0o644)
    )
    assert member_header("abc.txt", 5) == member_header("abc.txt", 5)
    assert len(member_header("abc.txt", 5)) == BLOCK


@pytest.mark.parametrize("name", ["a.b.jpg", "nodot"])
def test_a_key_holds_no_dot(name: str) -> None:
    with pytest.raises(ValueError, match="a key holds no dot"):
        member_header(name, 1)


def test_a_name_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="long"):
        member_header("a" * 300 + ".jpg", 1)


@pytest.mark.parametrize(("size", "expected"), [(0, 0), (1, 511), (512, 0), (513, 511)])
def test_padding(size: int, expected: int) -> None:
    assert padding(size) == expected


def test_json_is_canonical_and_reads_back() -> None:
    sample = {"width": 3, "image_id": "é", "url": None}
    data = encode_json(sample)
    assert data == '{"image_id":"é","url":null,"width":3}'.encode()
    assert decode_json(data) == sample


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"\xff", b'{"width": 1}'])
def test_json_that_is_no_sample(data: bytes) -> None:
    with pytest.raises(ValueError, match="not the JSON of a sample"):
        decode_json(data)


def test_json_refuses_numbers_that_json_lacks() -> None:
    with pytest.raises(ValueError, match="JSON"):
        encode_json({"aesthetic": float("nan")})


def test_each_format_has_its_extension() -> None:
    assert [extension(name) for name in ("JPEG", "MPO", "PNG", "JPEG2000", "QOI", "A/B")] == [
        "jpg",
        "jpg",
        "png",
        "jp2",
        "qoi",
        "ab",
    ]
