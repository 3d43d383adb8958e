"""The command that chooses an evaluation set."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from commands.front_door import app
from engine.dataset import Dataset
from evaluation.prompts import read_prompts


def run(*arguments: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["evaluate-set", *map(str, arguments)])
    return done.exit_code, done.output


@pytest.mark.slow
def test_the_command_takes_knobs_from_a_file_and_the_line_and_prints_the_digest(demo: Dataset, tmp_path: Path) -> None:
    knobs = tmp_path / "set.yaml"
    knobs.write_text("categories: {pets: [cat], money: [coin]}\nper_category: 7\n", encoding="utf-8")
    few = ["per_category=1", "min_short_side_px=200", "aesthetic_share=1", "run.runner=local"]
    status, shown = run(demo.root, "--out", tmp_path / "set", "--recipe", knobs, *few)
    assert status == 0, shown
    assert "2 prompts with their pictures (2 raw)" in shown
    assert "0 by bytes, 0 by pixels, 0 by phash, 0 by text" in shown
    assert "digest: " in shown and "dedup.against=[" in shown
    assert [prompt.category for prompt in read_prompts(tmp_path / "set")] == ["pets", "money"]


def test_too_few_pictures_end_with_one_line_and_no_folder(demo: Dataset, tmp_path: Path) -> None:
    status, shown = run(demo.root, "--out", tmp_path / "set", "--against", demo.root)
    assert status == 1 and "is the dataset that the set is chosen from" in shown
    status, shown = run(demo.root, "--out", tmp_path / "set")
    assert status == 1 and "too few pictures" in shown and "costs most" in shown
    assert not (tmp_path / "set").exists()
