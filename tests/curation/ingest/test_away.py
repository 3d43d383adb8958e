"""A source that is away stops the job with its name; files that are gone one by one are rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from curation.ingest.away import AwayCheck, SourceAway, local_roots
from engine.dataset import Dataset
from engine.runner import PartFailed
from schemas.sources import FolderSource, TableSource
from tests.building import build, recipe, rows, write_pictures


def test_a_folder_that_goes_away_stops_the_job_and_finished_parts_stay(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    write_pictures(folder, [(20, 10)] * 9)
    made = recipe(folder, tmp_path / "ds")
    whole, _ = build(recipe(folder, tmp_path / "whole"), upto="ingest")
    build(made, upto="ingest")
    dataset = Dataset(tmp_path / "ds")
    for table in ("images", "proxies"):
        for number in (1, 2):
            dataset.part(table, number).unlink()
    for away in (lambda: folder.rename(tmp_path / "gone"), lambda: folder.mkdir()):  # unmounted: nothing, or empty
        away()
        with pytest.raises(PartFailed, match=r"in: is not there any more, or is empty; bring the disk.*run the same"):
            build(made, upto="ingest")
        assert list(dataset.held().parts("images")) == [0]
    folder.rmdir()
    (tmp_path / "gone").rename(folder)
    build(made, upto="ingest")
    assert rows(dataset, "images") == rows(whole, "images")


def test_files_that_fail_in_a_row_for_one_reason_stop_the_job_until_the_recipe_says_otherwise(tmp_path: Path) -> None:
    write_pictures(tmp_path / "in" / "a", [(20, 10)] * 2)
    write_pictures(tmp_path / "in" / "b", [(20, 10)] * 7)
    for number in range(7):
        path = tmp_path / "in" / "b" / f"{number:03d}.jpg"
        path.unlink()
        path.symlink_to(tmp_path / "in" / "nowhere.jpg")
    made = recipe(tmp_path / "in", tmp_path / "ds", ingest={"stop_after_failures": 5})
    with pytest.raises(
        PartFailed, match=r"in: 5 files in a row cannot be read \(unreadable: No such file or directory\)"
    ):
        build(made, upto="ingest")
    goes_on = recipe(tmp_path / "in", tmp_path / "ds", ingest={"stop_after_failures": None})
    dataset, _ = build(goes_on, upto="ingest")
    assert [row["reason"] for row in rows(dataset, "images")] == [None] * 2 + ["unreadable"] * 7
    done = dataset.parts("images")[0].stat().st_mtime_ns
    build(made, upto="ingest")  # the knob computes nothing anew
    assert dataset.parts("images")[0].stat().st_mtime_ns == done


def test_only_failures_of_one_kind_without_a_good_row_of_the_source_between_count() -> None:
    def see(check: AwayCheck, *reasons: str | None, source: str = "a", detail: str = "x") -> None:
        for reason in reasons:
            row: dict[str, Any] = {"source": "/nowhere", "source_name": source}
            check.see(row, None if reason is None else (reason, detail))

    check = AwayCheck((), 3)
    see(check, "unreadable", "unreadable", None, "unreadable", "unreadable", "timeout")
    see(check, "timeout", detail="y")
    see(check, "timeout", "timeout")
    see(check, None, None, "timeout", source="b")
    with pytest.raises(SourceAway):
        see(check, "timeout")
    see(AwayCheck((), None), *["unreadable"] * 99)


@pytest.mark.parametrize("last", ["screen", "shard"])
def test_a_disk_that_goes_away_after_ingest_leaves_no_row_that_says_so_for_good(tmp_path: Path, last: str) -> None:
    photos, away = tmp_path / "photos", tmp_path / "away"
    write_pictures(photos, [(96, 64)] * 5)
    made = recipe(photos, tmp_path / "ds", ingest={"proxy_px": 32}, screen={"upscale": True})
    build(made, upto="ingest")
    if last == "shard":
        build(made, upto="mix")
    photos.rename(away)
    with pytest.raises(PartFailed, match=f"{last} stopped at part .*{photos}: is not there any more"):
        build(made)
    away.rename(photos)
    dataset, _ = build(made)
    assert [row["reason"] for row in rows(dataset, "samples")] == [None] * 5
    assert len(rows(dataset, "screens")) == 5


def test_originals_that_fail_in_a_row_stop_the_shards_unless_they_may_be_lost(tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos", [(96, 64)] * 7)
    few: dict[str, Any] = {"ingest": {"stop_after_failures": 5}}
    dataset, _ = build(recipe(tmp_path / "photos", tmp_path / "ds", **few), upto="mix")
    for path in sorted((tmp_path / "photos").iterdir())[:6]:
        path.unlink()
    with pytest.raises(PartFailed, match=r"5 files in a row cannot be read \(source_missing: No such file"):
        build(recipe(tmp_path / "photos", tmp_path / "ds", **few))
    build(recipe(tmp_path / "photos", tmp_path / "ds", shard={"drop_lost": True}, **few))
    assert [row["reason"] for row in rows(dataset, "samples")].count("source_missing") == 6


def test_the_folders_of_sources(tmp_path: Path) -> None:
    sources = [
        FolderSource(path="/a/b"),
        FolderSource(path="/c/d*/*.jpg"),
        FolderSource(path="https://host/x"),
        TableSource.from_mapping({"path": "/t/list.csv", "columns": {"path": "p"}}),
        TableSource.from_mapping({"path": "/t/list.csv", "columns": {"path": "p"}, "root": "/r"}),
    ]
    assert local_roots(sources) == {"/a/b", "/c", "/t", "/r"}
