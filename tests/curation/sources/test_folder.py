"""A folder is listed whole, in an order of names alone, and what is no input is counted."""

from __future__ import annotations

import json
import os
import random
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.sources import SourceListing, list_source, read_original
from curation.sources.entries import sorted_on_disk
from curation.sources.folder import image_extensions
from curation.sources.item import member_name, member_path
from curation.sources.read import file_of
from schemas.recipe import FolderSource
from tests.photos import write_files


def listed(folder: Path) -> SourceListing:
    """The listing of a folder."""
    listing = list_source(FolderSource(path=str(folder)))
    return SourceListing(list(listing.items), listing.ignored, listing.links)


def members(folder: Path) -> list[str]:
    """The inputs of a folder."""
    return [item.member for item in listed(folder).items]


def refusal(folder: Path) -> str:
    """The message a folder is refused with."""
    with pytest.raises(ValueError) as caught:
        listed(folder)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(str(folder), "FOLDER")


def test_order_is_that_of_the_paths_as_bytes(tmp_path: Path) -> None:
    names = ["a/b.jpg", "a.jpg", "a0.jpg", "a/é.jpg", "a/z/1.jpg", "B.jpg", "ä.jpg", "a-b/c.jpg", "z.jpg", "10.jpg"]
    shuffled = random.Random(0).sample(names, len(names))
    write_files(tmp_path, dict.fromkeys(shuffled, b"x"))
    assert members(tmp_path) == sorted(names, key=os.fsencode)


@settings(max_examples=50, deadline=None)
@given(st.sets(st.lists(st.sampled_from(["a", "b", "a.b", "a-", "é", "0"]), min_size=1, max_size=3).map("/".join)))
def test_depth_first_gives_the_order_of_whole_paths(paths: set[str]) -> None:
    files = {f"{path}.jpg": b"" for path in paths}
    if not files:
        return
    with tempfile.TemporaryDirectory() as folder:
        assert members(write_files(Path(folder), files)) == sorted(files, key=os.fsencode)


def test_inputs_are_files_with_an_image_extension(tmp_path: Path) -> None:
    inputs = ["a.JPG", "b.jpeg", "c.Png", "d.webp", "e.heic", "f.HEIF", "g.jxl", "h.avif", "i.tiff", "j.gif", "k.jp2"]
    others = ["l.txt", "m.pdf", "n.PDF", "o", "p.mp4", "q.eps", "r.h5", ".hidden.jpg", ".git/s.jpg", "t.mpg"]
    write_files(tmp_path, dict.fromkeys([*inputs, *others], b""))
    listing = listed(tmp_path)
    assert [item.member for item in listing.items] == inputs
    assert listing.ignored == {
        "txt": 1,
        "pdf": 2,
        "no extension": 1,
        "mp4": 1,
        "eps": 1,
        "h5": 1,
        "hidden": 2,
        "mpg": 1,
    }
    assert {".jpg", ".jxl", ".heic"} <= image_extensions()


def test_sizes_and_sidecars(tmp_path: Path) -> None:
    write_files(
        tmp_path,
        {
            "s/a.jpg": b"12345",
            "s/a.txt": b"",
            "s/b.jpg": b"",
            "s/b.jpg.txt": b"",
            "s/c.d.jpg": b"",
            "s/c.d.TXT": b"",
            "s/c.txt": b"",
            "s/e.jpg": b"",
            "s/e.json": b"",
            "s/e.txt": b"",
            "s/f.jpg": b"",
            "a.txt": b"",
        },
    )
    listing = listed(tmp_path)
    assert [(item.member, item.num_bytes, item.sidecar) for item in listing.items] == [
        ("s/a.jpg", 5, "s/a.txt"),
        ("s/b.jpg", 0, "s/b.jpg.txt"),
        ("s/c.d.jpg", 0, "s/c.d.TXT"),
        ("s/e.jpg", 0, "s/e.json"),
        ("s/f.jpg", 0, None),
    ]
    assert listing.ignored == {"txt (captions)": 4, "txt": 2, "json (captions)": 1}


def test_of_caption_files_that_differ_in_case_the_small_letters_are_taken(tmp_path: Path) -> None:
    """Whatever order the names are kept in: with 20 images chance would hardly choose alike."""
    names = [f"{number:02d}" for number in range(20)]
    write_files(tmp_path, {f"{name}.{end}": b"" for name in names for end in ("jpg", "TXT", "Txt", "txt", "tXT")})
    listing = listed(tmp_path)
    assert [item.sidecar for item in listing.items] == [f"{name}.txt" for name in names]
    assert listing.ignored == {"txt (captions)": 20, "txt": 60}


def test_a_folder_that_is_sorted_on_disk_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that begin alike, so that images, their captions and other files lie mixed in the order."""
    chance = random.Random(0)
    ends = ("jpg", "png", "txt", "json", "TXT", "jpg.txt", "b", "b.jpg", "b.json", "b.jpg.json", "b.c.webp", "c.txt")
    names = {
        f"{chance.choice(('a', 'b', 'a.b', 'ab', 'a-b'))}{number % 7}.{chance.choice(ends)}" for number in range(300)
    }
    write_files(tmp_path, {f"{folder}/{name}": b"" for folder in ("x", "y") for name in names})
    write_files(tmp_path, {"y/a.d/b.jpg": b"", "z/.hidden": b"", "z/recipe.yaml": b"", "z/tables/x.jpg": b""})
    whole = listed(tmp_path)
    found = list(whole.items)
    for member, sidecar in ((item.member, item.sidecar) for item in found):
        stem, folder = member.rpartition(".")[0], tmp_path
        beside = [f"{base}{end}" for base in (stem, member) for end in (".json", ".txt", ".TXT")]
        assert sidecar == next((name for name in beside if (folder / name).is_file()), None)
    monkeypatch.setattr("curation.sources.entries.sorted_on_disk", partial(sorted_on_disk, run_entries=5))
    again = listed(tmp_path)
    assert list(again.items) == found
    assert again.ignored == whole.ignored
    assert again.ignored["dataset folder"] == again.ignored["hidden"] == 1


def test_links_and_special_files(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "in", {"a.jpg": b"1", "deep/b.jpg": b"2"})
    (folder / "link.jpg").symlink_to(folder / "a.jpg")
    (folder / "linked").symlink_to(folder / "deep")
    (folder / "loop").symlink_to(folder)
    (folder / "gone.jpg").symlink_to(folder / "nowhere")
    (folder / "itself.jpg").symlink_to(folder / "itself.jpg")
    os.mkfifo(folder / "pipe.jpg")
    listing = listed(folder)
    assert [(item.member, item.num_bytes) for item in listing.items] == [
        ("a.jpg", 1),
        ("deep/b.jpg", 1),
        ("gone.jpg", None),
        ("itself.jpg", None),
        ("link.jpg", 1),
    ]
    assert listing.ignored == {"linked folder": 2, "special file": 1}
    assert listing.links == {"to files of the folder": 1, "to no file": 2}


def test_a_folder_that_cannot_be_listed_does_not_vanish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path, {"a/1.jpg": b"", "locked/2.jpg": b"", "z/3.jpg": b""})
    scandir = os.scandir

    def locked(path: Path) -> Iterator[os.DirEntry[str]]:
        if path.name == "locked":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)
    items = listed(tmp_path).items
    assert [(item.member, item.num_bytes) for item in items] == [("a/1.jpg", 0), ("locked", None), ("z/3.jpg", 0)]


def test_a_dataset_inside_the_folder_is_left_out(tmp_path: Path) -> None:
    write_files(
        tmp_path, {"a.jpg": b"", "out/recipe.yaml": b"", "out/tables/x.parquet": b"", "out/samples/grid.png": b""}
    )
    listing = listed(tmp_path)
    assert [item.member for item in listing.items] == ["a.jpg"]
    assert listing.ignored == {"dataset folder": 1}


def test_names_that_are_not_utf8_survive(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9 100%.jpg")).write_bytes(b"bytes of it")
    (tmp_path / "50%E9.jpg").write_bytes(b"another")
    names = members(tmp_path)
    assert names == ["50%25E9.jpg", "caf%E9 100%.jpg"]
    assert [read_original(str(tmp_path), name) for name in names] == [b"another", b"bytes of it"]
    pa.array(names, pa.string())


@settings(deadline=None)
@given(st.binary(max_size=30))
def test_escaping_is_reversible(path: bytes) -> None:
    name = member_name(path)
    name.encode("utf-8")
    assert member_path(name) == path


@settings(deadline=None)
@given(st.text(alphabet="%25E9aé/", max_size=12))
def test_escaping_of_escapes_is_reversible(path: str) -> None:
    assert member_path(member_name(path.encode())) == path.encode()


def test_originals_by_offset(tmp_path: Path) -> None:
    write_files(tmp_path, {"a/b.bin": b"0123456789"})
    assert file_of(str(tmp_path), "a/b.bin") == str(tmp_path / "a" / "b.bin")
    assert read_original(str(tmp_path), "a/b.bin") == b"0123456789"
    assert read_original(str(tmp_path), "a/b.bin", 2, 3) == b"234"
    with pytest.raises(FileNotFoundError):
        read_original(str(tmp_path), "a/c.bin")


@pytest.mark.parametrize("name", ["captions.csv", "captions.jsonl", "captions.parquet"])
def test_captions_tables(tmp_path: Path, name: str) -> None:
    write_files(tmp_path, {"a.jpg": b"", "s/b.jpg": b"", "s/c.jpg": b"", "d é.jpg": b""})
    rows = [
        ("a.jpg", 'one, "two"\nthree', "http://x/a"),
        ("./s/b.jpg", " b ", ""),
        (str(tmp_path / "s" / "c.jpg"), "c", None),
        ("d e\u0301.jpg", "decomposed", None),
        ("gone.jpg", "of nothing", None),
        ("a.jpg", "a second one", None),
    ]
    if name.endswith("csv"):
        quoted = ["image,text,url"]
        quoted += [f'"{file}","{text.replace(chr(34), chr(34) * 2)}",{url or ""}' for file, text, url in rows]
        (tmp_path / name).write_text("\n".join(quoted), encoding="utf-8-sig")
    elif name.endswith("jsonl"):
        lines = [json.dumps({"file_name": file, "caption": text, "url": url}) for file, text, url in rows]
        (tmp_path / name).write_text("\n\n".join(lines))
    else:
        files, texts, urls = zip(*rows, strict=True)
        pq.write_table(pa.table({"path": files, "prompt": texts, "url": urls, "other": range(6)}), tmp_path / name)
    listing = listed(tmp_path)
    assert [(item.member, item.raw_caption, item.url) for item in listing.items] == [
        ("a.jpg", 'one, "two"\nthree', "http://x/a"),
        ("d é.jpg", "decomposed", None),
        ("s/b.jpg", "b", None),
        ("s/c.jpg", "c", None),
    ]
    kind = name.split(".")[1]
    assert listing.ignored == {
        f"{kind} (captions)": 1,
        "captions without an image": 1,
        "further captions of an image": 1,
    }


def test_captions_tables_that_are_refused(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.jpg": b"", "captions.csv": b"name,words\na.jpg,x\n"})
    assert refusal(tmp_path) == (
        "FOLDER/captions.csv: needs a column of file names, one of file_name, file, path, image, member; "
        "it has name, words"
    )
    write_files(tmp_path, {"captions.csv": b"file_name,words\na.jpg,x\n"})
    assert "needs a column of captions, one of caption, text, prompt, raw_caption" in refusal(tmp_path)
    write_files(tmp_path, {"captions.jsonl": b"{}"})
    assert refusal(tmp_path) == "FOLDER: holds captions.csv and captions.jsonl; keep one captions table"
    (tmp_path / "captions.csv").unlink()
    assert "it has none" in refusal(tmp_path)
    write_files(tmp_path, {"captions.jsonl": b"{broken\n"})
    assert refusal(tmp_path).startswith("FOLDER/captions.jsonl: line 1 is not JSON")
    write_files(tmp_path, {"captions.jsonl": b"[1]\n"})
    assert refusal(tmp_path) == "FOLDER/captions.jsonl: line 1 is no JSON object"
    (tmp_path / "captions.jsonl").unlink()
    write_files(tmp_path, {"captions.parquet": b"PAR1 not really"})
    assert "cannot be read as Parquet" in refusal(tmp_path)


def test_folders_that_are_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere").startswith("FOLDER: no such folder; check the spelling")
    (tmp_path / "file").write_bytes(b"")
    assert refusal(tmp_path / "file") == "FOLDER: is a file, not a folder; name the folder that holds it"
    (tmp_path / "file").unlink()
    write_files(tmp_path, {"notes.txt": b""})
    assert refusal(tmp_path / "notes.txt").endswith("in place of images: sources: [{kind: urls, path: FOLDER}]")
    assert refusal(tmp_path).startswith("FOLDER: holds no image; name a folder with .jpg, .png or .webp files")


def test_links_out_of_the_folder_are_followed_only_where_the_recipe_says(tmp_path: Path) -> None:
    write_files(tmp_path, {"out/a.jpg": b"outside", "out/secret": b"a text", "in/b.jpg": b"1", "in/deep/c.jpg": b"2"})
    folder = tmp_path / "in"
    for name, target in {
        "a.jpg": "../out/a.jpg",
        "b.txt": "../out/secret",
        "b.json": "deep/b.json",
        "deep/d.jpg": "../b.jpg",
        "captions.csv": "../out/captions.csv",
    }.items():
        (folder / name).symlink_to(target)
    write_files(tmp_path, {"in/deep/b.json": b"{}", "out/captions.csv": b"file,text\nb.jpg,from outside\n"})
    found = listed(folder)
    assert [(item.member, item.reason, item.sidecar, item.raw_caption) for item in found.items] == [
        ("a.jpg", "unreadable", None, None),
        ("b.jpg", None, "b.json", None),
        ("deep/c.jpg", None, None, None),
        ("deep/d.jpg", None, None, None),
    ]
    assert (
        found.items[0].detail
        == "a link that leads out of the folder; follow_links: true in its entry of sources reads it"
    )
    assert found.ignored == {
        "csv (links out of the folder, not read without follow_links)": 1,
        "txt (links out of the folder, not read without follow_links)": 1,
        "json (captions)": 1,
        "json": 1,
    }
    assert found.links == {
        "out of the folder, not read without follow_links": 1,
        "to files of the folder": 1,
    }
    following = list_source(FolderSource(path=str(folder), follow_links=True))
    followed = list(following.items)
    assert following.links == {"out of the folder": 1, "to files of the folder": 1}
    assert [(item.member, item.reason, item.raw_caption) for item in followed[:2]] == [
        ("a.jpg", None, None),
        ("b.jpg", None, "from outside"),
    ]
    (tmp_path / "door").symlink_to(folder)
    assert [item.reason for item in listed(tmp_path / "door").items] == ["unreadable", None, None, None]


def test_the_exact_name_gets_the_caption_before_another_spelling(tmp_path: Path) -> None:
    one, two = "caf\u00e9.jpg", "cafe\u0301.jpg"
    write_files(tmp_path, {one: b"", two: b"", "a\\b.jpg": b"", "a/b.jpg": b"", "c/d.jpg": b""})

    def captions(*rows: tuple[str, str]) -> dict[str, str | None]:
        (tmp_path / "captions.jsonl").write_text("".join(json.dumps({"file": f, "text": t}) + "\n" for f, t in rows))
        return {item.member: item.raw_caption for item in listed(tmp_path).items if item.raw_caption}

    assert captions((one, "composed")) == {one: "composed"}
    assert captions((two, "decomposed")) == {two: "decomposed"}
    assert captions((two, "decomposed"), (one, "composed")) == {one: "composed", two: "decomposed"}
    assert captions(("a\\b.jpg", "one name"), ("c\\d.jpg", "a path")) == {"a\\b.jpg": "one name", "c/d.jpg": "a path"}
    (tmp_path / one).unlink()
    assert captions((one, "composed")) == {two: "composed"}


def test_captions_by_the_names_that_other_tools_give_them(tmp_path: Path) -> None:
    write_files(
        tmp_path,
        {
            "a.jpg": b"",
            "train/b.jpg": b"",
            "train/metadata.jsonl": b'{"file_name": "b.jpg", "text": "of a split"}\n{"file_name": "c.jpg"\n',
            "val/d.jpg": b"",
            "val/metadata.csv": b"file_name,label\nd.jpg,3\n",
            "e.jpg": b"",
            "e.caption": b"kohya",
            "f.jpg": b"",
            "f.json": b'{"caption": 7}',
            "f.CAPTION": b"",
            "metadata.csv": b"file_name,caption\na.jpg,of the root\n",
            "words.tar": b"",
            "other.parquet": b"",
        },
    )
    found = listed(tmp_path)
    assert [(item.member, item.raw_caption, item.sidecar) for item in found.items] == [
        ("a.jpg", "of the root", None),
        ("e.jpg", None, "e.caption"),
        ("f.jpg", None, "f.json"),
        ("train/b.jpg", "of a split", None),
        ("val/d.jpg", None, None),
    ]
    assert {kind.replace(str(tmp_path), "FOLDER"): num for kind, num in found.ignored.items()} == {
        "csv (captions)": 1,
        "csv (not read; a source of kind table reads it)": 1,
        "jsonl (captions)": 1,
        "caption (captions)": 2,
        "json (captions)": 1,
        "tar (not read; a source of kind webdataset reads it)": 1,
        "parquet (not read; a source of kind table reads it)": 1,
        "rows of captions that cannot be read (the first: FOLDER/train/metadata.jsonl, line 2 is not JSON: Expecting "
        "',' delimiter: line 2 column 1 (char 22))": 1,
        "captions tables that are not read (the first: FOLDER/val/metadata.csv: needs a column of captions, one of "
        "caption, text, prompt, raw_caption; it has file_name, label)": 1,
    }


def test_captions_that_are_no_text_are_named(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.jpg": b"", "b.jpg": b"", "c.jpg": b""})
    rows = [
        {"file": "a.jpg", "caption": ["one", "two"]},
        {"file": "b.jpg", "caption": 7},
        {"file": "c.jpg", "caption": []},
    ]
    (tmp_path / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = listed(tmp_path)
    assert [item.raw_caption for item in found.items] == ["one", None, None]
    path, names = tmp_path / "captions.jsonl", "caption or text or prompt or raw_caption"
    assert found.ignored[f"captions that are no text (the first: {path}, line 2: {names} is int, not text)"] == 1


@pytest.mark.parametrize("target", ["../pipe", "/dev/zero", "../huge"])
def test_what_links_lead_to_is_never_waited_for(target: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(100 << 30)
    (tmp_path / "in" / "a.jpg").symlink_to(target)
    with pytest.raises(OSError, match=r"a pipe, a socket or a device|at most are read"):
        read_original(str(tmp_path / "in"), "a.jpg", most_bytes=1 << 20)


def test_a_folder_that_goes_away_while_it_is_listed_is_not_half_a_listing(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "in", {"a/1.jpg": b"", "b/2.jpg": b"", "c/3.jpg": b""})
    items = iter(list_source(FolderSource(path=str(folder))).items)
    assert next(items).member == "a/1.jpg"
    folder.rename(tmp_path / "gone")
    with pytest.raises(ValueError, match="in: went away while it was listed; run again once it is back"):
        list(items)
