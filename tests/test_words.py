"""What the documents, the help and the errors tell a user to type exists: commands, options, knobs and packages."""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest
import typer
from pydantic import BaseModel

import recipes
from commands.front_door import app
from curation.images.header import PLUGINS
from schemas.recipe import DataRecipe
from schemas.strict import models_in
from schemas.tables import SCHEMAS
from schemas.training import TrainingRecipe

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES = PROJECT["tool"]["importlinter"]["root_packages"]
MODULES = [ROOT / "sigma.py", *(path for name in PACKAGES for path in sorted((ROOT / name).rglob("*.py")))]
PLAIN = {"sony", "would"}
"""Words behind `sigma` that are no command: a maker of cameras beside others, and a verb."""
COMMAND = re.compile(r"\bsigma ([a-z_]+(?:-[a-z]+)*)\b(?!\.)")
MODELS: dict[str, type[BaseModel]] = {"data": DataRecipe, "train": TrainingRecipe}
TRAINING = {"train", "encode", "sample"}
KNOBS_IN = {"README.md", "docs/curation.md", "docs/captioning.md", "docs/training.md", "docs/browse.md"}
"""Pages whose dotted names are knobs; others name functions and columns of diffs too."""
OF_TRAINING = (
    "docs/training.md",
    "training/",
    "schemas/training.py",
    "commands/learning.py",
    "recipes/train_",
    "recipes/ablate_",
)
"""Beginnings of the places whose knobs are of the training recipe; elsewhere they are of the data recipe."""
NO_KNOBS = {"model.diffusion_model"}
"""A prefix of keys in others' weights."""


@cache
def commands() -> dict[str, click.Command]:
    group: Any = typer.main.get_command(app)
    return dict(group.commands)


@cache
def takes_recipe() -> set[str]:
    return {name for name, command in commands().items() if any(one.metavar == "RECIPE" for one in command.params)}


def strings(path: Path) -> Iterator[str]:
    """The texts of a module; what an f-string fills in is {}."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = set[int]()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            inside |= {id(part) for part in node.values}
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield node.value


def code(path: Path) -> Iterator[str]:
    """What a page shows as code: inline, and the lines of its blocks, where a backslash joins two."""
    text = path.read_text(encoding="utf-8")
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    yield from re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))
    for block in blocks:
        yield from block.replace("\\\n", " ").splitlines()


def texts() -> Iterator[tuple[str, str]]:
    for path in [*PAGES, *RECIPES]:
        pieces = code(path) if path.suffix == ".md" else path.read_text(encoding="utf-8").splitlines()
        yield from ((f"{path.relative_to(ROOT)}", piece) for piece in pieces)
    for path in MODULES:
        yield from ((f"{path.relative_to(ROOT)}", text) for text in strings(path))


ALL = list(texts())


def typed() -> Iterator[tuple[str, list[str]]]:
    """The command lines in pages and recipes: (place, words behind `sigma`)."""
    for place, text in ALL:
        if place.endswith(".py"):
            continue
        for line in re.findall(r"(?:^|[\s$`(#])sigma ((?:--debug )?[a-z]+ .*)", text):
            try:
                words = shlex.split(line.partition("  #")[0].partition(" | ")[0], comments=True)
            except ValueError:
                words = line.split()
            yield place, words


def model_of(place: str, text: str) -> type[BaseModel]:
    """The recipe whose knobs a text names: that of the last command in it that takes one, else that of its place."""
    named = [word for word in COMMAND.findall(text) if word in takes_recipe()]
    if named:
        return TrainingRecipe if named[-1] in TRAINING else DataRecipe
    return TrainingRecipe if place.startswith(OF_TRAINING) else DataRecipe


def has_knob(model: type[BaseModel], parts: list[str]) -> bool:
    """Whether a dotted key leads to a knob; a number is a place in a list, and a dict takes any name."""
    name, rest = parts[0], parts[1:]
    if name not in model.model_fields:
        return False
    while rest and rest[0].isdigit():
        rest = rest[1:]
    annotation = model.model_fields[name].annotation
    inner = models_in(annotation)
    if not rest or "dict" in str(annotation).lower() or "mapping" in str(annotation).lower():
        return True
    return any(has_knob(each, rest) for each in inner)


def test_every_command_that_is_named_exists() -> None:
    named = {(place, word) for place, text in ALL for word in COMMAND.findall(text)}
    assert len({word for _, word in named}) > 15, "the search finds them"
    unknown = {(place, word) for place, word in named if word not in {*commands(), *PLAIN}}
    assert unknown == set()


def test_every_option_that_is_typed_exists() -> None:
    checked, unknown = 0, []
    for place, [command, *words] in typed():
        if command not in commands():
            continue
        chosen = commands()[command]
        if hasattr(chosen, "commands"):
            chosen = chosen.commands[words[0]]
        known = {name for one in chosen.params for name in (*one.opts, *one.secondary_opts)} | {"--help"}
        for word in words:
            if re.fullmatch(r"--[a-z][a-z-]*", word):
                checked += 1
                unknown += [] if word in known else [(place, command, word)]
    assert checked > 20
    assert unknown == []


def test_every_knob_that_is_typed_exists() -> None:
    checked, unknown = 0, []
    for place, [command, *words] in typed():
        model = TrainingRecipe if command in TRAINING else DataRecipe
        for word in words:
            if key := re.match(r"([a-z_0-9]+(?:\.[a-z_0-9]+)*)=", word):
                checked += 1
                unknown += [] if has_knob(model, key[1].split(".")) else [(place, command, word)]
    assert checked > 20
    assert unknown == []


def test_every_knob_that_is_named_exists() -> None:
    """A name with a section in front: `select.min_aesthetic`, and `select.min_aesthetic=5` in a message."""
    sections = {name for model in MODELS.values() for name in model.model_fields}
    files = {"py", "yaml", "json", "jsonl", "md", "html", "parquet", "csv", "txt", "sql", "pth", "pt", "safetensors"}
    checked, unknown = 0, set()
    for place, text in ALL:
        for key, sets in re.findall(r"(?<![\w./-])((?:[a-z_]+)(?:\.[a-z_0-9]+)+)(=)?", text):
            section, *rest = key.split(".")
            in_code = place in KNOBS_IN or sets
            if section not in sections or not in_code or rest[-1] in files or (not sets and section in SCHEMAS):
                continue
            checked += 1
            if key not in NO_KNOBS and not has_knob(model_of(place, text), key.split(".")):
                unknown.add((place, key))
    assert checked > 100
    assert unknown == set()


def test_every_recipe_that_is_typed_by_name_is_shipped() -> None:
    names = {(place, words[0]) for place, [command, *words] in typed() if command in takes_recipe() and words}
    unknown = {(place, name) for place, name in names if re.fullmatch(r"[a-z_]+", name) and name not in recipes.SHIPPED}
    assert len(names) > 5
    assert unknown == set()


def test_every_package_to_install_is_one_that_this_project_declares() -> None:
    project = PROJECT["project"]
    declared = [
        *project["dependencies"],
        *(one for extra in project["optional-dependencies"].values() for one in extra),
    ]
    known = {re.split(r"[\[<>=]", one)[0] for one in [*declared, *PLUGINS.values()]} | {"moto", project["name"]}
    found = {
        (place, word)
        for place, text in ALL
        for line in re.findall(r"pip install ((?:[^`)(;:\n]|\{\})+)", text)
        for word in re.findall(
            r"(?<![\w./-])'?([a-z][a-z0-9-]+)", re.sub(r"\[.*?\]", "", line).partition(",")[0].partition(" or ")[0]
        )
    }
    assert len(found) > 4
    assert (ROOT / "constraints-vllm.txt").is_file()
    options = {
        "constraint",
        "constraints-vllm",
        "quiet",
        "target",
        "store-site",
        "editable",
        "upgrade",
        "requirement",
        "index-url",
    }
    assert {(place, word) for place, word in found if word not in known | options} == set()


@pytest.mark.parametrize("name", ["mix.synthetic_shar", "captioners.weights", "select.subsets.a.b.c"])
def test_a_knob_that_is_none_is_found(name: str) -> None:
    assert has_knob(DataRecipe, name.split(".")) == name.startswith("select.subsets")
