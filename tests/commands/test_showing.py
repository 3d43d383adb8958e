"""The demo, killed wherever it is and run again, shows what an undisturbed one shows; refused, it writes nothing."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import typer

from commands import showing
from curation.sources import demo_photos
from schemas import strict
from schemas.strict import read_yaml
from tests.building import write_pictures
from tests.dying import Died, dying_at
from tests.trees import content


def in_short(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """A recipe of the demo, trained for a moment."""
    knobs = read_yaml(path, overrides)
    if "stages" in knobs:
        knobs["optimizer"]["warmup_steps"] = 1
        knobs["model"] = {"depth": 1, "hidden_size": 16, "num_heads": 2}
        knobs["sample"]["steps"], knobs["checkpoint_every"], knobs["log_every"] = 1, 2, 1
        knobs["stages"] = [knobs["stages"][0] | {"steps": 4, "warmup_steps": 1}]
    return knobs


def shown(out: Path) -> dict[str, Any]:
    """What the demo leaves: its dataset, the last checkpoint of each stage, its grid of pictures."""
    checkpoints = {path.relative_to(out): path.read_bytes() for path in sorted(out.glob("model/*/step-*.pt"))}
    return content(out / "dataset") | checkpoints | {"samples": (out / "samples.png").read_bytes()}


@pytest.mark.slow
def test_a_demo_that_was_killed_is_finished_by_running_it_again(
    tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # without Inception, which takes seconds
    monkeypatch.setattr(strict, "read_yaml", in_short)
    monkeypatch.setattr(demo_photos, "write_demo_photos", lambda folder: len(write_pictures(folder, [(200, 200)] * 4)))
    monkeypatch.setattr(demo_photos, "PHOTOS", [demo_photos.Photo("000.jpg", "", None)])
    out = tmp_path / "demo"  # the tables hold its name
    showing.demo(out, "local")
    undisturbed = shown(out)
    assert "sigma weights get fid-inception" in capsys.readouterr().out
    assert len(undisturbed) > 30
    shutil.rmtree(out)
    for change, only in ((30, "/dataset/"), (1, "step-")):
        with pytest.raises(Died), dying_at(change, only):
            showing.demo(out, "local")
    showing.demo(out, "local")
    assert shown(out) == undisturbed


def test_a_demo_that_is_refused_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for mine in ("pictures/me.png", "demo/photos/coffee.png", "data/mine.txt"):
        (tmp_path / mine).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / mine).write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    for out, dataset, why in (
        ("pictures", None, "holds other files and no demo"),
        ("demo", None, "demo/photos: holds other files and no demo"),
        ("pictures/me.png", None, "is a file"),
        ("new", "data/mine.txt", "is a file"),
        ("new", "data", "holds other files and no dataset"),
    ):
        with pytest.raises(typer.Exit):
            showing.demo(tmp_path / out, "local", None if dataset is None else tmp_path / dataset)
        assert why in capsys.readouterr().err
    with pytest.raises(typer.Exit):
        showing.demo(tmp_path / "new", "spark")
    assert "runner" in capsys.readouterr().err and sorted(tmp_path.rglob("*")) == before
