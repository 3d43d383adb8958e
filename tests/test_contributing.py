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

BUILDS = """
import json, sys
from commands.order import pipeline
from curation.build import build
from engine import catalog
from engine.dataset import Dataset
from schemas.recipe import DataRecipe
found = {}
for name, (values, query) in json.loads(sys.argv[1]).items():
    recipe = DataRecipe.from_mapping(values)
    build(recipe, [job for job in pipeline(recipe) if job.job not in ("nouns", "statistics")])
    with catalog.connect(Dataset(recipe.out_path())) as connection:
        found[name] = connection.sql(query).fetchall()
print(json.dumps(found))
"""


def diffs() -> dict[str, str]:
    """The diffs of CONTRIBUTING by what they add: `score`, `source`, `captioner`."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^### Add a (\w+)\n.*?^```diff\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))


def apply(what: str, tree: Path, *options: str) -> None:
    done = subprocess.run(
        ["git", "apply", *options, "-"], input=diffs()[what], cwd=tree, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the product."""
    tree = tmp_path_factory.mktemp("contributing") / "tree"
    for folder in sorted(path.parent for path in ROOT.glob("*/__init__.py")):
        shutil.copytree(folder, tree / folder.name, ignore=shutil.ignore_patterns("__pycache__"))
    return tree


@pytest.fixture(scope="module")
def built(tree: Path) -> dict[str, list[list[object]]]:
    """A dataset built with what each diff adds: the diff -> the rows of a query over it. One process, which has all of
    them, builds one after the other; each applies to the tree without the others too."""
    for what in diffs():
        apply(what, tree, "--check")
    for what in diffs():
        apply(what, tree)
    photos = tree.parent / "photos"
    write_pictures(photos, [(96, 64), (64, 96), (96, 64)], captions=False)
    listed = [photos / name for name in ("002.jpg", "000.jpg", "none.jpg")]
    (tree.parent / "chosen.txt").write_text("".join(f"{path}\n" for path in listed), encoding="utf-8")
    vivid = {"select": {"min_short_side_px": 1, "subsets": {"vivid": "saturation >= 0"}}}
    wanted = {
        "score": (
            {"images": str(photos), "screen": {"saturation": True}} | vivid,
            "SELECT saturation > 0, subsets FROM screens JOIN selection USING (row_id)",
        ),
        "source": (
            {"sources": [{"kind": "paths", "file": str(tree.parent / "chosen.txt")}]},
            "SELECT member, outcome, reason FROM ledger ORDER BY row_id",
        ),
        "captioner": (
            {"images": str(photos), "caption": {"captioner": "shape"}},
            "SELECT captioner, caption FROM captions ORDER BY row_id",
        ),
    }
    plain = {"run": {"runner": "local"}, "select": {"min_short_side_px": 1}}
    recipes = {
        what: (plain | values | {"out": str(tree.parent / what)}, query) for what, (values, query) in wanted.items()
    }
    done = subprocess.run(
        [sys.executable, "-c", BUILDS, json.dumps(recipes)],
        cwd=tree,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows: dict[str, list[list[object]]] = json.loads(done.stdout)
    return rows


def test_each_example_is_shorter_than_sixty_lines():
    lengths = {what: len(diff.splitlines()) for what, diff in diffs().items()}
    assert lengths.keys() == {"score", "source", "captioner"}
    assert {what: length for what, length in lengths.items() if length >= MAX_DIFF_LINES} == {}


def test_the_added_score_is_measured_and_can_name_a_subset(built: dict[str, list[list[object]]]) -> None:
    assert built["score"] == [[True, ["vivid"]]] * 3


def test_the_added_source_lists_the_files_that_it_names(built: dict[str, list[list[object]]]) -> None:
    found = built["source"]
    assert [outcome for _, outcome, _ in found] == ["kept", "kept", "error"]
    assert found[2][2] == "unreadable"


def test_the_added_captioner_captions_every_picture(built: dict[str, list[list[object]]]) -> None:
    assert built["captioner"] == [["shape", f"A {how} picture."] for how in ("wide", "tall", "wide")]
