"""Reads the conditions that a recipe writes in SQL: each is one expression, and depends on the rows alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from engine.duck import Connection

_UNSTEADY = r"""
SELECT function_name FROM duckdb_functions()
WHERE stability <> 'CONSISTENT' AND function_name = ANY(?) AND function_name ~ '\w+'
ORDER BY ALL
"""
"""Those of some functions that depend on more than their arguments. An operator, as +, does for time zones alone."""


def condition_nodes(connection: Connection, condition: str) -> list[dict[str, Any]]:
    """The nodes of a condition's expression, as DuckDB's parser gives them; none where it cannot parse it, which a
    trial says better. Raises ValueError: more than a condition was parsed, or it holds a query, which can draw a sample
    or depend on the order of the rows, or it calls a function of chance, the clock or the session."""
    bare, *found = (
        json.loads(connection.execute("SELECT json_serialize_sql(?)", [f"SELECT 1 WHERE {text}"]).fetchall()[0][0])
        for text in ("true", condition, f"({condition})")  # as it is, and as a query has it
    )
    if all(parsed["error"] for parsed in found):
        return []
    expected = _rest(bare)
    if any(parsed["error"] or len(parsed["statements"]) != 1 or _rest(parsed) != expected for parsed in found):
        raise ValueError(f"{condition!r} is more than a condition")
    nodes = list(_nodes(found[0]["statements"][0]["node"]["where_clause"]))
    if any(node["class"] == "SUBQUERY" for node in nodes):
        raise ValueError(f"{condition!r} is no condition: it holds a query of its own")
    called = [node["function_name"] for node in nodes if node["class"] == "FUNCTION"]
    for (name,) in connection.execute(_UNSTEADY, [called]).fetchall():
        raise ValueError(f"{name} depends on more than the picture")
    return nodes


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Every expression in a tree of DuckDB's parser."""
    if isinstance(tree, dict):
        if "class" in tree:
            yield tree
        tree = list(tree.values())
    if isinstance(tree, list):
        for branch in tree:
            yield from _nodes(branch)


def _rest(parsed: dict[str, Any]) -> Any:
    """The first statement of what was parsed, but for its condition."""
    node = parsed["statements"][0]["node"]
    return _without_places({name: value for name, value in node.items() if name != "where_clause"})


def _without_places(tree: Any) -> Any:
    """The same tree without the places in the text."""
    if isinstance(tree, dict):
        return {name: _without_places(value) for name, value in tree.items() if name != "query_location"}
    return [_without_places(branch) for branch in tree] if isinstance(tree, list) else tree
