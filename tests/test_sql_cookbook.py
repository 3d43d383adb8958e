"""Every query of docs/sql.md, as a user would type it, on a small dataset with refused, doubled and broken pictures."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from engine import catalog, duck
from engine.dataset import Dataset
from tests.building import build, recipe, write_pictures

PAGE = (Path(__file__).parents[1] / "docs" / "sql.md").read_text(encoding="utf-8")
QUERIES = dict(re.findall(r"\*\*(.+?)\*\*.*?```sql\n(.+?)```", PAGE, re.DOTALL))
EMPTY = {
    "Which pictures fell to a rule by a hair?",
    "Which captions were cut, and by whose count?",
    "Which captions fit their picture least?",
}
"""Questions whose answer for this dataset is that there are none."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("cookbook")
    write_pictures(folder / "photos", [(96, 64)] * 5 + [(64, 96)] * 2)
    shutil.copy(folder / "photos" / "000.jpg", folder / "photos" / "copy.jpg")
    (folder / "photos" / "broken.jpg").write_bytes(b"no picture")
    (folder / "photos" / "copy.txt").write_text("IMG_1234.JPG")
    (folder / "photos" / "larger.txt").write_text("DSC_0001.JPG")  # no caption, so it takes over 006.jpg's
    with Image.open(folder / "photos" / "006.jpg") as small:
        small.resize((128, 192)).save(folder / "photos" / "larger.jpg")
    subsets, balance = {"subsets": {"wide": "aspect < 1"}}, {"most_images": 2}
    made = recipe(folder / "photos", folder / "dataset", select=subsets, balance=balance)
    return build(made, without=())[0]


def test_the_page_answers_nineteen_questions() -> None:
    assert len(QUERIES) == 19 and PAGE.count("```sql") == 19


@pytest.mark.parametrize("question", QUERIES)
def test_a_query_of_the_page_runs_and_has_an_answer(dataset: Dataset, question: str) -> None:
    with catalog.connect_read_only(dataset) as connection:
        rows = duck.query(connection, QUERIES[question]).fetchall()
    assert bool(rows) == (question not in EMPTY)


def test_the_counts_are_this_dataset_s(dataset: Dataset) -> None:
    with catalog.connect_read_only(dataset) as connection:
        answers = {question: duck.query(connection, text).fetchall() for question, text in QUERIES.items()}
    assert ("kept", None, None, 7) in answers["What became of every input?"]
    assert answers["How many pictures are in each subset?"] == [("wide", 5)]
    found = answers["Which duplicate fell, and which picture survived it?"]
    fallen = {survivor: (refused, method) for refused, survivor, method, _ in found}
    assert fallen == {"000.jpg": ("copy.jpg", "bytes"), "larger.jpg": ("006.jpg", "phash")}
    assert answers["Which picture was a raw caption inherited from?"] == [
        ("larger.jpg", "Picture number 006.", "006.jpg", None)
    ]
    assert [row[1] for row in answers["Which files could not be read, and why?"]] == ["broken.jpg"]


def test_concepts_are_counted_alike_from_captions_and_from_noun_uses(dataset: Dataset) -> None:
    with catalog.connect_read_only(dataset) as connection:
        answers = {question: duck.query(connection, text).fetchall() for question, text in QUERIES.items()}
        mixed = "FROM (SELECT unnest(list_distinct(nouns)) AS noun FROM nouns JOIN mix USING (row_id, caption_source))"
        slow = dict(connection.execute(f"SELECT noun, count(*) {mixed} GROUP BY noun").fetchall())
    most = answers["What do the captions of each source speak of most?"]
    assert {source for source, *_ in most} == {"raw", "synthetic", "mix"}
    quick = {noun: num_images for source, noun, num_images, _ in most if source == "mix"}
    assert quick and quick == {noun: slow[noun] for noun in quick}
    for noun, num_images, weighted in answers["How much does balancing even out the concepts?"]:
        assert num_images == slow[noun] and 0 < weighted <= num_images
    shares = [share for *_, share in answers["Which concepts does a subset have more of than the whole set?"]]
    assert shares == sorted(shares, reverse=True) and 0 < min(shares) <= max(shares) <= 1
