from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.catalog import connect
from engine.dataset import Dataset
from schemas.recipe import Select
from schemas.scores import LIMITED, LIMITS
from tests.viewer.test_report import PHOTOS, build, report, write
from viewer import cards
from viewer import report as report_page
from viewer.grounding import worst_grounded
from viewer.report import write_report
from viewer.sections import REPORT

SCREENS: dict[str, Any] = {
    "sharpness": [9.0, 2.0, 1.0, 4.0, 0.1, None, None],
    "upscale": [1.0, 1.5, 3.0, 2.0, 9.0, None, None],
    "border": [None] * 7,
    "nsfw": [0.2, 0.9, 0.2, 0.1, 1.0, None, None],
    "clip_similarity": [0.3, None, None, 0.1, 0.0, None, None],
}
"""Of the four kept pictures, the duplicate (which would be the worst by everything), and two without."""


def order(dataset: Dataset, limit: int = 8) -> dict[str, list[int]]:
    with connect(dataset, threads=1) as connection:
        found = cards.worst(connection, limit)
    return {measure.column: [row_id for row_id, _ in pairs] for measure, pairs in found.items()}


@pytest.mark.slow
def test_worst_are_kept_pictures_by_the_end_that_select_would_refuse(tmp_path: Path) -> None:
    dataset = build(tmp_path / "data", PHOTOS, ["one", "two", "three", "four"])
    assert order(dataset) == {"aesthetic": [0, 1, 2, 3]}  # no screen has run
    write(dataset, "screens", image_id=[*"abcdae", None], **SCREENS)
    assert order(dataset) == {
        "aesthetic": [0, 1, 2, 3],
        "sharpness": [2, 1, 3, 0],
        "upscale": [2, 3, 1, 0],
        "nsfw": [1, 0, 2, 3],  # equals by row
        "clip_similarity": [3, 0],
    }
    assert order(dataset, 1)["nsfw"] == [1]


def test_every_limit_of_a_number_has_its_measure() -> None:
    assert {measure.column for measure in cards.MEASURES} == {"aesthetic", *LIMITED}
    worst_high = {f"max_{measure.column}" for measure in cards.MEASURES if measure.highest_is_worst}
    assert worst_high == {knob for knob in Select.model_fields if knob in LIMITS and knob.startswith("max_")}


@pytest.mark.slow
def test_the_page_shows_the_worst_with_value_and_captions_each_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_page, "REPORT", replace(REPORT, worst=2))
    dataset = build(tmp_path / "data", PHOTOS, ["one", "two", "three", "four"])
    write(dataset, "screens", image_id=[*"abcdae", None], **SCREENS)
    text, page = report(dataset, tmp_path)
    section = text[text.index('<section id="worst">') :].split("</section>")[0]
    grids = [grid.split("</h3>") for grid in section.split("<h3>")[1:]]
    assert [title for title, _ in grids] == [
        "Lowest aesthetic score", "Lowest sharpness", "Highest upscale", "Highest nsfw",
        "Lowest CLIP similarity of picture and raw caption",
    ]  # fmt: skip
    images = [grid.count("<img") for _, grid in grids]
    again = [grid.count('href="#worst-') for _, grid in grids]
    assert images == [2, 1, 1, 0, 0]  # rows 0, 1; 2; 3; the others are named and linked
    assert again == [0, 1, 1, 2, 2]
    assert "chelsea.png (2)" in page.text and "512 × 512 · score 5.5" in page.text
    assert "sharpness 1" in grids[1][1] and "three" in grids[1][1] and "in the mix: raw refused" in grids[1][1]
    for row_id in range(4):
        assert text.count(f'id="worst-{row_id}"') == 1


def noise(rng: np.random.Generator) -> bytes:
    """A proxy that hardly shrinks, of about 100 KB."""
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (320, 320, 3), dtype=np.uint8)).save(file, "JPEG", quality=80)
    return file.getvalue()


@pytest.mark.slow
def test_a_large_dataset_with_large_proxies_and_captions_stays_under_10_mb(tmp_path: Path) -> None:
    """5,000 rows that hardly shrink, each text of characters that HTML writes with five."""
    num, rng = 5000, np.random.default_rng(1)  # no picture is in two of the sections
    dataset, jpegs = Dataset(tmp_path / "data"), [noise(rng) for _ in range(10)]
    duplicate = np.arange(num) % 10 == 9
    ids = [f"{value:016x}" for value in rng.permutation(num)]
    where: dict[str, Any] = {"source": ["/photos"] * num, "source_name": ["photos"] * num, "member": ["&" * 200] * num}
    write(dataset, "listing", **where)
    write(
        dataset, "images", image_id=ids, width=[320] * num, height=[320] * num, raw_caption=['"&' * 600] * num, **where
    )
    write(dataset, "scores", image_id=ids, aesthetic=rng.uniform(1, 10, num).tolist())
    columns = {column: rng.uniform(0, 1, num).tolist() for column in LIMITED}
    columns["faces"] = [int(1e6 * value) for value in columns["faces"]]
    write(dataset, "screens", image_id=ids, **columns)
    write(dataset, "captions", image_id=ids, captioner=["c"] * num, caption=["'<" * 600] * num)
    write(
        dataset, "selection", image_id=ids, kept=(~duplicate).tolist(), subsets=[[]] * num,
        rejected_by=["duplicate" if one else None for one in duplicate],
        duplicate_of_row=[row - 1 if one else None for row, one in enumerate(duplicate)],
    )  # fmt: skip
    sentences = [["'<a " * 30] * 12] * num
    write(
        dataset, "grounding", image_id=ids, caption_source=["synthetic"] * num, scorer=["clip"] * num,
        sentences=sentences, sentence_scores=[[0.2] * 12] * num, lowest_score=rng.uniform(0, 1, num).tolist(),
        ungrounded=[["a"]] * num,
    )  # fmt: skip
    shown = set[int]()
    with connect(dataset, threads=1) as connection:
        shown |= set(cards.random(connection, REPORT.pictures))
        shown |= {row_id for pairs in cards.worst(connection, REPORT.worst).values() for row_id, _ in pairs}
        shown |= {row["row_id"] for row in worst_grounded(connection, REPORT.grounded)}
        for pair in cards.duplicates(connection, dataset.held(), REPORT.pairs):
            shown |= {pair["row_id"], pair["survivor_row"]}
    proxies = [jpegs[row % len(jpegs)] if row in shown else None for row in range(num)]
    assert sum(map(len, filter(None, proxies))) > 10_000_000
    write(dataset, "proxies", image_id=ids, jpeg=proxies)
    out = tmp_path / "report.html"
    with connect(dataset, threads=1) as connection:
        write_report(connection, dataset.root, out)
    page = out.read_text(encoding="utf-8")
    assert page.count("data:image/jpeg") == 60 + 10 * 8 + 24 + 2 * 24
    assert 3_000_000 < len(page.encode()) < 10_000_000
