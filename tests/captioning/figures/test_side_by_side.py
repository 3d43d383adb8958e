"""Several captioners of one recipe: a table, a view and rows of nouns for each, and a mix of the primary alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
from tests.trees import content

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
    assert computed(told)["captions/endpoint"] == computed(told)["captions"] == 2
    assert {row["captioner"] for row in rows(dataset, "captions")} == {"attributes"}
    with catalog.connect(dataset) as connection:
        found = connection.sql("SELECT DISTINCT source, captioner, caption, num_tokens FROM captions_beside").fetchall()
    assert found == [("endpoint", "m", "A striped zebra on a lawn.", 5)]
    sources = [row["caption_source"] for row in rows(dataset, "nouns")]
    assert sources == ["raw", "synthetic", "endpoint"] * 4
    assert rows(dataset, "nouns")[2]["nouns"] == ["zebra", "lawn"]
    assert "zebra" not in " ".join(row["caption"] for row in rows(dataset, "mix"))
    findings = {finding.subject: finding for finding in doctor.check_dataset(dataset.root)}
    assert findings["captions/endpoint"].fine and findings["nouns"].fine
    run = next(run for run in read_runs(dataset) if run["tables"] == ["captions/endpoint"])
    assert (run["images"], run["tokens"]) == (4, 20)
    assert 0 < run["model_share"] <= 1 and run["images_per_s"] > 0 and run["tokens_per_s"] > 0
    assert (run["gpu_hours"], run["cost"]) == (0, 0)


def test_nothing_beside_is_nothing_else(photos: Path, tmp_path: Path, server: ChatServer) -> None:
    alone, _ = build(made(photos, tmp_path / "alone", server), upto="nouns", without=ALL)
    dataset, _ = build(made(photos, tmp_path / "ds", server, beside=["endpoint"]), upto="nouns", without=ALL)
    primary = content(alone.root)
    also = content(dataset.root)
    differs = {name for name in also if also[name] != primary.get(name)}
    assert all(name.startswith(("tables/captions/endpoint/", "tables/nouns/", "tables/.records/")) for name in differs)
    assert dataset.record("captions") == alone.record("captions")


def test_one_that_is_added_later_costs_the_primary_nothing(photos: Path, tmp_path: Path, server: ChatServer) -> None:
    build(made(photos, tmp_path / "ds", server), upto="nouns", without=ALL)
    dataset, told = build(made(photos, tmp_path / "ds", server, beside=["endpoint"]), upto="nouns", without=ALL)
    assert computed(told) == {"captions/endpoint": 2, "nouns": 2}
    fresh, _ = build(made(photos, tmp_path / "fresh", server, beside=["endpoint"]), upto="nouns", without=ALL)
    assert content(dataset.root) == content(fresh.root)


def test_redo_asks_all_of_them_anew(photos: Path, tmp_path: Path, server: ChatServer) -> None:
    beside = made(photos, tmp_path / "ds", server, beside=["endpoint"])
    build(beside, upto="nouns", without=ALL)
    before = sum(server.asked.values())
    _, told = build(beside, upto="nouns", without=ALL, redo=["caption"])
    assert sum(server.asked.values()) == before + 4
    assert computed(told)["captions"] == computed(told)["captions/endpoint"] == 2


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
    assert Dataset(Path("ds")).part("captions/vlm", 3) == Path("ds/tables/captions/vlm/part-00003.parquet")
