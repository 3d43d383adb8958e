"""A filter over the images of a dataset: from the address of a page to SQL with parameters, and to SQL to copy. Columns
and operators come from closed lists; a typed value only ever becomes a parameter, or a quoted literal to copy."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from engine.duck import duckdb_type, literal
from schemas.tables import SCHEMAS

MOST_CONDITIONS = 8
MOST_CHARACTERS = 500
"""A value to compare with has at most this many characters."""

TABLES = ("listing", "images", "scores", "screens", "selection", "duplicates", "fingerprints", "raw_captions",
          "captions", "mix", "grounding", "samples")  # fmt: skip
"""Tables with one row per input; a filter can compare any of their columns."""

_COMPARED = ("VARCHAR", "VARCHAR[]", "BOOLEAN", "TINYINT", "INTEGER", "BIGINT", "UBIGINT", "FLOAT", "DOUBLE")
"""Types of columns that can be compared with a typed value; not bytes, maps and lists of numbers."""


@dataclass(frozen=True)
class Field:
    """A column or computed number that a filter can compare."""

    name: str
    table: str
    sql: str
    type: str
    """DuckDB's name of the type."""

    @property
    def group(self) -> str:
        """What the form lists it under."""
        return self.name.partition(".")[0]

    @property
    def kind(self) -> str:
        """number, text, flag or list."""
        if self.type.endswith("[]"):
            return "list"
        return {"VARCHAR": "text", "BOOLEAN": "flag"}.get(self.type, "number")


def _fields() -> dict[str, Field]:
    shape = {
        "short_side": ("least(images.width, images.height)", "INTEGER"),
        "long_side": ("greatest(images.width, images.height)", "INTEGER"),
        "long_over_short": (
            "greatest(images.width, images.height) / least(images.width, images.height)::DOUBLE",
            "DOUBLE",
        ),
        "height_over_width": ("images.height / images.width::DOUBLE", "DOUBLE"),
        "megapixels": ("images.width::DOUBLE * images.height / 1e6", "DOUBLE"),
    }
    found = [Field(f"ledger.{name}", "ledger", f"ledger.{name}::VARCHAR", "VARCHAR")
             for name in ("outcome", "stage", "reason")]  # fmt: skip
    found += [Field(f"picture.{name}", "images", f"({sql})", kind) for name, (sql, kind) in shape.items()]
    for table in TABLES:
        for column in SCHEMAS[table]:
            kind = duckdb_type(column.type)
            if kind in _COMPARED and (column.name != "row_id" or table == "listing"):
                found.append(Field(f"{table}.{column.name}", table, f"{table}.{column.name}", kind))
    return {field.name: field for field in found}


FIELDS = _fields()
"""Every field by its name, `table.column`; `picture.*` are computed from the size, upright px."""

OPERATORS: dict[str, tuple[str, str, frozenset[str]]] = {
    "is": ("is", "{0} = {1}", frozenset({"number", "text", "flag"})),
    "not": ("is not", "{0} IS DISTINCT FROM {1}", frozenset({"number", "text", "flag"})),
    "contains": ("contains", "contains(lower({0}), lower({1}))", frozenset({"text"})),
    "begins": ("begins with", "starts_with({0}, {1})", frozenset({"text"})),
    "lt": ("<", "{0} < {1}", frozenset({"number"})),
    "le": ("≤", "{0} <= {1}", frozenset({"number"})),
    "gt": (">", "{0} > {1}", frozenset({"number"})),
    "ge": ("≥", "{0} >= {1}", frozenset({"number"})),
    "has": ("has", "list_contains({0}, {1})", frozenset({"list"})),
    "empty": ("is empty", "{0} IS NULL", frozenset({"number", "text", "flag", "list"})),
    "given": ("is given", "{0} IS NOT NULL", frozenset({"number", "text", "flag", "list"})),
}
"""Operator -> (its label, SQL over the column and the value, the kinds of column it takes)."""

NEEDS_NO_VALUE = ("empty", "given")
SORTS = {name: field for name, field in FIELDS.items() if field.kind == "number"}

_PLACE = re.compile(r"\$p\d+")


@dataclass(frozen=True)
class Condition:
    """One row of the form: a column, an operator and a value."""

    column: str
    operator: str
    value: str

    def __post_init__(self) -> None:
        """Refuse parts that do not fit together. Raises ValueError: an unknown column or operator, or a value that the
        column cannot have."""
        if self.column not in FIELDS:
            raise ValueError(f"no such column: {self.column[:80]}; choose one of the list")
        if self.operator not in OPERATORS:
            raise ValueError(f"no such comparison: {self.operator[:80]}; choose one of the list")
        if FIELDS[self.column].kind not in OPERATORS[self.operator][2]:
            raise ValueError(f"{self.column} cannot be compared by '{OPERATORS[self.operator][0]}'; choose another")
        if self.operator not in NEEDS_NO_VALUE:
            self.parsed()

    def parsed(self) -> Any:
        _check_text(self.value)
        field = FIELDS[self.column]
        if field.kind == "flag":
            if self.value.lower() not in ("true", "false"):
                raise ValueError(f"{self.column} is true or false, not {self.value!r}")
            return self.value.lower() == "true"
        if field.kind != "number":
            return self.value
        try:
            number = float(self.value) if field.type in ("FLOAT", "DOUBLE") else int(self.value)
        except ValueError:
            raise ValueError(f"{self.column} is a number, not {self.value!r}") from None
        low, high = (0, 2**64) if field.type == "UBIGINT" else (-(2**63), 2**63)
        if not (math.isfinite(number) if isinstance(number, float) else low <= number < high):
            raise ValueError(f"{self.column} cannot be {self.value}")
        return number


class Where:
    """Conditions in SQL with `$p0`, `$p1`, ... and their values."""

    def __init__(self) -> None:
        self.terms: list[str] = []
        self.values: dict[str, Any] = {}
        self.tables: list[str] = []

    def value(self, value: Any, kind: str) -> str:
        """Keep a value; return the SQL of its parameter."""
        name = f"p{len(self.values)}"
        self.values[name] = value
        return f"CAST(${name} AS {kind})"

    def need(self, table: str) -> None:
        if table != "listing" and table not in self.tables:
            self.tables.append(table)


@dataclass(frozen=True)
class Filter:
    """Which images, in which order, from where on."""

    conditions: tuple[Condition, ...] = ()
    text: str = ""
    """Looked for in raw and synthetic captions, in any case."""
    noun: str = ""
    """A lemma that one of the captions must have."""
    sort: str = "listing.row_id"
    descending: bool = False
    after: tuple[float, int] | None = None
    """(key, row_id) of the last image of the page before."""

    def __post_init__(self) -> None:
        """Refuse impossible values. Raises ValueError: an unknown order, too many conditions, or too long a text."""
        if self.sort not in SORTS:
            raise ValueError(f"no such order: {self.sort[:80]}; choose one of the list")
        if len(self.conditions) > MOST_CONDITIONS:
            raise ValueError(f"at most {MOST_CONDITIONS} conditions at a time, these are {len(self.conditions)}")
        _check_text(self.text)
        _check_text(self.noun)

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, str]]) -> Filter:
        """The filter that the parameters of an address describe; a row of the form without column is none."""
        given: dict[str, list[str]] = {}
        for name, value in pairs:
            given.setdefault(name, []).append(value)
        columns, operators, values = (given.get(name, []) for name in ("column", "op", "value"))
        if not len(columns) == len(operators) == len(values):
            raise ValueError("each condition takes column, op and value")
        conditions = [
            Condition(*row)
            for row in zip(columns, operators, (value.strip() for value in values), strict=True)
            if row[0]
        ]
        outcome = (given.get("outcome") or [""])[0]
        if outcome:
            conditions.insert(0, Condition("ledger.outcome", "is", outcome))
        return cls(
            conditions=tuple(conditions),
            text=(given.get("q") or [""])[0].strip(),
            noun=(given.get("noun") or [""])[0].strip(),
            sort=(given.get("sort") or [""])[0] or "listing.row_id",
            descending=(given.get("order") or [""])[0] == "down",
            after=_place((given.get("after") or [""])[0]),
        )

    def address(self, **changed: Any) -> str:
        """The parameters of this filter, or of a changed one, for a link."""
        wanted = replace(self, **changed)
        pairs = [("q", wanted.text), ("noun", wanted.noun)]
        for condition in wanted.conditions:
            pairs += [("column", condition.column), ("op", condition.operator), ("value", condition.value)]
        if wanted.sort != "listing.row_id" or wanted.descending:
            pairs += [("sort", wanted.sort), ("order", "down" if wanted.descending else "up")]
        if wanted.after is not None:
            pairs.append(("after", f"{wanted.after[0]!r},{wanted.after[1]}"))
        keep = {"column", "op", "value"}
        return urlencode([(name, value) for name, value in pairs if value or name in keep])

    @property
    def key(self) -> str:
        """SQL of the number that images are sorted by; those without it come last."""
        last = "-infinity" if self.descending else "infinity"
        return f"coalesce(CAST({FIELDS[self.sort].sql} AS DOUBLE), CAST('{last}' AS DOUBLE))"

    @property
    def only_looks(self) -> str:
        """ "text" or "noun" where the filter is that alone, in the order of the listing; else nothing."""
        kinds = [kind for kind in ("text", "noun") if getattr(self, kind)]
        alone = len(kinds) == 1 and not self.conditions and self.sort == "listing.row_id" and not self.descending
        return kinds[0] if alone else ""

    def where(self, found: Mapping[str, Sequence[int]] | None = None) -> Where:
        """The conditions, the place in the list left out. `found`: the rows that have the text or the noun, where they
        are known already."""
        found = found or {}
        where = Where()
        for condition in self.conditions:
            field, (_, sql, _) = FIELDS[condition.column], OPERATORS[condition.operator]
            where.need(field.table)
            kind = field.type.removesuffix("[]")
            value = "" if condition.operator in NEEDS_NO_VALUE else where.value(condition.parsed(), kind)
            where.terms.append(sql.format(field.sql, value))
        for rows in found.values():
            value = where.value(list(rows), "BIGINT[]")
            where.terms.append(f"listing.row_id IN (SELECT unnest({value}))")
        if self.text and "text" not in found:
            value = where.value(self.text, "VARCHAR")
            where.terms.append(
                "listing.row_id IN ("
                f"SELECT row_id FROM images WHERE contains(lower(raw_caption), lower({value})) UNION ALL "
                f"SELECT row_id FROM captions WHERE contains(lower(caption), lower({value})) UNION ALL "
                f"SELECT row_id FROM captions_beside WHERE contains(lower(caption), lower({value})))"
            )
        if self.noun and "noun" not in found:
            value = where.value(self.noun, "VARCHAR")
            where.terms.append(
                f"listing.row_id IN (SELECT nouns.row_id FROM nouns WHERE list_contains(nouns.nouns, {value}))"
            )
        where.need(FIELDS[self.sort].table)
        return where

    def page(
        self, limit: int, relation: Callable[[str], str], found: Mapping[str, Sequence[int]] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """(row_id, sort_key) of the images from `after` on, with their parameters."""
        where = self.where(found)
        if self.after is not None:
            key, row_id = where.value(self.after[0], "DOUBLE"), where.value(self.after[1], "BIGINT")
            beyond = "<" if self.descending else ">"
            where.terms.append(f"({self.key} {beyond} {key} OR {self.key} = {key} AND listing.row_id > {row_id})")
        sql = (
            f"SELECT listing.row_id, {self.key} AS sort_key {_body(where, relation)} "
            f"ORDER BY sort_key{' DESC' if self.descending else ''}, listing.row_id LIMIT {int(limit)}"
        )
        return sql, where.values

    def count(
        self, most: int, relation: Callable[[str], str], found: Mapping[str, Sequence[int]] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """The number of images, at most `most`."""
        where = replace(self, sort="listing.row_id").where(found)
        return f"SELECT count(*) AS num FROM (SELECT 1 {_body(where, relation)} LIMIT {int(most)})", where.values

    def sql(self) -> str:
        """All images of the filter as one SELECT for `sigma sql`, whatever page is shown."""
        where = self.where()
        shown = dict.fromkeys(condition.column for condition in self.conditions)
        shown |= dict.fromkeys([self.sort] if self.sort != "listing.row_id" else [])
        columns = ["listing.row_id", "listing.source", "listing.member", "images.image_id", "mix.caption"]
        columns += [f'{FIELDS[name].sql} AS "{name}"' for name in shown if name not in columns]
        where.need("images")
        where.need("mix")
        sql = (
            f"SELECT {', '.join(columns)}\n{_body(where, str, chr(10))}\n"
            f"ORDER BY {self.key}{' DESC' if self.descending else ''}, listing.row_id"
        )
        return with_literals(sql, where.values)


def with_literals(sql: str, values: dict[str, Any]) -> str:
    """SQL in which every parameter is written out, quoted as its type wants it."""
    return _PLACE.sub(lambda found: _written(values[found.group()[1:]]), sql)


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float):
        return literal(repr(value))  # as a DECIMAL it would lose digits; the cast reads it as what it is
    return str(value) if isinstance(value, int) else literal(value)


def _body(where: Where, relation: Callable[[str], str], space: str = " ") -> str:
    joins = [f"LEFT JOIN {relation(table)} ON {table}.row_id = listing.row_id" for table in where.tables]
    condition = [f"WHERE {f'{space}  AND '.join(where.terms)}"] if where.terms else []
    return space.join(["FROM listing", *joins, *condition])


def _place(text: str) -> tuple[float, int] | None:
    if not text:
        return None
    key, _, row_id = text.partition(",")
    try:
        return float(key), int(row_id)
    except ValueError:
        raise ValueError("this is no place in the list; begin at its start") from None


def _check_text(text: str) -> None:
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"at most {MOST_CHARACTERS} characters, these are {len(text):,}")
    if "\x00" in text:
        raise ValueError("a text holds no NUL character")


_READY = {"All": "", "Kept": "kept", "Rejected": "rejected", "Errors": "error"}
READY = {label: Filter.of([("outcome", outcome)]) for label, outcome in _READY.items()}
"""Filters that are one click away, by their labels."""
