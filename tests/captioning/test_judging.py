"""Stored answers are judged again by the rules of today: no captioner is made, and only changed rows move anything."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from captioning import recaption
from captioning.judging import judge_again, judged_again
from commands.front_door import app
from engine.dataset import Dataset
from engine.names import names_in
from schemas import tables
from schemas.files import delete_files
from schemas.recipe import DataRecipe
from tests.building import build, computed, put, recipe, rows, write_pictures
from tests.memory_store import URL, Memory

REFUSED = "I won't describe this picture."
OLD: tuple[dict[str, Any], ...] = (
    {"caption": "Sure! A cow lies on a lawn.", "reason": None},
    {"caption": REFUSED, "reason": None},
    {"caption": None, "reason": "markup", "refused_caption": "<think>A cow?</think>\nA cow lies on a lawn."},
    {"caption": None, "reason": "keywords", "refused_caption": "cow, lawn, noon, cloud"},
    {"caption": None, "reason": "cut", "refused_caption": "A cow lies on a"},
    {"caption": None, "reason": "captioner_failed"},
)
"""Rows as the rules of other days have left them; the other rows of the dataset are as they should be."""
CHANGES = {"caption to caption": 1, "caption to refusal": 1, "markup to caption": 1, "keywords to tags": 1}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> DataRecipe:
    """The recipe of a dataset with these rows; not to be changed."""
    folder = tmp_path_factory.mktemp("judged")
    write_pictures(folder / "photos", [(96, 64)] * 12)
    made = recipe(
        folder / "photos",
        folder / "ds",
        part_rows=6,
        mix={"synthetic_share": 1.0},
        caption={"max_failed_share": 0.9},
    )
    dataset, _ = build(made, upto="mix")
    put(dataset, "captions", 0, old_part(dataset))
    build(made, upto="mix")
    return made


@pytest.fixture
def made(built: DataRecipe, tmp_path: Path) -> DataRecipe:
    shutil.copytree(built.out_path(), tmp_path / "ds")
    return built.model_copy(update={"out": str(tmp_path / "ds")})


def old_part(dataset: Dataset) -> pa.Table:
    part = dataset.read_part("captions", 0)
    nothing: dict[str, Any] = dict.fromkeys(("caption", "reason", "refused_caption", "cut"))
    found = [row | nothing | old for row, old in zip(part.to_pylist(), OLD, strict=True)]
    return pa.Table.from_pylist(found, schema=tables.schema_of("captions"))


@pytest.fixture
def typed(made: DataRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command; making a captioner fails."""
    monkeypatch.setattr("captioning.recaption.make_captioner", lambda *_: pytest.fail("a captioner was made"))
    file = tmp_path / "recipe.yaml"
    file.write_text(made.to_yaml())
    return ["caption", str(file), "--judge-again"]


def said(arguments: list[str], status: int = 0) -> str:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == status, done.output
    return " ".join(done.output.split())


@pytest.mark.slow
def test_answers_are_judged_by_the_rules_of_today_and_only_what_changed_moves(
    made: DataRecipe, typed: list[str]
) -> None:
    dataset = Dataset(made.out_path())
    before = names_in(dataset.folder("captions"))
    shown = said(typed)
    assert "captions: 12 rows judged again, 4 changed" in shown
    assert all(f"{count} {change}" in shown for change, count in CHANGES.items())
    found = [(row["caption"], row["reason"], row["refused_caption"], row["cut"]) for row in rows(dataset, "captions")]
    assert found[:6] == [
        ("A cow lies on a lawn.", None, None, ["Sure!"]),
        (None, "refusal", REFUSED, None),
        ("A cow lies on a lawn.", None, None, ["<think>A cow?</think>"]),
        (None, "tags", "cow, lawn, noon, cloud", None),
        (None, "cut", "A cow lies on a", None),
        (None, "captioner_failed", None, None),
    ]
    after = names_in(dataset.folder("captions"))
    assert [name.made_from for name in after] == [name.made_from for name in before]
    assert after[0] != before[0] and after[1] == before[1]
    assert computed(build(made, upto="mix")[1])["mix"] == 1  # of two parts; no caption is computed


@pytest.mark.slow
def test_judging_twice_changes_nothing_the_second_time(made: DataRecipe, typed: list[str]) -> None:
    said(typed)
    before = names_in(Dataset(made.out_path()).folder("captions"))
    again = said(typed)
    assert "12 rows judged again, 0 changed" in again and "next: sigma build" in again  # the mix waits for it
    build(made, upto="mix")
    assert "next" not in said(typed)
    assert names_in(Dataset(made.out_path()).folder("captions")) == before


def test_a_run_that_was_killed_between_two_files_of_a_part_leaves_one_of_them(
    made: DataRecipe, typed: list[str]
) -> None:
    dataset = Dataset(made.out_path())
    old = dataset.folder("captions") / names_in(dataset.folder("captions"))[0].file
    held = old.read_bytes()
    said(typed)
    wanted = names_in(dataset.folder("captions"))
    old.write_bytes(held)  # the new one is committed, and the old one not deleted yet
    said(typed)
    assert names_in(dataset.folder("captions")) == wanted


def test_a_further_captioners_answers_are_judged_too(made: DataRecipe, typed: list[str]) -> None:
    dataset = Dataset(made.out_path())
    values = made.model_dump(mode="json")
    values["caption"]["beside"] = ["endpoint"]
    values["caption"]["endpoint"] |= {"url": "http://127.0.0.1:9/v1", "model": "m"}
    beside = DataRecipe.from_mapping(values)
    (_, job) = recaption.map_jobs(beside)
    held = dataset.held()
    job.prepare(dataset, job.state(held), redo=False)
    source = job.source(dataset.held())
    dataset.commit_part("captions_beside/endpoint", 0, str(source(0)), old_part(dataset))
    Path(typed[1]).write_text(beside.to_yaml())
    shown = said(typed)
    assert "captions_beside/endpoint: 6 rows judged again, 4 changed" in shown
    assert rows(dataset, "captions_beside/endpoint")[1]["reason"] == "refusal"


@pytest.mark.slow
def test_in_a_store_the_old_part_is_replaced_as_on_a_disk(made: DataRecipe, tmp_path: Path) -> None:
    with Memory().used(tmp_path / "scratch"):
        there = made.model_copy(update={"out": URL})
        dataset, _ = build(there, upto="mix")
        part = old_part(dataset)
        (old,) = [name for name in names_in(dataset.folder("captions")) if name.number == 0]
        dataset.commit_part("captions", 0, old.made_from, part)
        delete_files(dataset.folder("captions") / old.file)
        job = recaption.map_jobs(there)
        (line,) = judge_again(there, job, lambda rows: None, lambda rows, counts={}: None)
        assert "12 rows judged again, 4 changed" in line
        assert [row["reason"] for row in rows(dataset, "captions")][:4] == [None, "refusal", None, "tags"]
        assert [name.number for name in names_in(dataset.folder("captions"))] == [0, 1]


def test_more_refused_than_allowed_stops_the_command_after_all_is_judged(made: DataRecipe, typed: list[str]) -> None:
    shown = said([*typed, "caption.max_failed_share=0.1"], status=1)
    assert "4 changed" in shown and "4 of 12 images in captions failed" in shown
    assert Dataset(made.out_path()).record("captions").failed == [4, 12]  # type: ignore[union-attr]


def test_other_languages_name_the_way_that_asks_nobody(typed: list[str]) -> None:
    shown = said([*typed, "clean.languages=[de, en]"], status=1)
    assert "--redo clean --redo caption in place of --judge-again" in shown
    assert "in place of" not in said([*typed, "clean.languages=[de]", "caption.captioner=vlm"], status=1)


def test_a_dataset_without_captions_is_refused(tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos", [(96, 64)])
    knobs = [f"images={tmp_path / 'photos'}", f"out={tmp_path / 'ds'}"]
    assert "has no captions to judge again" in said(["caption", "folder", *knobs, "--judge-again"], status=1)
    assert "--redo mix" in said(["caption", "folder", *knobs, "--judge-again", "--redo", "mix"], status=1)


@pytest.mark.parametrize(
    ("row", "caption", "reason", "cut"),
    [
        ({"caption": "A cow."}, "A cow.", None, ()),
        ({"caption": "# A cow\n\nIt is red.", "cut": ["Sure!"]}, "It is red.", None, ("# A cow", "Sure!")),
        ({"refused_caption": "Sure! A cow.", "reason": "markup", "cut": ["Sure!"]}, "A cow.", None, ("Sure!",)),
        ({"caption": "I can't describe it.", "cut": ["Sure!"]}, None, "refusal", ("Sure!",)),
        ({"refused_caption": "A cow on a", "reason": "cut"}, None, "cut", ()),
        (
            {"refused_caption": '{"caption":  "<p>A red cow"}', "reason": "markup", "cut": ['{"caption":']},
            None,
            "markup",
            ('{"caption":', "}"),
        ),
    ],
)
def test_an_answer_is_judged_with_what_was_cut_off_before(
    row: dict[str, Any], caption: str | None, reason: str | None, cut: tuple[str, ...]
) -> None:
    empty: dict[str, Any] = dict.fromkeys(("caption", "reason", "refused_caption", "cut"))
    again = judged_again(empty | row, ("en",), None)
    assert again is not None
    assert (again[1].caption, again[1].reason, again[1].cut) == (caption, reason, cut)


def test_a_row_without_an_answer_is_not_judged() -> None:
    assert (
        judged_again({"caption": None, "refused_caption": None, "reason": "not_selected", "cut": None}, None, None)
        is None
    )
