"""What failed for a passing reason is tried again in place; everything else is left as it was."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.dataset import Dataset, JobRecord
from schemas.recipe import DataRecipe
from tests.building import build, computed, recipe, rows, write_pictures
from tests.dying import Died, dying_at
from tests.serving import Served, serving
from tests.trees import content


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr("curation.sources.storage.FIRST_PAUSE_S", 0.01)
    write_pictures(tmp_path / "served", [(20, 10)] * 8, captions=False)
    with serving(tmp_path / "served") as served:
        yield served


def recipe_for(server: Served, out: Path) -> DataRecipe:
    """Eight addresses in four parts: one that is busy in the second, one that is gone in the third; and a folder."""
    paths = [f"{server.url}/files/{number:03d}.jpg" for number in range(8)]
    paths[3] = f"{server.url}/busy/003.jpg"
    paths[4] = f"{server.url}/files/gone.jpg"
    table = out.parent / "table.jsonl"
    table.write_text("".join(json.dumps({"path": path}) + "\n" for path in paths))
    write_pictures(out.parent / "folder", [(20, 10)] * 2, first_seed=50)
    sources: list[dict[str, Any]] = [
        {"kind": "table", "path": str(table), "columns": {"path": "path"}},
        {"path": str(out.parent / "folder")},
    ]
    return recipe(None, out, sources=sources, part_rows=2)


def reasons(dataset: Dataset) -> list[str | None]:
    return [row["reason"] for row in rows(dataset, "images")]


@pytest.mark.slow
def test_only_the_part_that_can_succeed_is_read_again(server: Served, tmp_path: Path) -> None:
    made = recipe_for(server, tmp_path / "ds")
    dataset, _ = build(made, upto="fingerprint")
    before = [None, None, None, "rate_limited", "not_found", *[None] * 5]
    assert reasons(dataset) == before

    server.requests.clear()
    _, told = build(made, upto="fingerprint", retry_failed=True)
    assert (told.num_retried, reasons(dataset)) == (1, before)
    assert set(server.requests) == {"/files/002.jpg", "/busy/003.jpg"}

    server.recovered = True
    _, told = build(made, upto="fingerprint", retry_failed=True)
    assert reasons(dataset) == [None, None, None, None, "not_found", *[None] * 5]
    assert [row["row_id"] for row in rows(dataset, "images")] == list(range(10))
    assert computed(told) == {"images": 1, "fingerprints": 1}

    server.requests.clear()
    _, told = build(made, upto="fingerprint", retry_failed=True)
    assert (told.num_retried, computed(told)) == (0, {})
    assert not server.requests


@pytest.mark.slow
def test_a_retry_that_was_cut_off_goes_on(server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = recipe_for(server, tmp_path / "ds")
    dataset, _ = build(made, upto="ingest")
    server.recovered = True
    with monkeypatch.context() as killed:

        def stop(self: Dataset, table: str, record: JobRecord) -> None:
            raise KeyboardInterrupt

        killed.setattr(Dataset, "write_record", stop)
        with pytest.raises(KeyboardInterrupt):
            build(made, upto="ingest", retry_failed=True)
    assert len(dataset.held().outdated("images")) == 1, "its rows are pending"
    _, told = build(made, upto="ingest", retry_failed=True)
    assert told.num_retried == 1
    assert reasons(dataset)[3] is None
    done = content(dataset.root)
    build(made, upto="ingest")
    assert content(dataset.root) == done


@pytest.mark.slow
def test_a_retry_that_was_killed_before_a_change_of_the_disk_goes_on(server: Served, tmp_path: Path) -> None:
    whole = recipe_for(server, tmp_path / "ds")
    build(whole, upto="ingest")
    server.recovered = True
    died, change, undisturbed = True, 10**6, None
    while died:
        made = whole.model_copy(update={"out": str(tmp_path / f"copy-{change}")})
        dataset = Dataset(Path(shutil.copytree(tmp_path / "ds", made.out)))
        try:
            with dying_at(change):
                build(made, upto="ingest", retry_failed=True)
            died = undisturbed is None
        except Died:
            build(made, upto="ingest", retry_failed=True)
        assert reasons(dataset) == [None, None, None, None, "not_found", *[None] * 5]
        undisturbed = undisturbed or rows(dataset, "images")
        assert rows(dataset, "images") == undisturbed
        change = 0 if change == 10**6 else change + 4
    assert change > 8


def test_a_dataset_without_a_failure_is_left_alone(tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", [(20, 10)] * 2)
    made = recipe(tmp_path / "in", tmp_path / "ds")
    _, told = build(made, upto="ingest", retry_failed=True)  # before the first ingest
    assert told.num_retried == 0
    done = content(tmp_path / "ds")
    _, told = build(made, upto="ingest", retry_failed=True)
    assert (told.num_retried, computed(told)) == (0, {})
    assert content(tmp_path / "ds") == done


def test_local_files_that_are_back_are_read_again(tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", [(20, 10)] * 6)
    (tmp_path / "in" / "002.jpg").rename(tmp_path / "away.jpg")
    (tmp_path / "in" / "002.jpg").symlink_to(tmp_path / "in" / "away.jpg")
    (tmp_path / "in" / "004.jpg").unlink()
    (tmp_path / "in" / "004.jpg").symlink_to(tmp_path / "away.jpg")  # out of the folder: the listing gives it up
    made = recipe(tmp_path / "in", tmp_path / "ds")
    dataset, _ = build(made, upto="ingest")
    assert reasons(dataset) == [None, None, "unreadable", None, "unreadable", None]
    (tmp_path / "away.jpg").rename(tmp_path / "in" / "away.jpg")
    _, told = build(made, upto="ingest", retry_failed=True)
    assert (told.num_retried, computed(told)) == (1, {"images": 1})
    assert reasons(dataset) == [None, None, None, None, "unreadable", None]
