from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.dataset import Dataset
from schemas import tables
from tests.browse_server import served
from tests.building import put
from viewer import images, search
from viewer.database import MOST_SEARCHES, Database, TooSlow
from viewer.filters import Filter
from viewer.search import condition, text_condition

NUM_PARTS, PART_ROWS = 12, 50


@pytest.fixture
def many(tmp_path: Path) -> Dataset:
    """600 pictures in 12 parts: every second raw caption has a cat, row 577 alone a yak in the synthetic one. The
    folder has a name that is a pattern."""
    import pyarrow as pa

    dataset = Dataset(tmp_path / "set [1]?")
    for number in range(NUM_PARTS):
        ids = range(number * PART_ROWS, (number + 1) * PART_ROWS)
        columns: dict[str, dict[str, Any]] = {
            "listing": {},
            "images": {"raw_caption": ["A Cat." if row % 2 == 0 else "A 100% dog." for row in ids]},
            "captions": {"caption": ["One YAK." if row == 577 else "A cat?" if row % 2 == 0 else None for row in ids]},
        }
        for table, given_ in columns.items():
            schema = tables.SCHEMAS[table]
            given_ |= {"row_id": ids, "source": ["s"] * PART_ROWS, "source_name": ["s"] * PART_ROWS,
                       "member": [f"{row}.jpg" for row in ids], "captioner": ["c"] * PART_ROWS}  # fmt: skip
            arrays = [pa.array(given_.get(field.name, [None] * PART_ROWS), field.type) for field in schema]
            put(dataset, table, number, pa.table(arrays, schema=schema))
    return dataset


def ids(page: images.Page) -> list[int]:
    return [card["row_id"] for card in page.cards]


@pytest.mark.slow
def test_a_search_finds_each_image_once_in_both_captions_on_all_pages(many: Dataset) -> None:
    database = Database(many)
    first = images.page(database, Filter(text="cat"))
    assert ids(first) == list(range(0, 48, 2)) and first.next == (46.0, 46)
    assert ids(images.page(database, Filter(text="cat", after=first.next))) == list(range(48, 96, 2))
    assert database.search("text", "cat").finished(10)
    assert images.page(database, Filter(text="cat")).num == 300
    last = images.page(database, Filter(text="yak"))
    assert (ids(last), last.num, last.next, last.counting) == ([577], 1, None, False)
    assert ids(images.page(database, Filter(text="0% D")))[:2] == [1, 3]


def test_the_first_images_are_there_before_the_last_part_is_read(
    many: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part that cannot be read lies behind them: the first page is whole, and the error comes when it is reached."""
    monkeypatch.setattr(search, "MOST_PARTS", 2)
    database = Database(many)
    many.part("images", NUM_PARTS - 1).write_bytes(b"no parquet")
    found = database.search("text", "cat").wait(images.PAGE + 1, -1, 10)
    assert list(found) == list(range(0, 50, 2))
    with pytest.raises(ValueError, match="part-00011"):
        database.search("text", "cat").finished(10)


@pytest.mark.slow
def test_a_search_that_goes_on_says_so_and_a_second_look_has_the_rest(
    many: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "FIRST_S", 0.0)
    monkeypatch.setattr(images, "COUNT_S", 0.0)
    read = search.Search._read

    def slowly(self: search.Search, names: Any) -> list[int]:
        time.sleep(0.3)
        return read(self, names)

    monkeypatch.setattr(search.Search, "_read", slowly)
    with served(many) as address, httpx.Client(base_url=address, timeout=30) as client:
        page = client.get("/images?q=yak").text
        assert "0 images so far, the search goes on" in page and "data-counting" in page
        assert "None yet: ask again in a moment." in page
        until = time.monotonic() + 20
        while "data-counting" in page and time.monotonic() < until:
            page = client.get("/images?q=yak").text
        assert re.findall(r'<a class="frame" href="/images/(\d+)"', page) == ["577"]
        assert "1 image." in page


@pytest.mark.slow
def test_a_list_beyond_the_end_of_a_cut_search_comes_from_the_tables(
    many: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is lost beyond what a search keeps, in any order."""
    monkeypatch.setattr(search, "MOST_FOUND", 60)
    monkeypatch.setattr(search, "MOST_PARTS", 2)
    database, found, after = Database(many), list[int](), None
    while True:
        page = images.page(database, Filter(text="cat", after=after))
        found, after = found + ids(page), page.next
        if after is None:
            break
    assert database.search("text", "cat").cut and len(database.search("text", "cat").rows) < 300
    assert found == list(range(0, 600, 2))
    assert ids(images.page(database, Filter(text="cat", descending=True)))[:2] == [598, 596]


def test_a_search_with_an_order_takes_what_was_found(many: Dataset) -> None:
    database = Database(many)
    page = images.page(database, Filter(text="cat", descending=True))
    assert ids(page)[:2] == [598, 596] and page.num == 300
    with pytest.raises(TooSlow, match="takes longer than 0 s"):
        database.seconds = 0
        images.page(database, Filter(text="dog", noun="cat"))


def test_only_the_last_searches_are_kept(many: Dataset) -> None:
    database = Database(many)
    kept = [database.search("text", f"word{number}") for number in range(MOST_SEARCHES + 1)]
    assert database.search("text", "word8") is kept[8]
    assert database.search("text", "word0") is not kept[0]


LETTERS = st.sampled_from("aAiIkKsSİıſK\u00e9É \n%_\\'$^.*[](){}|+?-&#~\"0")


@pytest.mark.slow
@given(st.text(LETTERS, min_size=1, max_size=4), st.text(LETTERS, max_size=12))
@example("i", "İ")
@example("k", "\u212a")
def test_the_quick_condition_finds_the_same_rows_as_the_exact_one(looked_for: str, text: str) -> None:
    quick, exact = text_condition("caption", looked_for), condition("caption")
    sql = f"SELECT {quick}, {exact} FROM (SELECT $caption AS caption)"
    found = duckdb.execute(sql, {"caption": text, "value": looked_for}).fetchall()
    assert found[0][0] == found[0][1]
