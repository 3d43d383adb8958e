"""The offline scorer: sharper, richer and better exposed is higher; nothing is near 1."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from curation.ingest import ingest
from curation.scores import aesthetic
from curation.scores.aesthetic import measure, photographic
from schemas.recipe import DataRecipe
from schemas.tables import schema_of
from tests.photos import encode, listing_table, photo, write_files

COLOUR = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "ihc.png")


@pytest.mark.parametrize("name", COLOUR)
def test_blur_and_bad_exposure_lower_a_score(name: str) -> None:
    original = photo(name)
    score = photographic(original)
    blurred = [photographic(original.filter(ImageFilter.GaussianBlur(radius))) for radius in (1, 2, 4)]
    assert score > blurred[0] > blurred[1] > blurred[2]
    worse = {
        "grey": original.convert("L").convert("RGB"),
        "faded": ImageEnhance.Contrast(original).enhance(0.4),
        "dark": ImageEnhance.Brightness(original).enhance(0.15),
        "blown out": ImageEnhance.Brightness(original).enhance(4.0),
    }
    assert all(photographic(image) < score for image in worse.values())


@pytest.mark.parametrize("colour", ["black", "white", "grey"])
def test_an_empty_frame_is_near_1(colour: str) -> None:
    assert photographic(Image.new("RGB", (300, 200), colour)) == 1.0


def test_scale() -> None:
    scores = [photographic(photo(name)) for name in COLOUR]
    assert all(5 < score < 10 for score in scores)
    assert 1 < photographic(photo("moon.png")) < 4


def test_the_size_of_the_proxy_hardly_matters() -> None:
    large = photo("retina.jpg")
    assert photographic(large) == pytest.approx(photographic(large.resize((1024, 1024))), abs=0.3)


def test_colourfulness_is_that_of_the_paper() -> None:
    """Half pure red, half pure green: rg is +-255, yb is 127.5 everywhere, so M = 255 + 0.3 * 127.5."""
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, :32, 0] = 255
    pixels[:, 32:, 1] = 255
    expected = 1 - np.exp(-(255 + 0.3 * 127.5) / 40)
    assert measure(Image.fromarray(pixels)).colourfulness == pytest.approx(expected)


def test_exposure_counts_clipped_pixels() -> None:
    pixels = np.full((64, 64, 3), 127, np.uint8)
    assert measure(Image.fromarray(pixels)).exposure == pytest.approx(1.0, abs=1e-4)
    pixels[:, :32] = 0
    half_crushed = measure(Image.fromarray(pixels)).exposure
    assert half_crushed == pytest.approx(np.sqrt(0.5) * (1 - 3 * (63.5 / 255 - 0.5) ** 2))


def test_stage(tmp_path: Path) -> None:
    folder = write_files(
        tmp_path / "photos", {"a.png": encode(photo("coffee.png"), "PNG"), "b.jpg": b"", "c.jpg": b"<html>"}
    )
    recipe = DataRecipe(images=str(folder), out=str(tmp_path / "out"))
    tables = ingest.map_job(recipe).build()({"listing": listing_table(folder)}, lambda n: None)
    stage = aesthetic.map_job(recipe)
    table = stage.build()({"proxies": tables["proxies"]}, lambda n: None)["scores"]
    rows = table.to_pylist()
    assert table.schema == schema_of("scores")
    assert rows[0]["aesthetic"] == pytest.approx(photographic(photo("coffee.png")), abs=0.3)
    assert rows[0]["aesthetic_scorer"] == "photographic"
    assert [(row["row_id"], row["aesthetic"], row["aesthetic_scorer"]) for row in rows[1:]] == [
        (1, None, None),
        (2, None, None),
    ]
    assert stage.knobs == {"aesthetic.scorer": "photographic"}
