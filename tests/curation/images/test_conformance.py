"""The conformance table: one folder of hard files through listing and ingest; each gives its pixels or its reason."""

from __future__ import annotations

import io
from typing import Any

import pytest
from PIL import Image

from curation.ingest.ingest import IngestWorker
from schemas.recipe import Ingest
from tests.hard_cases import PIXELS, REASONS, SIZE, TOLERANCE, furthest
from tests.photos import BLUE, RED, encode, listing_table, write_files


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Name -> (row of proxies, row of images), of all files of both tables and two long pictures."""
    folder = tmp_path_factory.mktemp("conformance")
    contents = {name: data for name, (data, *_) in (PIXELS | REASONS).items()}
    contents["wide.jpg"] = encode(Image.new("RGB", (20_000, 100), RED), "JPEG", quality=95)
    contents["tall.png"] = encode(Image.new("RGB", (8, 9_000), BLUE), "PNG")
    write_files(folder, contents)
    worker = IngestWorker(Ingest(proxy_px=320, proxy_quality=95, max_megapixels=50), threads=2)
    tables = worker({"listing": listing_table(folder)}, lambda num: None)
    found = zip(tables["proxies"].to_pylist(), tables["images"].to_pylist(), strict=True)
    return {image["member"]: (proxy, image) for proxy, image in found}


def test_every_file_is_one_row(rows: dict[str, Any]) -> None:
    assert set(rows) == {*PIXELS, *REASONS, "wide.jpg", "tall.png"}


@pytest.mark.parametrize("name", PIXELS)
def test_pixels(rows: dict[str, Any], name: str) -> None:
    proxy, image = rows[name]
    assert image["reason"] is None, image["detail"]
    assert (image["width"], image["height"]) == SIZE
    picture = Image.open(io.BytesIO(proxy["jpeg"]))
    assert (picture.mode, picture.size) == ("RGB", (320, 160))
    assert furthest(picture, PIXELS[name][1]) <= TOLERANCE


@pytest.mark.parametrize("name", REASONS)
def test_reasons(rows: dict[str, Any], name: str) -> None:
    proxy, image = rows[name]
    _, reason, words = REASONS[name]
    assert (image["reason"], proxy["jpeg"]) == (reason, None), image["detail"]
    assert words in image["detail"]
    assert len(image["image_id"]) == 32  # an id all the same: the bytes are known


@pytest.mark.parametrize(
    ("name", "size", "proxy_size"), [("wide.jpg", (20_000, 100), (320, 2)), ("tall.png", (8, 9_000), (1, 320))]
)
def test_extreme_shapes_keep_a_pixel(
    rows: dict[str, Any], name: str, size: tuple[int, int], proxy_size: tuple[int, int]
) -> None:
    proxy, image = rows[name]
    assert (image["reason"], (image["width"], image["height"])) == (None, size)
    assert (proxy["width"], proxy["height"]) == proxy_size


def test_transparency_is_measured(rows: dict[str, Any]) -> None:
    assert [rows[name][1]["alpha"] for name in ("alpha.png", "alpha.webp", "plain.png")] == [0.25, 0.25, None]


@pytest.mark.parametrize(
    ("name", "column", "value"),
    [
        ("a png named.jpg", "format", "PNG"),
        ("orientation_6.jpg", "exif_orientation", 6),
        ("icc.jpg", "icc", True),
        ("cmyk.jpg", "mode", "CMYK"),
        ("bomb.png", "width", 30_000),
        ("animated.gif", "frames", 4),
    ],
)
def test_headers(rows: dict[str, Any], name: str, column: str, value: object) -> None:
    assert rows[name][1][column] == value
