"""Tars are listed whole whatever they look like, read by offset, and what a broken one lost is a row."""

from __future__ import annotations

import io
import json
import os
import random
import tarfile
from pathlib import Path

import pytest
import webdataset

from curation.sources import SourceListing, list_source, read_original
from curation.sources.patterns import expand_braces
from curation.sources.tars import split_key
from schemas.sources import WebDatasetSource
from tests import mutants
from tests.building import build, picture, recipe, rows
from tests.photos import encode
from tests.serving import serving

PICTURES = [encode(picture(seed), "JPEG") for seed in range(6)]


def tar_bytes(members: list[tuple[str, bytes]], form: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar of these members in this order."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form, errors="surrogateescape") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def listed(*urls: str | Path, **knobs: object) -> SourceListing:
    source = WebDatasetSource.from_mapping({"urls": [str(url) for url in urls], **knobs})
    listing = list_source(source)
    return SourceListing(list(listing.items), listing.ignored)


def contents(listing: SourceListing) -> dict[str, bytes]:
    """Member -> the bytes that are read where the listing says they lie."""
    return {
        item.member: read_original(item.source or "", item.member, item.byte_offset, item.num_bytes)
        for item in listing.items
        if item.reason is None
    }


def test_samples_as_webdataset_writes_them(tmp_path: Path) -> None:
    for shard in range(2):
        with webdataset.TarWriter(str(tmp_path / f"{shard:05d}.tar")) as writer:
            for number in range(3):
                words = {"caption": f"json {number}", "url": f"http://u:p@x/{number}"} if number else {"caption": " "}
                writer.write(
                    {"__key__": f"{shard}{number}", "jpg": PICTURES[number], "txt": f"text {number}", "json": words}
                )
    found = listed(tmp_path)
    assert [item.member for item in found.items] == [
        f"{shard:05d}.tar#{shard}{number}.jpg" for shard in range(2) for number in range(3)
    ]
    assert list(contents(found).values()) == PICTURES[:3] * 2
    assert [item.raw_caption for item in found.items[:3]] == ["text 0", "json 1", "json 2"]
    assert [item.url for item in found.items[:3]] == [None, "http://x/1", "http://x/2"]
    assert found.ignored == {"txt (captions)": 6, "json (captions)": 4, "json (no caption in it)": 2}
    assert listed(f"{tmp_path}/{{00000..00001}}.tar") == listed(f"{tmp_path}/*.tar") == found
    assert [item.member for item in listed(tmp_path / "00001.tar").items] == [item.member for item in found.items[3:]]


def test_captions_where_the_recipe_says(tmp_path: Path) -> None:
    words = json.dumps({"caption": "short", "long": "a longer one", "license": "CC0"}).encode()
    (tmp_path / "a.tar").write_bytes(tar_bytes([("1.jpg", b"1"), ("1.json", words), ("1.txt", b"text")]))
    captions = [
        listed(tmp_path, captions=knobs).items[0].raw_caption
        for knobs in ({}, {"json_fields": ["long", "caption"]}, {"json_fields": []}, {"json_fields": [], "txt": False})
    ]
    assert captions == ["short", "a longer one", "text", None]


def test_dots_in_the_names_of_images_and_captions(tmp_path: Path) -> None:
    """As `tar` packs a folder: the whole name says which caption is whose; without one of it, that of the sample."""
    members = [("d.1/day.2.jpg", PICTURES[0]), ("d.1/day.3.jpg", PICTURES[1]), ("d.1/day.4.jpg", PICTURES[2])]
    words = [
        ("d.1/day.3.txt", b"third"),
        ("d.1/day.2.TXT", b"second"),
        ("d.1/day.txt", b"all"),
        ("d.1/day.5.txt", b"-"),
    ]
    words += [("d.1/day.2.json", b'{"caption": 5}')]
    (tmp_path / "a.tar").write_bytes(tar_bytes(members + words))
    found = listed(tmp_path)
    assert [item.raw_caption for item in found.items] == ["second", "third", "all"]
    assert found.ignored == {"txt (captions)": 3, "5.txt": 1, "json (no caption in it)": 1}


def test_split_samples_odd_order_and_duplicates(tmp_path: Path) -> None:
    members = [
        ("1.txt", b"of one"),
        ("2.jpg", PICTURES[2]),
        ("1.jpg", PICTURES[1]),
        ("2.left.PNG", PICTURES[3]),
        ("sub/1.jpg", PICTURES[4]),
        ("1.jpg", PICTURES[5]),
        ("2.txt", b"of two"),
        ("1.txt", b"of one, again"),
        ("sub/1.cls", b"7"),
        ("./._1.jpg", b"of a Finder"),
        ("3.txt", b"of nothing"),
    ]
    (tmp_path / "odd.tar").write_bytes(tar_bytes(members))
    found = listed(tmp_path)
    assert [(item.member.removeprefix("odd.tar#"), item.raw_caption) for item in found.items] == [
        ("2.jpg", "of two"),
        ("1.jpg", "of one"),
        ("2.left.PNG", "of two"),
        ("sub/1.jpg", None),
        ("1.jpg", "of one, again"),
    ]
    pieces = [read_original(str(tmp_path), one.member, one.byte_offset, one.num_bytes) for one in found.items]
    assert pieces == [PICTURES[number] for number in (2, 1, 3, 4, 5)]
    assert found.ignored == {
        "txt (captions)": 3,
        "txt": 1,
        "images whose name came before (inputs as well)": 1,
        "cls": 1,
        "hidden": 1,
    }


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_names_of_any_length_and_bytes(tmp_path: Path, form: int) -> None:
    names = ["x" * 300 + "/" + "y" * 200 + ".jpg", "größe 写真.jpg", b"caf\xe9.jpg".decode("utf-8", "surrogateescape")]
    (tmp_path / "a#1 50%23.tar").write_bytes(tar_bytes([(name, PICTURES[0]) for name in names], form))
    found = listed(tmp_path)
    assert [item.member.partition("#")[2] for item in found.items] == [names[0], names[1], "caf%E9.jpg"]
    assert set(contents(found).values()) == {PICTURES[0]}
    assert len(contents(found)) == 3


def test_a_cut_tar_gives_what_it_holds_and_one_row_for_the_rest(tmp_path: Path) -> None:
    whole = tar_bytes([(f"{number}.jpg", data) for number, data in enumerate(PICTURES)])
    (tmp_path / "whole.tar").write_bytes(whole)
    members = listed(tmp_path).items
    assert len(members) == 6
    for cut in [*random.Random(1).sample(range(1, len(whole)), 40), *(item.byte_offset or 0 for item in members)]:
        (tmp_path / "whole.tar").write_bytes(whole[:cut])
        found = listed(tmp_path).items
        kept = [item for item in members if (item.byte_offset or 0) + (item.num_bytes or 0) <= cut]
        broken = found[len(kept) :]
        assert found[: len(kept)] == kept
        if cut >= (members[-1].byte_offset or 0) + -(-(members[-1].num_bytes or 0) // 512) * 512 + 512:
            assert broken == []  # the end mark is there
        else:
            assert [(item.member, item.reason) for item in broken] == [("whole.tar", "truncated")]
            assert "lost" in (broken[0].detail or "")


def test_files_that_are_no_tar(tmp_path: Path) -> None:
    good = tar_bytes([("1.jpg", PICTURES[0])])
    broken = bytearray(tar_bytes([("1.jpg", PICTURES[0]), ("2.jpg", PICTURES[1])]))
    second = 512 + -(-len(PICTURES[0]) // 512) * 512
    broken[second : second + 8] = b"garbage!"
    files = {"a.tar": b"<html>" * 200, "b.tar": b"", "c.tar.gz": b"\x1f\x8b", "d.tar": bytes(broken), "e.tar": good}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "f.tar").mkdir()
    found = listed(tmp_path)
    assert [(item.member, item.reason) for item in found.items] == [
        ("a.tar", "corrupt"),
        ("b.tar", "truncated"),
        ("c.tar.gz", "unsupported"),
        ("d.tar#1.jpg", None),
        ("d.tar", "corrupt"),
        ("e.tar#1.jpg", None),
        ("f.tar", "unreadable"),
    ]


@pytest.mark.slow
def test_tars_become_a_dataset_and_are_conserved(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    whole = tar_bytes([(f"{number}.jpg", data) for number, data in enumerate(PICTURES)])
    (tmp_path / "in" / "a.tar").write_bytes(whole[:-9000])
    made = recipe(None, tmp_path / "ds", sources=[{"kind": "webdataset", "urls": str(tmp_path / "in"), "name": "wds"}])
    dataset, _ = build(made)
    reasons = [row["reason"] for row in rows(dataset, "images")]
    num_good = len(reasons) - 1
    assert reasons == [None] * num_good + ["truncated"]
    assert 2 <= num_good <= 5
    assert len(rows(dataset, "samples")) == num_good
    assert {row["reason"] for row in rows(dataset, "samples")} == {None}
    assert {row["image_id"] for row in rows(dataset, "images")[:-1]} == {
        r["image_id"] for r in rows(dataset, "samples")
    }


@pytest.mark.slow
def test_a_remote_tar_is_read_by_ranges(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_bytes([("1.jpg", PICTURES[0]), ("1.txt", b"one"), ("2.jpg", PICTURES[1])]))
    with serving(tmp_path) as server:
        found = listed(f"{server.url}/files/{{a,b}}.tar")
        assert [(item.member, item.raw_caption, item.reason) for item in found.items] == [
            ("a.tar#1.jpg", "one", None),
            ("a.tar#2.jpg", None, None),
            ("b.tar", None, "not_found"),
        ]
        server.ranges.clear()
        assert list(contents(found).values()) == PICTURES[:2]
        assert [span.removeprefix("bytes=").split("-")[0] for span in server.ranges] == [
            str(item.byte_offset) for item in found.items[:2]
        ]
        with pytest.raises(ValueError, match=r"/status/500/a\.tar: cannot be read \(HTTP 500\); run again once it can"):
            listed(f"{server.url}/status/500/a.tar")


def test_sources_that_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no tar found; name a tar \(\.tar, "):
        listed(tmp_path)
    with pytest.raises(ValueError, match=r"nowhere: cannot be listed"):
        listed(tmp_path / "nowhere")
    (tmp_path / "a.tar").write_bytes(tar_bytes([]))
    with pytest.raises(ValueError, match=r"a\.tar: is named by more than one of urls"):
        listed(tmp_path, tmp_path / "a.tar")


def test_keys_and_braces() -> None:
    assert split_key("a.b/c.seg.PNG") == ("a.b/c", "seg.png")
    assert split_key("plain") == ("plain", "")
    assert expand_braces("x/{08..11}-{a,b}.tar")[:3] == ["x/08-a.tar", "x/08-b.tar", "x/09-a.tar"]
    assert expand_braces("{only}.tar") == ["{only}.tar"]


def test_tars_that_are_joined_are_read_to_the_end(tmp_path: Path) -> None:
    """As `cat` joins them; the second has samples of the same names, which are others."""
    first = tar_bytes([("1.jpg", PICTURES[0]), ("2.jpg", PICTURES[1]), ("2.txt", b"two")])
    second = tar_bytes([("1.jpg", PICTURES[2]), ("1.txt", b"of the second"), ("2.jpg", PICTURES[3])])
    (tmp_path / "a.tar").write_bytes(first + second + tar_bytes([]) + tar_bytes([("3.jpg", PICTURES[4])]))
    found = listed(tmp_path)
    assert [(item.member, item.raw_caption) for item in found.items] == [
        ("a.tar#1.jpg", None),
        ("a.tar#2.jpg", "two"),
        ("a.tar#1.jpg", "of the second"),
        ("a.tar#2.jpg", None),
        ("a.tar#3.jpg", None),
    ]
    pieces = [read_original(str(tmp_path), one.member, one.byte_offset, one.num_bytes) for one in found.items]
    assert pieces == PICTURES[:5]
    for behind, reason in ((b"<html>" * 300, "corrupt"), (second[:3000], "truncated"), (b"\0" * 70_000, None)):
        (tmp_path / "a.tar").write_bytes(first + behind)
        assert [item.reason for item in listed(tmp_path).items if item.member == "a.tar"] == [reason] * (
            reason is not None
        )


def test_links_are_inputs_with_the_bytes_that_they_lead_to(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:

        def add(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, target: str = "") -> None:
            info = tarfile.TarInfo(name)
            info.size, info.type, info.linkname = len(data), kind, target
            archive.addfile(info, io.BytesIO(data))

        add("early.jpg", kind=tarfile.SYMTYPE, target="./sub/0.jpg")
        add("sub/0.jpg", PICTURES[0])
        add("sub/0.txt", b"of the target")
        add("hard.jpg", kind=tarfile.LNKTYPE, target="sub/0.jpg")
        add("hard.txt", b"its own")
        add("sub/soft.jpg", kind=tarfile.SYMTYPE, target="../hard.jpg")
        add("sub/soft.txt", kind=tarfile.SYMTYPE, target="0.txt")
        add("out.jpg", kind=tarfile.SYMTYPE, target="/etc/passwd")
        add("loop.jpg", kind=tarfile.SYMTYPE, target="loop.jpg")
        add("sub/.hidden.jpg", kind=tarfile.SYMTYPE, target="0.jpg")
        add("notes.pdf", kind=tarfile.SYMTYPE, target="sub/0.jpg")
        add("pipe.jpg", kind=tarfile.FIFOTYPE)
    (tmp_path / "a.tar").write_bytes(buffer.getvalue())
    found = listed(tmp_path)
    assert [(item.member.removeprefix("a.tar#"), item.raw_caption, item.reason) for item in found.items] == [
        ("early.jpg", None, None),
        ("sub/0.jpg", "of the target", None),
        ("hard.jpg", "its own", None),
        ("sub/soft.jpg", "of the target", None),
        ("out.jpg", None, "unreadable"),
        ("loop.jpg", None, "unreadable"),
    ]
    assert found.items[4].detail == "a link to /etc/passwd, which the tar does not hold"
    assert list(contents(found).values()) == [PICTURES[0]] * 4
    assert found.ignored == {"txt (captions)": 3, "hidden": 1, "links": 1, "special members": 1}


def test_a_tar_that_is_a_pipe_is_a_row_and_hidden_ones_are_counted(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.tar")
    (tmp_path / "._b.tar").write_bytes(b"of a Finder")
    (tmp_path / "b.tar").write_bytes(tar_bytes([("1.jpg", PICTURES[0]), ("1.caption", b"of one")]))
    for where in (tmp_path, f"{tmp_path}/*.tar"):
        found = listed(where)
        assert [(item.member, item.reason, item.raw_caption) for item in found.items] == [
            ("a.tar", "unreadable", None),
            ("b.tar#1.jpg", None, "of one"),
        ]
        assert found.ignored == {"hidden": 1, "caption (captions)": 1}
    assert [item.reason for item in listed(tmp_path / "._b.tar").items] == ["truncated"]  # as it is named


def test_a_mutated_tar_is_rows_and_never_an_error(tmp_path: Path) -> None:
    """Joined tars with links, damaged anywhere: what is listed can be read, and what is lost is a row."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, kind, target in (("l.jpg", tarfile.SYMTYPE, "1.jpg"), ("h.txt", tarfile.LNKTYPE, "1.txt")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            archive.addfile(info)
    members = [("1.jpg", b"\xff\xd8" * 40), ("1.txt", b"one"), ("1.json", b'{"caption": "x"}'), ("2.jpg", b"2")]
    whole = tar_bytes(members)[:5120] + buffer.getvalue()[:2048] + tar_bytes(members, tarfile.GNU_FORMAT)[:5120]
    path = tmp_path / "a.tar"
    changes = (mutants.flips, mutants.cut, mutants.hole, mutants.insertion, mutants.swap)
    for number in range(300):
        chance = random.Random(number)
        path.write_bytes(chance.choice(changes)(whole, chance))
        try:
            found = listed(path)
        except ValueError as error:  # nothing is left that is an image
            assert str(path) in str(error)
            continue
        for item in found.items:
            assert item.reason is not None or len(contents(SourceListing([item], {}))[item.member]) == item.num_bytes
