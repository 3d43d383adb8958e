"""Several captioners of one recipe: a table, a view and rows of nouns for each, and a mix of the primary alone."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from aiohttp import web
from pydantic import ValidationError

from curation.upkeep import doctor
from engine import catalog
from engine.dataset import Dataset
from engine.run_log import read_runs
from schemas.recipe import Caption
from tests.building import build, computed, recipe, rows, write_pictures
from tests.captioning.chat_server import ChatServer, completion
from tests.engine.test_old_layout import age
from tests.trees import content
from viewer import cards, figures
from viewer.database import Database
from viewer.filters import Filter
from viewer.images import details
from viewer.report import write_report
from viewer.search import Search

pytestmark = pytest.mark.slow


async def describe(server: ChatServer, request: web.Request, text: str, times: int) -> web.StreamResponse:
    return completion("A striped zebra on a lawn.")


@pytest.fixture(scope="module")
def server() -> Iterator[ChatServer]:
    with ChatServer(dict.fromkeys(range(0, 280, 20), describe)) as serving:
        yield serving


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("beside") / "photos"
    write_pictures(folder, [(96, 64)] * 4)
    return folder


def made(photos: Path, out: Path, server: ChatServer, **caption: Any) -> Any:
    endpoint = {"url": server.url, "model": "m", "concurrency": 1}
    return recipe(photos, out, caption={"endpoint": endpoint, **caption})


ALL: tuple[str, ...] = ()
"""Leaves no job of the pipeline out."""


def test_a_captioner_beside_has_a_table_a_view_and_nouns(photos: Path, tmp_path: Path, server: ChatServer) -> None:
    beside = made(photos, tmp_path / "ds", server, beside=["endpoint"], price_per_gpu_hour=2.0)
    dataset, told = build(beside, upto="nouns", without=ALL)
    assert computed(told)["captions_beside/endpoint"] == computed(told)["captions"] == 2
    assert {row["captioner"] for row in rows(dataset, "captions")} == {"attributes"}
    with catalog.connect(dataset) as connection:
        found = connection.sql("SELECT DISTINCT source, captioner, caption, num_tokens FROM captions_beside").fetchall()
    assert found == [("endpoint", "m", "A striped zebra on a lawn.", 5)]
    sources = [row["caption_source"] for row in rows(dataset, "nouns")]
    assert sources == ["raw", "synthetic", "endpoint"] * 4
    assert rows(dataset, "nouns")[2]["nouns"] == ["zebra", "lawn"]
    assert "zebra" not in " ".join(row["caption"] for row in rows(dataset, "mix"))
    findings = {finding.subject: finding for finding in doctor.check_dataset(dataset.root)}
    assert findings["captions_beside/endpoint"].fine and findings["nouns"].fine
    run = next(run for run in read_runs(dataset) if run["tables"] == ["captions_beside/endpoint"])
    assert (run["images"], run["tokens"]) == (4, 20)
    assert 0 < run["model_share"] <= 1 and run["images_per_s"] > 0 and run["tokens_per_s"] > 0
    assert (run["gpu_hours"], run["cost"]) == (0, 0)


@pytest.fixture(scope="module")
def whole(photos: Path, tmp_path_factory: pytest.TempPathFactory, server: ChatServer) -> Dataset:
    out = tmp_path_factory.mktemp("whole") / "ds"
    return build(made(photos, out, server, beside=["endpoint"]), without=ALL)[0]


def test_the_folder_of_the_captions_holds_the_primary_ones_alone(whole: Dataset) -> None:
    read = pq.read_table(whole.tables / "captions")
    assert read.num_rows == 4 and set(read["captioner"].to_pylist()) == {"attributes"}


def test_a_sample_holds_the_captions_of_all_captioners(whole: Dataset) -> None:
    (tar,) = whole.shards.rglob("*.tar")
    with tarfile.open(tar) as opened:
        members = [opened.extractfile(name) for name in opened.getnames() if name.endswith(".json")]
        said = [json.load(member) for member in members if member is not None]
    assert len(said) == 4
    for sample in said:
        assert [each["captioner"] for each in sample["captions_synthetic"]] == ["attributes", "m"]
        assert sample["captions_synthetic"][1]["caption"] == "A striped zebra on a lawn."


def test_cards_charts_search_and_image_page_show_them(whole: Dataset) -> None:
    with catalog.connect(whole) as connection:
        (card,) = cards.cards(connection, whole.held(), [2])
        assert [(row["source"], row["caption"]) for row in card["beside"]] == [
            ("endpoint", "A striped zebra on a lawn.")
        ]
        assert figures.caption_words(connection).means["endpoint"] == 6
        assert figures.caption_tokens(connection, 300).means["endpoint"] == 8
        write_report(connection, whole.root, whole.report)
    html = whole.report.read_text(encoding="utf-8")
    assert html.count("A striped zebra on a lawn.") >= 4 and "endpoint: 4 captions" in html
    database = Database(whole)
    try:
        found = details(database, 2)
        search = Search(whole.held(), lambda: database.cursor(10), "text", "zebra")
        assert list(search.wait(10, -1, 10)) == [0, 1, 2, 3]
        filtered = Filter(text="zebra").where()
        assert "captions_beside" in " ".join(filtered.terms)
    finally:
        database.close()
    assert found is not None and found.tables["captions_beside"][0]["source"] == "endpoint"
    assert "captions_beside/endpoint" in {made_by.table for made_by in found.history}


def test_a_dataset_of_the_old_layout_is_renamed_in_place_and_computes_nothing(
    whole: Dataset, photos: Path, tmp_path: Path, server: ChatServer
) -> None:
    dataset = Dataset(tmp_path / "ds")
    recipe = made(photos, dataset.root, server, beside=["endpoint"])
    build(recipe, upto="nouns", without=ALL)
    names = age(dataset)
    for folder in (dataset.tables, dataset.tables / ".records"):
        (folder / "captions").mkdir(exist_ok=True)
        for path in (folder / "captions_beside").iterdir():
            path.rename(folder / "captions" / path.name)
        (folder / "captions_beside").rmdir()
    path = dataset.record_path("nouns")
    path.write_text(path.read_text().replace('"captions_beside/endpoint":', '"captions/endpoint":'))
    asked = sum(server.asked.values())
    with catalog.connect(dataset) as connection:
        assert connection.sql("SELECT count(*) FROM captions_beside").fetchall() == [(4,)]
    _, told = build(recipe, upto="nouns", without=ALL)
    assert computed(told) == {} and sum(server.asked.values()) == asked
    held = dataset.held()
    assert {table: [name.file for name in held.listed(table)] for table in held.tables()} == names


def test_nothing_beside_is_nothing_else(photos: Path, tmp_path: Path, server: ChatServer) -> None:
    alone, _ = build(made(photos, tmp_path / "alone", server), upto="nouns", without=ALL)
    dataset, _ = build(made(photos, tmp_path / "ds", server, beside=["endpoint"]), upto="nouns", without=ALL)
    primary = content(alone.root)
    also = content(dataset.root)
    differs = {name for name in also if also[name] != primary.get(name)}
    ours = ("tables/captions_beside/endpoint/", "tables/nouns/", "tables/.records/")
    assert all(name.startswith(ours) for name in differs)
    assert dataset.record("captions") == alone.record("captions")


def test_one_that_is_added_later_costs_the_primary_nothing(photos: Path, tmp_path: Path, server: ChatServer) -> None:
    build(made(photos, tmp_path / "ds", server), upto="nouns", without=ALL)
    dataset, told = build(made(photos, tmp_path / "ds", server, beside=["endpoint"]), upto="nouns", without=ALL)
    assert computed(told) == {"captions_beside/endpoint": 2, "nouns": 2}
    fresh, _ = build(made(photos, tmp_path / "fresh", server, beside=["endpoint"]), upto="nouns", without=ALL)
    assert content(dataset.root) == content(fresh.root)


def test_redo_asks_all_of_them_anew(photos: Path, tmp_path: Path, server: ChatServer) -> None:
    beside = made(photos, tmp_path / "ds", server, beside=["endpoint"])
    build(beside, upto="nouns", without=ALL)
    before = sum(server.asked.values())
    _, told = build(beside, upto="nouns", without=ALL, redo=["caption"])
    assert sum(server.asked.values()) == before + 4
    assert computed(told)["captions"] == computed(told)["captions_beside/endpoint"] == 2


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"beside": ["attributes"]}, "captioner attributes is named twice"),
        ({"beside": ["vlm", "vlm"]}, "captioner vlm is named twice"),
        ({"beside": ["endpoint"]}, r"captioner endpoint needs endpoint\.url"),
        ({"beside": ["poet"]}, "Input should be"),
    ],
)
def test_what_cannot_stand_beside_is_refused(knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Caption(**knobs)


def test_each_has_its_own_knobs_workers_and_gpus() -> None:
    section = Caption(captioner="vlm", beside=["attributes"])
    assert section.num_gpus() is None and section.for_extra_captioner("attributes").num_gpus() == 0
    assert section.for_extra_captioner("attributes").knobs() == Caption().knobs()
    assert Dataset(Path("ds")).folder("captions_beside/vlm") == Path("ds/tables/captions_beside/vlm")
