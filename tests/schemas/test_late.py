from __future__ import annotations

import ast
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.late import Late, late
from tests.building import build, recipe, write_pictures
from tests.test_house import FILES, ROOT

HEAVY = {"captioning.texts.gate", "curation.images.decode", "curation.sources", "schemas.pixels", "schemas.tables"} | {
    *("asyncio", "duckdb", "fsspec", "numpy", "PIL", "pyarrow", "ray", "spacy", "torch", "transformers"),
}
"""What `sigma status` and `sigma --help` do not import: only work needs it."""

SHOWN = """
import sys, sigma
sys.argv = sys.argv[1:]
try:
    sigma.main()
finally:
    print(*sys.modules, file=sys.stderr)
"""


@pytest.mark.parametrize("command", ["status", "--help"])
def test_a_command_that_shows_something_imports_nothing_that_works(command: str, tmp_path: Path) -> None:
    if command == "status":
        write_pictures(tmp_path / "photos", [(96, 64)])
        build(recipe(tmp_path / "photos", tmp_path / "dataset"))
    arguments = ["sigma", command, *([str(tmp_path / "dataset")] if command == "status" else [])]
    run = subprocess.run([sys.executable, "-c", SHOWN, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert HEAVY.isdisjoint(run.stderr.split()), HEAVY.intersection(run.stderr.split())


def test_what_is_imported_late_is_imported_when_it_is_used() -> None:
    for name in ("wave", "xml.dom", "xml.dom.minidom"):
        sys.modules.pop(name, None)
    with late(__name__):
        import wave
        import xml.dom as dom
        from xml.dom import minidom
        from xml.dom.minidom import parseString
    assert {"wave", "xml.dom", "xml.dom.minidom"}.isdisjoint(sys.modules)
    assert wave.WAVE_FORMAT_PCM == 1
    assert pickle.loads(pickle.dumps(parseString))("<a/>").documentElement.tagName == "a"
    assert minidom.parseString is sys.modules["xml.dom.minidom"].parseString
    assert dom.Node is sys.modules["xml.dom"].Node


def test_other_modules_import_as_always_meanwhile() -> None:
    sys.modules.pop("wave", None)
    with late("somewhere.else"):
        import wave
    assert not isinstance(wave, Late)


def test_a_name_that_does_not_exist_is_an_import_error() -> None:
    with late(__name__):
        from pathlib import no_such_name  # type: ignore[attr-defined]
    with pytest.raises(ImportError):
        no_such_name()


def _late_names(tree: ast.Module) -> set[str]:
    """The names that a module imports late out of others."""
    blocks = [node for node in tree.body if isinstance(node, ast.With) and "late(" in ast.unparse(node.items[0])]
    froms = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name for node in froms for alias in node.names}


def _misused(tree: ast.Module) -> Iterator[ast.expr]:
    """Where Python wants the thing itself: a class that is caught, inherited or compared with, or a value."""
    for node in ast.walk(tree):
        match node:
            case ast.ExceptHandler(type=ast.expr() as caught):
                yield from caught.elts if isinstance(caught, ast.Tuple) else [caught]
            case ast.ClassDef(bases=bases):
                yield from bases
            case ast.Call(func=ast.Name(id="isinstance" | "issubclass"), args=[_, kinds]):
                yield from ast.walk(kinds)  # type: ignore[misc]
            case ast.Compare(left=left, comparators=others):
                yield from [left, *others]
            case ast.BinOp(left=left, right=right):
                yield from [left, right]
            case ast.FormattedValue(value=value) | ast.Subscript(value=value) | ast.Starred(value=value):
                yield value


WAITING = [path for path in FILES if "with late(" in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("path", WAITING, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_late_name_is_a_module_or_is_called(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = _late_names(tree)
    assert not [name for name in names if name.isupper()], "a constant is a value: import its module late"
    annotations = {id(inner) for node in ast.walk(tree) for inner in _annotation(node)}
    assert not [
        f"{used.id}, line {used.lineno}"
        for used in _misused(tree)
        if isinstance(used, ast.Name) and used.id in names and id(used) not in annotations
    ]


def _annotation(node: ast.AST) -> Iterator[ast.AST]:
    for field in ("annotation", "returns"):
        if isinstance(found := getattr(node, field, None), ast.AST):
            yield from ast.walk(found)
