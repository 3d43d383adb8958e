"""The worked examples of CONTRIBUTING are real: each diff applies to this tree, and what it adds works."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.building import write_pictures

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
MAX_DIFF_LINES = 60

BUILD = """
import json, sys
from commands.order import pipeline
from curation.build import build
from engine import catalog
from engine.dataset import Dataset
from schemas.recipe import DataRecipe
recipe = DataRecipe.from_mapping(json.loads(sys.argv[1]))
build(recipe, [job for job in pipeline(recipe) if job.job not in ("nouns", "statistics")])
with catalog.connect(Dataset(recipe.out_path())) as connection:
    print(json.dumps(connection.sql(sys.argv[2]).fetchall()))
"""


def diffs() -> dict[str, str]:
    """The diffs of CONTRIBUTING by what they add: `score`, `source`, `captioner`."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^### Add a (\w+)\n.*?^```diff\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))


@pytest.fixture
def patched(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A copy of the product to which the diff of CONTRIBUTING that the test names has been applied."""
    tree = tmp_path / "tree"
    for folder in sorted(path.parent for path in ROOT.glob("*/__init__.py")):
        shutil.copytree(folder, tree / folder.name, ignore=shutil.ignore_patterns("__pycache__"))
    applied = subprocess.run(
        ["git", "apply", "-"], input=diffs()[request.param], cwd=tree, capture_output=True, text=True, check=False
    )
    assert applied.returncode == 0, applied.stderr
    return tree


def built(tree: Path, recipe: dict[str, object], query: str) -> list[list[object]]:
    """Build a dataset with the product in `tree`, and return the rows of a query over it."""
    values = {"out": str(tree.parent / "dataset"), "run": {"runner": "local"}, "select": {"min_short_side_px": 1}}
    done = subprocess.run(
        [sys.executable, "-c", BUILD, json.dumps(values | recipe), query],
        cwd=tree,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows: list[list[object]] = json.loads(done.stdout)
    return rows


def test_each_example_is_shorter_than_sixty_lines():
    lengths = {what: len(diff.splitlines()) for what, diff in diffs().items()}
    assert lengths.keys() == {"score", "source", "captioner"}
    assert {what: length for what, length in lengths.items() if length >= MAX_DIFF_LINES} == {}


@pytest.mark.parametrize("patched", ["score"], indirect=True)
def test_the_added_score_is_measured_and_can_name_a_subset(patched: Path, tmp_path: Path):
    write_pictures(tmp_path / "photos", [(96, 64)] * 3)
    recipe = {
        "images": str(tmp_path / "photos"),
        "screen": {"saturation": True},
        "select": {"min_short_side_px": 1, "subsets": {"vivid": "saturation >= 0"}},
    }
    found = built(patched, recipe, "SELECT saturation > 0, subsets FROM screens JOIN selection USING (row_id)")
    assert found == [[True, ["vivid"]]] * 3


@pytest.mark.parametrize("patched", ["source"], indirect=True)
def test_the_added_source_lists_the_files_that_it_names(patched: Path, tmp_path: Path):
    write_pictures(tmp_path / "photos", [(96, 64)] * 3)
    listed = [tmp_path / "photos" / name for name in ("002.jpg", "000.jpg", "none.jpg")]
    (tmp_path / "chosen.txt").write_text("".join(f"{path}\n" for path in listed), encoding="utf-8")
    recipe = {"sources": [{"kind": "paths", "file": str(tmp_path / "chosen.txt")}]}
    found = built(patched, recipe, "SELECT member, outcome, reason FROM ledger ORDER BY row_id")
    assert [outcome for _, outcome, _ in found] == ["kept", "kept", "error"]
    assert found[2][2] == "unreadable"


@pytest.mark.parametrize("patched", ["captioner"], indirect=True)
def test_the_added_captioner_captions_every_picture(patched: Path, tmp_path: Path):
    write_pictures(tmp_path / "photos", [(96, 64), (64, 96)], captions=False)
    recipe = {"images": str(tmp_path / "photos"), "caption": {"captioner": "shape"}}
    found = built(patched, recipe, "SELECT captioner, caption FROM captions ORDER BY row_id")
    assert found == [["shape", "A wide picture."], ["shape", "A tall picture."]]
