"""Hashes that forgive recompression, tell photographs apart, and never pair flat frames."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageEnhance

from curation.dedup import fingerprint
from curation.dedup.fingerprint import hamming, phash, pixel_sha256, proxy_phash
from curation.ingest import ingest
from curation.ingest.ingest import encode_proxy
from schemas.pixels import open_rgb
from schemas.recipe import DataRecipe
from schemas.tables import schema_of
from tests.photos import encode, listing_table, photo, write_files

PHOTOS = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "moon.png",
    "motorcycle_left.png",
    "retina.jpg",
    "rocket.jpg",
)


@pytest.mark.parametrize("name", PHOTOS)
def test_a_copy_stays_within_three_bits(name: str) -> None:
    original = photo(name)
    half = original.resize((original.width // 2, original.height // 2), Image.Resampling.LANCZOS)
    copies = {
        "jpeg q60": open_rgb(encode(original, "JPEG", quality=60)),
        "webp": open_rgb(encode(original, "WEBP", quality=70)),
        "half the size": half,
        "proxy": open_rgb(encode(original, "JPEG", quality=90), longest_px=256),
        "brighter": ImageEnhance.Brightness(original).enhance(1.05),
    }
    distances = {how: hamming(phash(original), phash(copy)) for how, copy in copies.items()}
    assert all(distance <= 3 for distance in distances.values()), distances


def test_different_photos_are_far_apart() -> None:
    hashes = {name: phash(photo(name)) for name in PHOTOS}
    nearest = min((hamming(hashes[a], hashes[b]), a, b) for a, b in itertools.combinations(PHOTOS, 2))
    assert nearest[0] > 10, nearest


def test_about_half_of_the_bits_are_set() -> None:
    assert all(22 <= phash(photo(name)).bit_count() <= 42 for name in PHOTOS)


def test_a_mirrored_photo_is_another_picture() -> None:
    original = photo("chelsea.png")
    assert hamming(phash(original), phash(original.transpose(Image.Transpose.FLIP_LEFT_RIGHT))) > 10


def test_flat_frames_of_other_colours_have_other_hashes() -> None:
    frames = {colour: phash(Image.new("RGB", (64, 64), colour)) for colour in ("black", "white", "red", "navy", "grey")}
    assert len(set(frames.values())) == len(frames)
    assert min(hamming(a, b) for a, b in itertools.combinations(frames.values(), 2)) > 10
    noisy = np.clip(np.random.default_rng(0).normal(20, 0.5, (64, 64, 3)), 0, 255).astype(np.uint8)
    assert hamming(phash(Image.fromarray(noisy)), phash(open_rgb(encode(Image.fromarray(noisy), "JPEG")))) == 0


def test_hash_is_of_the_dct() -> None:
    """A single cosine has one coefficient; its bit alone stands out."""
    x = np.arange(32)
    wave = 128 + 100 * np.cos(np.pi * (2 * x + 1) * 1 / 64)
    image = Image.fromarray(np.tile(wave.round().astype(np.uint8), (32, 1)))
    assert phash(image) >> 63 == 1  # frequency (0, 1) comes first in zigzag order
    assert phash(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)) >> 63 == 0


def test_hamming() -> None:
    assert [hamming(0, 0), hamming(0b1011, 0b0001), hamming(0, 2**64 - 1)] == [0, 2, 64]


@pytest.mark.parametrize("name", PHOTOS)
@pytest.mark.parametrize("longest_px", [1024, 512, 100])
def test_a_proxy_that_is_decoded_small_hashes_as_a_whole_one(name: str, longest_px: int) -> None:
    picture = photo(name)
    picture = picture.resize((longest_px, max(1, longest_px * picture.height // picture.width)))
    jpeg = encode_proxy(picture, 90)
    assert hamming(proxy_phash(jpeg), phash(open_rgb(jpeg))) <= 2


@pytest.mark.parametrize("size", [(1024, 683), (64, 64), (1, 320), (320, 2)])
def test_a_flat_proxy_is_hashed_by_its_colour(size: tuple[int, int]) -> None:
    hashes = [proxy_phash(encode_proxy(Image.new("RGB", size, colour), 90)) for colour in ("black", "white", "navy")]
    assert hashes == [
        phash(open_rgb(encode_proxy(Image.new("RGB", size, colour), 90))) for colour in ("black", "white", "navy")
    ]
    assert len(set(hashes)) == 3


def test_pixel_sha256_ignores_the_wrapping_but_not_the_size() -> None:
    image = photo("coffee.png")
    proxy = encode_proxy(image, 90)
    again = encode_proxy(open_rgb(encode(image, "PNG", compress_level=1)), 90)
    turned = encode_proxy(image.transpose(Image.Transpose.ROTATE_180), 90)
    assert pixel_sha256(600, 400, proxy) == pixel_sha256(600, 400, again)
    assert pixel_sha256(600, 400, proxy) != pixel_sha256(1200, 800, proxy)
    assert pixel_sha256(600, 400, proxy) != pixel_sha256(600, 400, turned)


def test_stage(tmp_path: Path) -> None:
    coffee = encode(photo("coffee.png"), "PNG")
    folder = write_files(
        tmp_path / "photos",
        {
            "a.png": coffee,
            "b.png": encode(photo("coffee.png"), "PNG", compress_level=1),
            "c.jpg": b"",
            "d.png": encode(photo("chelsea.png"), "PNG"),
        },
    )
    recipe = DataRecipe(images=str(folder), out=str(tmp_path / "out"))
    tables = dict(ingest.map_job(recipe).build()({"listing": listing_table(folder)}, lambda n: None))
    done: list[int] = []
    stage = fingerprint.map_job(recipe)
    (name,) = stage.outputs
    table = stage.build()(tables, done.append)[name]
    rows = table.to_pylist()
    assert table.schema == schema_of("fingerprints")
    assert [row["row_id"] for row in rows] == [0, 1, 2, 3]
    assert sum(done) == 4
    assert rows[0]["pixel_sha256"] == rows[1]["pixel_sha256"] != rows[3]["pixel_sha256"]
    assert rows[0]["image_id"] != rows[1]["image_id"]
    assert (rows[2]["phash"], rows[2]["pixel_sha256"]) == (0, None), "a null would make floats of all hashes in pandas"
    assert rows[2]["image_id"] is not None
    assert stage.knobs == {}
    assert isinstance(table, pa.Table)
