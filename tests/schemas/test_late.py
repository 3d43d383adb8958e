from __future__ import annotations

import ast
import pickle
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from schemas.late import late
from tests.test_house import FILES, ROOT


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package that nothing has imported yet."""
    (tmp_path / "a_room").mkdir()
    (tmp_path / "a_room" / "__init__.py").touch()
    (tmp_path / "a_room" / "work.py").write_text("SIZE = 3\n\ndef double(number):\n    return 2 * number\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in ("a_room", "a_room.work", "a_room.desk"):
        sys.modules.pop(name, None)


def test_what_is_imported_late_is_imported_when_it_is_used(room: None) -> None:
    with late(__name__):
        import a_room
        import a_room.work as by_path
        from a_room import work
        from a_room.work import double
    assert "a_room" not in sys.modules
    pickled = pickle.dumps(double)
    assert "a_room" not in sys.modules
    assert pickle.loads(pickled)(4) == double(4) == 8
    assert (work.SIZE, by_path.SIZE, a_room.work.SIZE) == (3, 3, 3)


def test_what_was_used_once_is_bound_as_if_it_had_been_imported_at_once(room: None, tmp_path: Path) -> None:
    lines = ("import a_room.work as work", "from a_room.work import double")
    (tmp_path / "a_room" / "desk.py").write_text(
        "from schemas.late import late\n\nwith late(__name__):\n    " + "\n    ".join(lines) + "\n"
    )
    desk = import_module("a_room.desk")
    assert "a_room.work" not in sys.modules
    assert desk.double(desk.work.SIZE) == 6
    assert desk.work is sys.modules["a_room.work"]
    assert desk.double is desk.work.double


def test_other_modules_import_as_always_meanwhile(room: None) -> None:
    with late("somewhere.else"):
        import a_room
    assert a_room is sys.modules["a_room"]


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
