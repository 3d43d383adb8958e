"""`sigma ablate` from the recipe to the tables, the figure and the lines that say what is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from typer.testing import CliRunner

from commands.front_door import app
from tests.evaluation.toy import made, no_weights, six_pictures

__all__ = ["made", "no_weights", "six_pictures"]


@pytest.fixture
def recipe(made: Callable[..., Any], tmp_path: Path) -> str:
    training, _ = made()
    (tmp_path / "train.yaml").write_text(training.to_yaml(), encoding="utf-8")
    knobs = {"train": str(tmp_path / "train.yaml"), "out": str(tmp_path / "out"), "stage": "compressed", "points": 3}
    knobs |= {"layers": ["none", "deep"], "ratio": [2], "operator": ["conv"], "pictures": 4, "timing_rounds": 1}
    (tmp_path / "ablate.yaml").write_text(yaml.safe_dump(knobs), encoding="utf-8")
    return str(tmp_path / "ablate.yaml")


@pytest.mark.slow
def test_a_grid_and_a_claim_are_printed_and_drawn_together(recipe: str, no_weights: None, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["ablate", recipe])
    assert done.exit_code == 0, done.output
    for said in (
        "grid, stage compressed at 64 px, n = 4: 2 blocks of 32, 3 steps, 3 seeds; no value of it compares with a pub",
        "published, 0.6B at 512 px",
        "FID 8.532",
        "agrees with itself to no better than 0.5 FID",
        "no FID: weights missing",
    ):
        assert said in done.output
    done = CliRunner().invoke(app, ["ablate", recipe, "--claim", "conv-avg-init", "steps=3"])
    assert done.exit_code == 0, done.output
    assert "the last validation loss of at random" in done.output
    figure = ElementTree.parse(tmp_path / "out" / "ablation.svg").getroot()
    titles = [panel.findtext("{*}text") for panel in figure.findall("{*}g")]
    assert titles == ["layers: validation loss, 64 px", "conv-avg-init: validation loss, 64 px"]
    cut(tmp_path / "out" / "grid.parquet")
    done = CliRunner().invoke(app, ["ablate", recipe, "--claim", "conv-avg-init", "steps=3"])
    assert done.exit_code == 0 and "grid.parquet: damaged (no whole Parquet file), so it is not drawn" in done.output
    folder = next((tmp_path / "out" / "grid").glob("*/seed-0/*"))
    for file, why in (
        ("cell.json", "damaged (is not JSON"),
        ("metrics.jsonl", "the line of step 2 is gone or damaged"),
    ):
        cut(folder / file)
        done = CliRunner().invoke(app, ["ablate", recipe])
        assert done.exit_code == 1 and f"{folder / file}: {why}" in done.output, done.output
        assert f"rm -r {folder}, then the same command, trains the cell again" in done.output
        (folder / file).unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["seeds=[1,2]"], "seeds [1, 2]: under 3 do not say how far two runs of one cell are apart; add seeds"),
        (["stage=other"], "no stage 'other' in the recipe; its stages are first, larger, compressed"),
        (["points=2"], "points 2 do not divide the 3 steps; set steps=4"),
        (["--claim", "vae", "overrides=[latents.codec=mixed_dct]"], "latents.codec must be dct"),
        (["--claim", "positions", "positions_stage=first"], "positions: no stage 'first' has a parent of another"),
        (["train=nowhere"], "nowhere: no such recipe file"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(
    recipe: str, no_weights: None, words: list[str], message: str
) -> None:
    done = CliRunner().invoke(app, ["ablate", recipe, *words])
    assert done.exit_code == 1
    assert message in " ".join(done.output.split())
    assert "Traceback" not in done.output
