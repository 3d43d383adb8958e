"""Checks the conditions of a recipe's subsets: each is one SQL expression over the facts of a picture, and no more."""

from __future__ import annotations

import difflib
import re
from functools import lru_cache

from engine.conditions import condition_nodes
from engine.duck import Connection
from schemas.late import late
from schemas.recipe import Select
from schemas.scores import LIMITED

with late(__name__):
    import duckdb

SUBSET_COLUMNS = {
    "width": "INTEGER",
    "height": "INTEGER",
    "short_side": "INTEGER",
    "long_side": "INTEGER",
    "megapixels": "DOUBLE",
    "aspect": "DOUBLE",
    "aesthetic": "FLOAT",
    "format": "VARCHAR",
    "source_name": "VARCHAR",
    **dict.fromkeys(LIMITED, "FLOAT"),
    "classes": "MAP(VARCHAR, FLOAT)",
}
"""Columns that the condition of a subset can name."""

_CALLED = """
+ - * / // % ** ^ || ~~ !~~ ~~* !~~* ~~~
abs ceil ceiling floor round trunc sign sqrt ln log log2 log10 exp pow power least greatest ifnull nullif isnan isfinite
lower upper lcase ucase length len trim ltrim rtrim reverse contains starts_with ends_with prefix suffix strpos instr
position substring substr left right replace split_part concat regexp_matches regexp_full_match regexp_extract
list_value list_contains array_contains map_keys map_values map_contains map_extract element_at cardinality
"""
FUNCTIONS = frozenset(_CALLED.split())
"""Functions and operators that a condition can call. Each depends on its arguments alone and opens nothing."""

_NODES = "CONJUNCTION COMPARISON BETWEEN CASE CAST TYPE COLUMN_REF CONSTANT FUNCTION OPERATOR"
_EXPRESSIONS = frozenset(_NODES.split())


def check_subsets(rules: Select) -> dict[str, str]:
    """The subsets of a recipe, each parsed and tried on a table without rows. Raises ValueError: a name that is no
    plain word, or a condition that is not one SQL expression over `SUBSET_COLUMNS` and `FUNCTIONS`."""
    _check_all(tuple(rules.subsets.items()))
    return dict(rules.subsets)


@lru_cache(32)
def _check_all(subsets: tuple[tuple[str, str], ...]) -> None:
    if not subsets:
        return
    with duckdb.connect(config={"enable_external_access": "false"}) as connection:
        columns = ", ".join(f"{name} {kind}" for name, kind in SUBSET_COLUMNS.items())
        connection.execute(f"CREATE TABLE pictures ({columns})")
        for name, condition in subsets:
            if not name.replace("_", "").replace("-", "").isalnum():
                raise ValueError(f"select.subsets.{name}: a name is letters, digits, - and _")
            try:
                _check(connection, condition)
            except ValueError as error:
                raise ValueError(f"select.subsets.{name}: {error}") from None


def _check(connection: Connection, condition: str) -> None:
    if not condition.strip():
        raise ValueError("a condition is missing")
    nodes = condition_nodes(connection, condition)
    sql = f"SELECT CASE WHEN ({condition}) THEN 1 END FROM pictures WHERE ({condition})"  # WHERE: no aggregates
    try:
        if len(connection.extract_statements(sql)) != 1:
            raise ValueError("one condition, no semicolon")
        connection.execute(sql)
        [(kind,)] = connection.sql(f"SELECT column_type FROM (DESCRIBE SELECT ({condition}) FROM pictures)").fetchall()
    except duckdb.Error as error:
        why = str(error).splitlines()[0]
        raise ValueError(
            f"{condition!r} is no condition ({why}); {_nearest(why)}columns: {', '.join(SUBSET_COLUMNS)}"
        ) from None
    if kind != "BOOLEAN":
        raise ValueError(f"{condition!r} is no condition: it gives {kind}, not yes or no")
    called = {node["function_name"] for node in nodes if node["class"] == "FUNCTION"}
    if unknown := sorted(called - FUNCTIONS):
        raise ValueError(
            f"{unknown[0]} is no function that a condition can call; there are {' '.join(sorted(FUNCTIONS))}"
        )
    for node in nodes:
        if node["class"] not in _EXPRESSIONS:
            raise ValueError(f"{condition!r} is more than an expression over the columns of a picture: {node['class']}")
        if node["class"] == "COLUMN_REF" and [name.lower() for name in node["column_names"]][-1] not in SUBSET_COLUMNS:
            raise ValueError(f"{node['column_names'][-1]} is no column; there are {', '.join(SUBSET_COLUMNS)}")


def _nearest(why: str) -> str:
    """The column that an unknown one may have meant, as a hint."""
    unknown = re.search(r'column "(\w+)" not found', why)
    near = difflib.get_close_matches(unknown[1], SUBSET_COLUMNS, n=1) if unknown else []
    return f"did you mean {near[0]}? " if near else ""
