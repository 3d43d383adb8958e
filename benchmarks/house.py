"""What the house itself costs: CPU seconds of small builds, and lines by package."""

from __future__ import annotations

import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

from tests.building import build, recipe, write_pictures

ROOT = Path(__file__).parents[1]
BUILDS = 5


def small_build(folder: Path) -> Iterator[str]:
    """CPU seconds of eight pictures through every job but the counts of nouns, in one process; the best of five."""
    write_pictures(folder / "photos")
    first: list[float] = []
    again: list[float] = []
    for number in range(BUILDS):
        for seconds in (first, again):
            begun = time.process_time()
            build(recipe(folder / "photos", folder / f"dataset-{number}"))
            seconds.append(time.process_time() - begun)
    yield f"| a build of 8 pictures, CPU | {min(first):.2f} s | nothing to do: {min(again):.2f} s | | |"


def lines_of_code(folder: Path) -> Iterator[str]:
    """Lines of Python by package, blank ones and docstrings included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = project["tool"]["importlinter"]["root_packages"]
    found = {name: _lines([*(ROOT / name).rglob("*.py")]) for name in packages} | {
        "sigma.py": _lines([ROOT / "sigma.py"])
    }
    each = ", ".join(f"{name} {count:,}" for name, count in found.items())
    yield f"| lines of the product | {sum(found.values()):,} | {each} | | |"


def _lines(paths: list[Path]) -> int:
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in paths)


BENCHMARKS = (small_build, lines_of_code)
