"""The rules of the house that no other tool checks: lengths, doors, the tree in the README, the words of docstrings."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES = PROJECT["tool"]["importlinter"]["root_packages"]
CONTRACTS = ("schemas/columns.py", "schemas/training.py")
"""Files that list a contract from top to bottom, and may therefore be long."""
MAX_FILE_LINES = 350
MAX_FUNCTION_LINES = 60

FILES = [ROOT / "sigma.py", *(path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")))]


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def test_packages_are_the_folders_that_are_installed_but_the_recipes():
    installed = {name.removesuffix("*") for name in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert (
        installed - {"recipes"}
        == {*PACKAGES}
        == {path.parent.name for path in ROOT.glob("*/__init__.py")}
        - {
            "benchmarks",
            "recipes",
        }
    )


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(parsed(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def test_every_package_that_is_imported_is_one_that_an_installation_names():
    """Otherwise it is there only as long as another package happens to need it."""
    extras = PROJECT["project"]["optional-dependencies"].values()
    lines = [*PROJECT["project"]["dependencies"], *(line for extra in extras for line in extra)]
    named = {re.split(r"[^\w-]", line)[0].replace("-", "_") for line in lines}
    imported = {name.split(".")[0] for path in FILES for name in imports(path)}
    imported -= {*PACKAGES, "recipes", *sys.stdlib_module_names}
    other_names = {"PIL": "pillow", "yaml": "pyyaml", "cv2": "opencv_python_headless", "faiss": "faiss_cpu"}
    assert {other_names.get(name, name) for name in imported} - named == set()


def test_no_file_is_longer_than_350_lines_but_the_two_contracts():
    lengths = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {name: n for name, n in lengths.items() if n > MAX_FILE_LINES and name not in CONTRACTS} == {}


def test_no_function_is_longer_than_60_lines():
    lengths = {
        f"{name_of(path)}:{node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for path in FILES
        for node in functions(path)
    }
    assert {name: n for name, n in lengths.items() if n > MAX_FUNCTION_LINES} == {}


def test_curation_has_at_most_twelve_rooms():
    rooms = [path for path in (ROOT / "curation").iterdir() if path.is_dir() and (path / "__init__.py").is_file()]
    assert 1 < len(rooms) <= 12


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_module_begins_with_one_sentence_that_says_its_job(path: Path):
    text = ast.get_docstring(parsed(path))
    assert text and re.match(r"[^\n]+(\n[^\n]+)*?[.:]", text), f"{name_of(path)} has no opening sentence"


def test_pictures_are_opened_in_one_place():
    """Elsewhere Pillow would try all of its formats, some of which open another file or start a program."""
    openers = [name_of(path) for path in FILES if "Image.open(" in path.read_text(encoding="utf-8")]
    assert openers == ["schemas/opening.py"]


def test_the_tree_of_the_readme_names_every_folder():
    tree = (ROOT / "README.md").read_text(encoding="utf-8").split("## The tree", 1)[1]
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")} | {"recipes", "docs", "examples", "tests"}
    assert {folder for folder in folders if f"{folder}/" not in tree} == set()
