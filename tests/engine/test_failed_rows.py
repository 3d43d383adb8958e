"""A job in which too much has failed stops at its end, and can be asked again for what failed alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from captioning.captioners.attributes import AttributesCaptioner
from captioning.captioners.base import Answer, CaptionFailure, Generated
from captioning.captioners.make import CAPTIONERS
from engine.dataset import Dataset
from engine.run_log import read_runs
from tests.building import build, recipe, rows, write_pictures
from tests.dying import Died, dying_at
from tests.trees import content

pytestmark = pytest.mark.slow

WIDTHS = (70, 80, 90, 100, 110, 120, 130, 140)


class Moody(AttributesCaptioner):
    """Fails on some widths, refuses others, and remembers what it was asked."""

    name, batch_size = "moody", 2
    failing: frozenset[int] = frozenset()
    refusing: frozenset[int] = frozenset()
    asked: list[int] = []

    def caption(self, images: Sequence[Image.Image], seeds: Sequence[int]) -> list[Answer]:  # type: ignore[override]
        Moody.asked += [image.width for image in images]
        return [self._answer(image.width) for image in images]

    def _answer(self, width: int) -> Answer:
        if width in self.failing:
            return CaptionFailure("not today")
        return Generated("I'm sorry, but I cannot see the image." if width in self.refusing else f"It is {width} wide.")


@pytest.fixture(autouse=True)
def captioner(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(CAPTIONERS, "attributes", lambda section: Moody())
    monkeypatch.setattr(Moody, "failing", frozenset({80, 90, 130}))
    monkeypatch.setattr(Moody, "refusing", frozenset({140}))
    monkeypatch.setattr(Moody, "asked", [])
    yield


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("moody") / "photos"
    write_pictures(folder, [(width, 64) for width in WIDTHS])
    return folder


def limited(photos: Path, out: Path, share: float) -> Any:
    return recipe(photos, out, caption={"max_failed_share": share})


def test_too_many_failures_stop_the_job_at_its_end_with_the_count(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError) as stopped:
        build(limited(photos, tmp_path / "ds", 0.25))
    message = str(stopped.value)
    assert "4 of 8 images in captions failed (3 captioner_failed, 1 refusal)" in message
    assert "caption.max_failed_share=0.25" in message and "again" in message and "higher" in message
    dataset = Dataset(tmp_path / "ds")
    assert len(dataset.parts("captions")) == len(dataset.parts("listing")) == 3
    assert not dataset.parts("mix")
    assert read_runs(dataset)[-1]["rows_by_reason"] == {"captioner_failed": 3, "refusal": 1}


def test_a_share_at_the_limit_is_no_error(photos: Path, tmp_path: Path) -> None:
    dataset, _ = build(limited(photos, tmp_path / "ds", 0.5))
    assert dataset.parts("mix")


def test_the_same_command_asks_again_for_what_failed_alone(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = limited(photos, tmp_path / "ds", 0.125)
    with pytest.raises(ValueError, match="4 of 8"):
        build(made)
    assert len(Moody.asked) == 8
    monkeypatch.setattr(Moody, "failing", frozenset({90}))
    Moody.asked.clear()
    with pytest.raises(ValueError, match="2 of 8"):
        build(made)
    assert sorted(Moody.asked) == [80, 90, 130], "a refused answer would come out the same"
    monkeypatch.setattr(Moody, "failing", frozenset())
    Moody.asked.clear()
    dataset, _ = build(made)
    assert Moody.asked == [90]
    assert [row["reason"] for row in rows(dataset, "captions")] == [None] * 7 + ["refusal"]
    undisturbed, _ = build(limited(photos, tmp_path / "undisturbed", 0.125))
    assert content(dataset.root) == content(undisturbed.root)
    Moody.asked.clear()
    build(made)
    assert Moody.asked == []


def test_a_higher_limit_goes_on_and_asks_nobody(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="4 of 8"):
        build(limited(photos, tmp_path / "ds", 0.25))
    Moody.asked.clear()
    dataset, _ = build(limited(photos, tmp_path / "ds", 0.5))
    assert Moody.asked == []
    assert [row["caption_source"] for row in rows(dataset, "mix")].count(None) == 0


@pytest.mark.parametrize("table", ["captions", "captions_beside/endpoint"])
def test_a_run_that_is_killed_before_its_failures_are_counted_is_stopped_by_the_next_one(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    whole, moody = AttributesCaptioner(), Moody()
    chosen = (moody, whole) if table == "captions" else (whole, moody)
    for name, captioner in zip(("attributes", "endpoint"), chosen, strict=True):
        monkeypatch.setitem(CAPTIONERS, name, lambda section, captioner=captioner: captioner)
    endpoint = {"url": "http://localhost/v1", "model": "none"}
    made = recipe(
        photos, tmp_path / "ds", caption={"max_failed_share": 0.25, "beside": ["endpoint"], "endpoint": endpoint}
    )
    dataset = Dataset(tmp_path / "ds")
    for asked in (list(WIDTHS), [80, 90, 130]):  # the second time for what has failed
        record = dataset.record_path(table)
        first = 1 if record.is_file() else 2  # the record says that nothing is counted, then what was
        with pytest.raises(Died), dying_at(first, only=f"-{record.name}"):
            build(made)
        assert dataset.held().is_whole(table), "killed after the last part"
        assert sorted(Moody.asked) == asked
        Moody.asked.clear()
        with pytest.raises(ValueError, match=f"4 of 8 images in {table} failed"):
            build(made)
        assert (Moody.asked, dataset.parts("mix")) == ([], [])
    monkeypatch.setattr(Moody, "failing", frozenset())
    build(made)
    assert sorted(Moody.asked) == [80, 90, 130] and dataset.parts("mix")
