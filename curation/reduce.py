"""A reduce job: SQL over all parts of its inputs, out of core, into one table sorted by row_id."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import duckdb

Connection = duckdb.DuckDBPyConnection


@dataclass(frozen=True)
class Reduce:
    """A reduce job as data."""

    job: str
    """A verb of `schemas.recipe.JOBS`."""
    output: str
    """The reduce table it writes."""
    inputs: tuple[str, ...]
    """Tables it reads; each is a view of that name on the connection."""
    query: Callable[[Connection], str]
    """May create temporary tables; gives the SELECT whose rows become the table. Columns are cast to the contract."""
    knobs: Mapping[str, Any]
    """The part of the recipe it depends on, keyed by dotted path."""
