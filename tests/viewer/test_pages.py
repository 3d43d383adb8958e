from __future__ import annotations

import csv
import io
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pytest
from PIL import Image, ImageFilter
from starlette.testclient import TestClient

from commands import order
from curation.selection import select
from curation.selection import thresholds as command
from curation.selection.thresholds import EVERYTHING, rules_on_record
from curation.upkeep.find import Wanted, find
from curation.upkeep.purge import purge
from engine import catalog, duck
from engine.dataset import Dataset
from engine.ledger import ledger_counts
from engine.names import NOTHING
from engine.one_state import Replaced
from schemas.files import remove_folder
from schemas.recipe import DataRecipe, Select
from tests.browse_server import served
from tests.building import build as build_dataset
from tests.building import put, recipe, write_pictures
from tests.viewer.test_report import PHOTOS, Page, write
from tests.viewer.test_report import build as build_by_hand
from viewer import images, server, thresholds
from viewer.database import RULES_TABLE, Database, TooSlow, signature
from viewer.figures import LEDGER_TABLE, NOUNS_TABLE
from viewer.filters import Condition, Filter
from viewer.report import write_report
from viewer.sections import SECTIONS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def client(demo: Dataset) -> Iterator[httpx.Client]:
    with served(demo) as address, httpx.Client(base_url=address, timeout=30) as found:
        assert found.get("/overview/jobs").status_code == 200  # the last section: all are counted now
        yield found


@pytest.fixture(scope="module")
def database(demo: Dataset) -> Database:
    return Database(demo)


@pytest.fixture(scope="module")
def catalog_alone(demo: Dataset) -> Iterator[duckdb.DuckDBPyConnection]:
    """What `sigma sql` asks: the tables without the server."""
    with catalog.connect_read_only(demo) as connection:
        yield connection


def text(answer: httpx.Response) -> str:
    assert answer.status_code == 200
    return " ".join(Page(answer.text).text.split())


def test_the_overview_has_the_funnel_and_a_chart_of_each_kind(client: httpx.Client) -> None:
    page = client.get("/")
    assert "all inputs 22 = 22 listed: nothing is lost" in text(page)
    assert page.text.count('<svg viewBox="0 0 720') == 4
    assert "data-part" not in page.text
    assert "300 tokens" in text(page)


def test_the_funnel_links_to_lists_of_as_many_images_as_it_counts(client: httpx.Client) -> None:
    rows = re.findall(r'<a class="chip \w+" href="(/images[^"]*)">.*?<td class="right">([\d,]+)</td>',
                      client.get("/overview/inputs").text)  # fmt: skip
    assert len(rows) >= 6
    for link, num in rows:
        found = client.get(link.replace("&amp;", "&"))
        assert f"{num} image{'' if num == '1' else 's'}." in text(found)


def test_every_screen_that_ran_has_a_link_to_its_worst_images(tmp_path: Path) -> None:
    dataset = build_by_hand(tmp_path / "data", PHOTOS, ["one", "two", "three", "four"])
    write(dataset, "screens", image_id=[*"abcdae", None], sharpness=[9, 2, 1, 4, 0, None, None],
          nsfw=[0.2, 0.9, 0.3, 0.1, 1, None, None])  # fmt: skip
    with served(dataset) as address, httpx.Client(base_url=address, timeout=30) as client:
        section = client.get("/overview/worst").text
        found = re.search(r'<p class="worst-by">.*?</p>', section)
        assert found is not None
        links = [link.replace("&amp;", "&") for link in re.findall(r'href="([^"]*)"', found.group())]
        assert [link.split("&sort=")[1] for link in links] == [
            "scores.aesthetic&order=up", "screens.sharpness&order=up", "screens.nsfw&order=down",
        ]  # fmt: skip
        pages = [client.get(link).text for link in links]
        assert [re.findall(r'<a class="frame" href="/images/(\d)"', page) for page in pages] == [
            [*"0123"], [*"2130"], [*"1203"],
        ]  # fmt: skip
        assert "screens.sharpness 1" in pages[1] and "screens.nsfw 0.9" in pages[2]


FILTERS = (
    Filter(),
    Filter(text="CAT"),
    Filter(noun="sky"),
    Filter((Condition("ledger.outcome", "is", "rejected"),)),
    Filter((Condition("ledger.reason", "given", ""),), sort="listing.num_bytes", descending=True),
    Filter((Condition("scores.aesthetic", "ge", "4.2"),), sort="scores.aesthetic"),
    Filter((Condition("selection.subsets", "has", "wide"),)),
    Filter((Condition("listing.member", "contains", "BAD/"), Condition("images.width", "empty", ""))),
    Filter((Condition("picture.height_over_width", "lt", "0.8"),), sort="picture.megapixels", descending=True),
    Filter((Condition("fingerprints.phash", "gt", "9223372036854775807"),)),
)


@pytest.mark.parametrize("wanted", FILTERS, ids=lambda wanted: wanted.address() or "all")
def test_the_sql_to_copy_gives_the_rows_of_the_pages(
    catalog_alone: duckdb.DuckDBPyConnection, database: Database, wanted: Filter, monkeypatch: Any
) -> None:
    """All pages together, before and after the ledger is prepared; nothing twice, nothing left out."""
    monkeypatch.setattr(images, "PAGE", 4)
    expected = [row[0] for row in duck.query(catalog_alone, wanted.sql()).fetchall()]
    assert expected
    assert Filter.of(httpx.QueryParams(wanted.address()).multi_items()) == wanted
    database._prepared.clear()
    for _ in range(2):
        found, place = list[int](), wanted
        while True:
            page = images.page(database, place)
            found += [card["row_id"] for card in page.cards]
            assert page.num == len(expected) or page.counting
            if page.next is None:
                assert not page.counting
                break
            place = Filter.of(httpx.QueryParams(wanted.address(after=page.next)).multi_items())
        assert found == expected
        database.prepare(LEDGER_TABLE)


@pytest.mark.parametrize("wanted", FILTERS, ids=lambda wanted: wanted.address() or "all")
def test_a_filter_is_exported_with_the_rows_of_its_sql(
    catalog_alone: duckdb.DuckDBPyConnection, client: httpx.Client, wanted: Filter
) -> None:
    expected = [row[0] for row in duck.query(catalog_alone, wanted.sql()).fetchall()]
    links = re.findall(r'href="(/images\.(?:csv|json)[^"]*)"', client.get(f"/images?{wanted.address()}").text)
    table, array = (client.get(link.replace("&amp;", "&")) for link in links)
    assert table.headers["content-disposition"] == 'attachment; filename="images.csv"'
    rows = list(csv.DictReader(io.StringIO(table.text)))
    assert [int(row["row_id"]) for row in rows] == [row["row_id"] for row in array.json()] == expected
    compared = {one.column.removeprefix("listing.") for one in wanted.conditions}
    assert {"source", "member", "image_id", "caption", *compared} <= rows[0].keys()


def test_an_export_of_another_kind_or_of_an_impossible_filter_is_refused(client: httpx.Client) -> None:
    assert client.get("/images.exe").status_code == 404
    assert client.get("/images.csv?column=no.such&op=is&value=1").status_code == 400


def test_kept_rejected_and_errors_are_one_click_away(
    catalog_alone: duckdb.DuckDBPyConnection, client: httpx.Client
) -> None:
    page = client.get("/images").text
    ready = re.search(r'<p class="ready">(.*?)</p>', page)
    assert ready is not None
    links = dict(re.findall(r'<a href="([^"]*)"[^>]*>(\w+)</a>', ready[1]))
    counts = {count.outcome: 0 for count in ledger_counts(catalog_alone)}
    for count in ledger_counts(catalog_alone):
        counts[count.outcome] += count.num
    wanted = {
        "All": sum(counts.values()),
        "Kept": counts["kept"],
        "Rejected": counts["rejected"],
        "Errors": counts["error"],
    }
    for link, label in links.items():
        answer = client.get(link.replace("&amp;", "&"))
        assert f"{wanted[label]} image" in text(answer)
        current = re.search(
            r'aria-current="page">(\w+)</a> *</p>|<p class="ready">.*?aria-current="page">(\w+)<', answer.text
        )
        assert current is not None and label in current.groups()
    assert set(links.values()) == set(wanted)


def test_columns_of_the_form_are_grouped_by_their_table(client: httpx.Client) -> None:
    page = client.get("/images").text
    for field in ("column0", "sort"):
        [options] = re.findall(rf'<select id="{field}".*?</select>', page, re.DOTALL)
        groups = dict(re.findall(r'<optgroup label="(\w+)">(.*?)</optgroup>', options, re.DOTALL))
        assert {"images", "scores", "picture"} <= groups.keys()
        for group, names in groups.items():
            assert {name.partition(".")[0] for name in re.findall(r'value="([^"]*)"', names)} == {group}


def test_a_card_of_a_duplicate_names_the_evidence(client: httpx.Client) -> None:
    page = text(client.get("/images?column=listing.member&op=is&value=bad/coffee_copy.png"))
    assert "duplicate: same bytes" in page and "1 image." in page


def test_a_picture_shows_all_its_rows_and_its_history(client: httpx.Client, demo: Dataset, database: Database) -> None:
    (row_id,) = database.rows("SELECT row_id FROM ledger WHERE member = 'bad/coffee_copy.png'")[0].values()
    page = client.get(f"/images/{row_id}")
    assert "rejected in select: duplicate" in text(page)
    assert "Its group of duplicates" in text(page) and "(same bytes)" in text(page)
    for table in ("listing", "images", "proxies", "fingerprints", "scores", "selection", "captions", "mix", "nouns"):
        assert f'<h3 id="{table}">' in page.text
    assert "select.min_short_side_px = 160" in text(page)
    assert demo.record("selection") is not None
    full, small = client.get(f"/image/{row_id}"), client.get(f"/thumb/{row_id}")
    assert max(Image.open(io.BytesIO(small.content)).size) <= images.THUMBNAIL_PX
    assert full.headers["content-type"] == "image/jpeg" and full.content[:2] == b"\xff\xd8"


def test_a_noun_leads_to_the_images_that_have_it(client: httpx.Client, database: Database) -> None:
    database.prepare(NOUNS_TABLE)
    for row in database.rows(f"SELECT * FROM {NOUNS_TABLE} ORDER BY mix_images DESC, noun", limit=3):
        (counted,) = database.rows(
            "SELECT count(DISTINCT row_id) AS num FROM nouns WHERE list_contains(nouns, $noun)", {"noun": row["noun"]}
        )
        page = text(client.get(f"/nouns/{row['noun']}"))
        assert f"{counted['num']} image" in page
        assert f"raw: {row['raw_images']} image" in page
        assert row["noun"] in text(client.get("/nouns", params={"q": row["noun"][1:].upper()}))


def counts(found: thresholds.Outcome, column: str = "num_then") -> dict[str, int]:
    """Outcome -> how many, without the rules that refuse nothing."""
    return {row.name: getattr(row, column) for row in found.counts if getattr(row, column)}


def write_doubles(folder: Path) -> None:
    """Small, wide and blurred pictures, near doubles of two sizes, and copies of which the last brings the
    longest caption."""
    write_pictures(folder, [(96, 64)] * 3 + [(64, 64)] * 2 + [(96, 30), (40, 30), (120, 80)], captions=False)
    Image.open(folder / "001.jpg").resize((144, 96)).save(folder / "near.jpg")
    Image.open(folder / "006.jpg").filter(ImageFilter.GaussianBlur(9)).save(folder / "soft.jpg")
    for name in ("a_copy.jpg", "b_copy.jpg"):
        shutil.copy(folder / "000.jpg", folder / name)
    (folder / "b_copy.txt").write_text("A picture of a red house by the sea.")


@pytest.fixture(scope="module")
def doubles(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Chosen with a screen, and with a size that refuses a picture which is blurred too."""
    folder = tmp_path_factory.mktemp("doubles")
    write_doubles(folder / "photos")
    chosen = {"min_short_side_px": 40, "min_sharpness": 3.55, "subsets": {"wide": "aspect < 0.7"}}
    made = recipe(folder / "photos", folder / "ds", screen={"sharpness": True}, select=chosen)
    return build_dataset(made, upto="select")[0]


TRIED: tuple[dict[str, str], ...] = (
    {},
    {"min_short_side_px": "20"},
    {"min_short_side_px": "70"},
    {"min_short_side_px": "85", "max_aspect": "1.6"},
    {"max_aspect": "1.2"},
    {"min_aesthetic": "MIDDLE"},
    {"min_short_side_px": "1", "max_aspect": "3.1", "min_aesthetic": "MIDDLE"},
)


@pytest.fixture(scope="module")
def middle(doubles: Dataset) -> float:
    """The median of the aesthetic scores."""
    scores = sorted(row["aesthetic"] for row in Database(doubles).rows("SELECT aesthetic FROM scores"))
    return float(scores[len(scores) // 2])


@pytest.mark.parametrize("given", TRIED, ids=str)
def test_the_page_and_the_command_agree_with_select_on_a_threshold(
    doubles: Dataset, middle: float, given: dict[str, str]
) -> None:
    given = {name: value.replace("MIDDLE", repr(middle)) for name, value in given.items()}
    made = DataRecipe.load(doubles.recipe)
    changed = command.changed_recipe(made, [f"select.{name}={value}" for name, value in given.items()])
    expected = command.compare(doubles, made, changed)
    database = Database(doubles)
    rules = thresholds.tried(given, rules_on_record(doubles))
    found = thresholds.outcome(database, rules)
    assert [row for row in sorted(found.counts) if row.num_now or row.num_then] == sorted(
        expected.counts["rejected by"]
    )
    assert (found.num_fallen, found.num_returned) == (expected.num_fallen, expected.num_returned)
    with catalog.connect(doubles) as connection:
        connection.execute(f"CREATE TEMP TABLE afterwards AS {select.reduce_job(changed).query(connection)}")
        for moved, which in (
            (found.fallen, "was.kept AND NOT afterwards.kept"),
            (found.returned, "afterwards.kept AND NOT was.kept"),
        ):
            told = connection.execute(
                "SELECT row_id, afterwards.rejected_by FROM afterwards JOIN selection AS was USING (row_id) "
                f"WHERE {which}"
            )
            assert {(card["row_id"], card.get("rule")) for card in moved} == set(told.fetchall())
    database.prepare(RULES_TABLE)
    assert thresholds.outcome(database, rules) == found
    assert {row["name"]: row["num_then"] for row in database.rows(found.sql) if row["num_then"]} == counts(found)


def test_a_picture_that_another_rule_refuses_too_does_not_come_in(doubles: Dataset) -> None:
    """It is too small now, and would be blurred."""
    database = Database(doubles)
    (soft,) = database.rows(
        "SELECT row_id, rejected_by FROM selection JOIN listing USING (row_id) WHERE member = 'soft.jpg'"
    )
    assert soft["rejected_by"] == "too_small"
    found = thresholds.outcome(database, thresholds.tried({"min_short_side_px": "1"}, rules_on_record(doubles)))
    assert soft["row_id"] not in [card["row_id"] for card in found.returned]
    assert counts(found)["blurred"] == counts(found, "num_now").get("blurred", 0) + 1


def test_the_copy_that_select_kept_is_kept_under_the_same_thresholds(doubles: Dataset) -> None:
    """The one with the longest caption, which is not the first: moving nothing moves no picture."""
    database = Database(doubles)
    kept = database.rows("SELECT member FROM selection JOIN listing USING (row_id) WHERE kept AND member LIKE '%copy%'")
    assert kept == [{"member": "b_copy.jpg"}]
    found = thresholds.outcome(database, rules_on_record(doubles))
    assert (found.num_fallen, found.num_returned) == (0, 0)
    assert counts(found) == counts(found, "num_now")


@pytest.mark.parametrize("drop_duplicates", [True, False])
def test_select_keeps_as_many_as_the_page_has_counted(tmp_path: Path, drop_duplicates: bool) -> None:
    write_doubles(tmp_path / "photos")
    before = recipe(tmp_path / "photos", tmp_path / "ds", select={"drop_duplicates": drop_duplicates})
    dataset, _ = build_dataset(before, upto="select")
    moved = {"min_short_side_px": 40, "max_aspect": 1.6}
    found = thresholds.outcome(
        Database(dataset), thresholds.tried({k: str(v) for k, v in moved.items()}, rules_on_record(dataset))
    )
    after = recipe(tmp_path / "photos", tmp_path / "ds", select={"drop_duplicates": drop_duplicates, **moved})
    build_dataset(after, upto="select", redo=["select"])
    then = thresholds.outcome(Database(dataset), rules_on_record(dataset))
    assert rules_on_record(dataset) == after.select
    assert counts(found) == counts(then, "num_now")
    assert found.num_fallen == len(found.fallen) > 0
    assert then.num_fallen == 0


def test_the_end_of_a_slider_is_no_limit_where_there_is_none() -> None:
    """LAION's scores go below 1."""
    free = Select(min_short_side_px=1)
    assert thresholds.tried({"min_aesthetic": "1"}, free) == thresholds.tried({}, free) == free
    assert thresholds.tried({"min_aesthetic": "1.05"}, free).min_aesthetic == 1.05
    low = Select(min_short_side_px=1, min_aesthetic=0.5)
    assert thresholds.tried({}, low) == low
    assert thresholds.tried({"min_aesthetic": "1"}, low).min_aesthetic == 1
    (*_, slider) = thresholds.sliders(low, low)
    assert (slider.low, slider.unlimited) == (0.45, 0.45)
    assert thresholds.tried({"min_aesthetic": "0.45"}, low).min_aesthetic is None
    with pytest.raises(ValueError, match=r"min_aesthetic must be between 0\.45 and 10; this is 0\.4"):
        thresholds.tried({"min_aesthetic": "0.4"}, low)
    assert thresholds.tried({"max_aspect": "8"}, EVERYTHING) == EVERYTHING
    assert thresholds.tried({"max_aspect": "8"}, free).max_aspect == 8


def test_thresholds_can_be_tried_before_select_has_run(tmp_path: Path) -> None:
    write_doubles(tmp_path / "photos")
    dataset, _ = build_dataset(recipe(tmp_path / "photos", tmp_path / "ds"), upto="dedup")
    assert rules_on_record(dataset) == EVERYTHING
    found = thresholds.outcome(Database(dataset), thresholds.tried({"min_short_side_px": "31"}, EVERYTHING))
    assert counts(found) == {"kept": 6, "too_small": 3, "duplicate": 3}
    assert counts(found, "num_now") == {}
    assert (found.num_fallen, found.num_returned) == (0, 6)


def test_a_query_is_interrupted_when_its_time_is_over(demo: Dataset) -> None:
    database, begun = Database(demo, seconds=0.2), time.monotonic()
    with pytest.raises(TooSlow, match=r"this takes longer than 0\.2 s; narrow the filter"):
        database.rows("SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE a.range * b.range % 7 = 3")
    assert time.monotonic() - begun < 5
    assert database.rows("SELECT 1 AS one") == [{"one": 1}]


def test_a_query_returns_at_most_a_thousand_rows(database: Database) -> None:
    assert len(database.rows("SELECT * FROM range(100000)")) == 1000


def test_the_cache_of_thumbnails_is_bounded(demo: Dataset, database: Database) -> None:
    one = images.Thumbnails(max_bytes=1)
    rows = [row["row_id"] for row in database.rows("SELECT row_id FROM proxies WHERE jpeg IS NOT NULL", limit=4)]
    assert all(one.of(database, row_id) for row_id in rows)
    assert len(one) == 1 and one.size == len(one.of(database, rows[-1]) or b"") > 1
    many = images.Thumbnails()
    first = many.of(database, rows[0])
    assert first is not None and many.of(database, rows[0]) is first


def test_the_pages_follow_a_dataset_that_changes(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(server, "LOOK_EVERY_S", 0.0)
    write_pictures(tmp_path / "photos", [(96, 64)] * 3)
    made = recipe(tmp_path / "photos", tmp_path / "ds")
    dataset, _ = build_dataset(made, upto="ingest")
    with served(dataset) as address:
        assert "pending 3" in text(httpx.get(f"{address}/overview/inputs"))
        assert "No picture has been scored yet" in text(httpx.get(f"{address}/overview/scores"))
        build_dataset(made)
        assert "pending" not in text(httpx.get(f"{address}/overview/inputs"))
        assert httpx.get(f"{address}/overview/scores").text.count("rect class=") >= 1


def test_what_was_read_of_a_table_that_a_build_replaced_is_refused(
    small: Dataset, copy_of: Callable[[Dataset], Dataset]
) -> None:
    dataset = copy_of(small)
    database = Database(dataset)
    count = "SELECT count(*) AS num FROM selection"
    more = dataset.folder("mix") / f"part-00099.{NOTHING}.{NOTHING}.parquet"
    shutil.copy(dataset.part("mix", 0), more)
    assert database.rows(count) == [{"num": 8}]  # a part more replaces nothing
    put(dataset, "selection", 0, dataset.read_part("selection", 0).slice(1))
    for _ in range(2):
        with pytest.raises(Replaced, match="a build is replacing tables of this dataset"):
            database.rows(count)
    more.unlink()
    remove_folder(dataset.folder("selection"))
    assert Database(dataset).rows(count) == [{"num": 0}]


def test_a_page_over_a_table_that_was_replaced_shows_the_new_one_at_once(
    small: Dataset, copy_of: Callable[[Dataset], Dataset], monkeypatch: Any
) -> None:
    monkeypatch.setattr(server, "LOOK_EVERY_S", 3600.0)
    dataset = copy_of(small)
    app = server.make_app(dataset)
    try:
        with TestClient(app, base_url="http://127.0.0.1") as client:
            assert "kept" in client.get("/images/3").text
            remove_folder(dataset.folder("selection"))
            answer = client.get("/images/3")
            assert answer.status_code == 200 and "kept" not in answer.text
    finally:
        app.state.pages.live.close()


def test_a_page_whose_tables_are_replaced_again_and_again_says_so(small: Dataset, monkeypatch: Any) -> None:
    calls = []

    def replaced(*_: Any) -> Any:
        calls.append(1)
        raise Replaced("a build is replacing tables of this dataset; load the page again")

    monkeypatch.setattr(server.Pages, "images", replaced)
    app = server.make_app(small)
    try:
        with TestClient(app, base_url="http://127.0.0.1") as client:
            answer = client.get("/images")
            assert (answer.status_code, len(calls)) == (503, 2) and "a build is replacing tables" in answer.text
    finally:
        app.state.pages.live.close()


def test_a_purged_picture_is_counted_as_purged(tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos", [(96, 64)] * 3)
    made = recipe(tmp_path / "photos", tmp_path / "ds")
    dataset, _ = build_dataset(made)
    (first, *_) = Database(dataset).rows("SELECT image_id FROM images ORDER BY row_id")
    purge(dataset, order.pipeline(made), find(dataset, Wanted(image_ids=(first["image_id"],)), "asked"))
    database = Database(dataset)
    database.prepare(LEDGER_TABLE)
    assert database.rows(f"SELECT outcome, stage, reason FROM {LEDGER_TABLE} WHERE row_id = 0") == [
        {"outcome": "purged", "stage": "purge", "reason": "purged"}
    ]
    found = thresholds.outcome(database, rules_on_record(dataset))
    assert counts(found) == counts(found, "num_now") == {"kept": 2, "purged": 1}


@pytest.mark.parametrize(("part", "has"), [("captions", "subset wide raw"), ("jobs", "fingerprint")])
def test_a_section_has_the_same_text_in_the_overview_and_the_report(
    client: httpx.Client, demo: Dataset, tmp_path: Path, part: str, has: str
) -> None:
    """Table 1 with its subsets, the mix, the charts and the costs; what has no links and no limit of its own."""
    with catalog.connect(demo) as connection:
        write_report(connection, demo.root, tmp_path / "report.html")
    report = (tmp_path / "report.html").read_text(encoding="utf-8")
    section = report[report.index(f'<section id="{part}">') :].split("</h2>")[1].split("</section>")[0]
    live = client.get(f"/overview/{part}", headers={"X-Part": "1"})
    assert " ".join(Page(section).text.split()) == text(live)
    assert has in text(live)


def test_new_captions_of_a_further_captioner_open_the_dataset_anew(
    demo: Dataset, copy_of: Callable[[Dataset], Dataset]
) -> None:
    dataset = copy_of(demo)
    further = dataset.tables / "captions_beside" / "vlm"
    shutil.copytree(dataset.tables / "captions", further)
    before = signature(dataset)
    part = next(further.glob("part-*.parquet"))
    part.rename(part.with_name("part-99999.parquet"))
    assert signature(dataset) != before


def test_the_first_page_is_there_before_the_dataset_is_open(small: Dataset, monkeypatch: Any) -> None:
    may_open = threading.Event()

    class Slow(Database):
        def __init__(self, dataset: Dataset) -> None:
            may_open.wait(60)
            super().__init__(dataset)

    monkeypatch.setattr(server, "Database", Slow)
    app = server.make_app(small)
    try:
        with TestClient(app, base_url="http://127.0.0.1") as client:
            page = client.get("/").text
            assert page.count("Still being counted.") == len(SECTIONS)
            may_open.set()
            assert client.get("/images").status_code == 200
            assert "Still being counted." not in client.get("/overview/inputs").text
    finally:
        may_open.set()
        app.state.pages.live.close()


def test_a_dataset_that_could_not_be_opened_is_tried_again(small: Dataset, monkeypatch: Any) -> None:
    tries = []

    class Damaged(Database):
        def __init__(self, dataset: Dataset) -> None:
            tries.append(1)
            if len(tries) < 3:
                time.sleep(2 * server.PAINT_S)
                raise ValueError("a file is damaged")
            super().__init__(dataset)

    monkeypatch.setattr(server, "Database", Damaged)
    app = server.make_app(small)
    try:
        with TestClient(app, base_url="http://127.0.0.1") as client:
            assert "a file is damaged" in client.get("/images").text
            assert [client.get("/images").status_code for _ in range(2)] == [400, 200]
    finally:
        app.state.pages.live.close()
