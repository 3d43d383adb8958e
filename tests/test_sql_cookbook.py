"""Every query of docs/sql.md, as a user would type it, on a small dataset with refused, doubled and broken pictures."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from curation import catalog
from curation.dataset import Dataset
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
    made = recipe(folder / "photos", folder / "dataset", select={"subsets": {"wide": "aspect < 1"}})
    return build(made, without=())[0]


def test_the_page_answers_fifteen_questions() -> None:
    assert len(QUERIES) == 15 and PAGE.count("```sql") == 15


@pytest.mark.parametrize("question", QUERIES)
def test_a_query_of_the_page_runs_and_has_an_answer(dataset: Dataset, question: str) -> None:
    with catalog.connect_read_only(dataset) as connection:
        rows = catalog.query(connection, QUERIES[question]).fetchall()
    assert bool(rows) == (question not in EMPTY)


def test_the_counts_are_this_dataset_s(dataset: Dataset) -> None:
    with catalog.connect_read_only(dataset) as connection:
        answers = {question: catalog.query(connection, text).fetchall() for question, text in QUERIES.items()}
    assert ("kept", None, None, 7) in answers["What became of every input?"]
    assert answers["How many pictures are in each subset?"] == [("wide", 5)]
    ((refused, survivor, method, distance),) = answers["Which duplicate fell, and which picture survived it?"]
    assert {refused, survivor} == {"000.jpg", "copy.jpg"} and (method, distance) == ("bytes", 0)
    assert [row[1] for row in answers["Which files could not be read, and why?"]] == ["broken.jpg"]
