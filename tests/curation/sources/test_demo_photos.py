"""The demo's folder: real photographs with captions, and one of each kind of bad file."""

from __future__ import annotations

import hashlib
from pathlib import Path

from curation.dedup.fingerprint import hamming, phash
from curation.ingest.ingest import map_job
from curation.sources import list_source
from curation.sources.demo_photos import PHOTOS, write_demo_photos
from schemas.pixels import open_rgb
from schemas.recipe import DataRecipe, FolderSource
from tests.photos import listing_table


def digests(folder: Path) -> dict[str, str]:
    """The sha256 of every file below a folder."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def test_bytes_are_the_same_each_time(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_demo_photos(tmp_path / name)
    write_demo_photos(tmp_path / "two")
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def test_photos_are_ingested_and_bad_files_have_reasons(tmp_path: Path) -> None:
    num_images = write_demo_photos(tmp_path)
    listing = list_source(FolderSource(path=str(tmp_path)))
    items = list(listing.items)
    assert len(items) == num_images
    assert listing.ignored == {"jsonl (captions)": 1, "txt (captions)": 1, "json (captions)": 1}
    recipe = DataRecipe(images=str(tmp_path), out="unused")
    images = map_job(recipe).build()({"listing": listing_table(tmp_path)}, lambda n: None)["images"].to_pylist()
    reasons = {row["member"]: row["reason"] for row in images if row["reason"]}
    assert reasons == {
        "bad/blinking.gif": "animated",
        "bad/cut_in_half.jpg": "truncated",
        "bad/empty.jpg": "empty",
        "bad/error_page.jpg": "not_an_image",
    }
    good = [row for row in images if not row["member"].startswith("bad/")]
    assert len(good) == len(PHOTOS) >= 14
    assert all(6 <= len(row["raw_caption"].split()) <= 20 for row in good)
    assert all(min(row["width"], row["height"]) >= 160 for row in good)
    assert sum(row["license"] is not None for row in good) >= 10


def test_duplicates(tmp_path: Path) -> None:
    write_demo_photos(tmp_path)
    assert (tmp_path / "bad/coffee_copy.png").read_bytes() == (tmp_path / "coffee.png").read_bytes()
    hubble = [phash(open_rgb((tmp_path / name).read_bytes())) for name in PAIR]
    assert hamming(*hubble) <= 3
    thumbnail = open_rgb((tmp_path / "bad/thumbnail.png").read_bytes())
    assert min(thumbnail.size) < 160


PAIR = ("hubble_deep_field.jpg", "bad/hubble_recompressed.jpg")
