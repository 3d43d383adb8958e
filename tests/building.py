"""Small datasets for tests: pictures that are quick to make, a build in this process, tables made by hand."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from PIL import Image

from captioning.figures.statistics import noun_uses_sql
from commands import order
from curation import build as pipeline
from curation.ingest.listing import Listed
from engine.dataset import Dataset, JobRecord
from engine.names import NOTHING, made_from, names_in
from engine.part_file import shard_digests
from engine.run_log import JobResult
from schemas import tables
from schemas.recipe import DataRecipe

LIGHT = ("nouns", "statistics")
"""Jobs that no other job reads; the extractor takes seconds to load."""


class Told(pipeline.Observer):
    """An observer that keeps what it was told."""

    def __init__(self) -> None:
        self.inputs: Listed | None = None
        self.num_retried: int | None = None
        self.began: list[str] = []
        self.results: list[tuple[str, JobResult | None]] = []
        self.rows: dict[str, int] = {}

    def listed(self, found: Listed) -> None:
        self.inputs = found

    def retried(self, rows: int) -> None:
        self.num_retried = rows

    def begin(self, job: str, rows: int) -> None:
        self.began.append(job)

    def advance(self, job: str, rows: int, counts: Mapping[str, float] = {}, /) -> None:
        self.rows[job] = self.rows.get(job, 0) + rows

    def end(self, job: str, result: JobResult | None) -> None:
        self.results.append((job, result))


def picture(seed: int, width: int = 96, height: int = 64) -> Image.Image:
    """A smooth random picture; two seeds never look alike."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def write_pictures(
    folder: Path,
    sizes: Sequence[tuple[int, int]] = ((96, 64),) * 8,
    captions: bool = True,
    first_seed: int = 0,
    extension: str = "jpg",
) -> list[str]:
    """Pictures 000.jpg, 001.jpg, ... of the given (width, height), with captions beside them; their names."""
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for number, (width, height) in enumerate(sizes):
        name = f"{number:03d}.{extension}"
        picture(first_seed + number, width, height).save(folder / name)
        names.append(name)
    if captions:
        lines = (json.dumps({"file_name": name, "caption": f"Picture number {name[:3]}."}) + "\n" for name in names)
        (folder / "captions.jsonl").write_text("".join(lines), encoding="utf-8")
    return names


def recipe(images: Path | None, out: Path, **sections: Any) -> DataRecipe:
    """A recipe for pictures of any size, run in this process; sections of the recipe by name."""
    values: dict[str, Any] = {"out": str(out), "part_rows": 3, "run": {"runner": "local", "threads": 1}}
    values |= {"images": str(images)} if images is not None else {}
    values["select"] = {"min_short_side_px": 1, **sections.pop("select", {})}
    return DataRecipe.from_mapping(values | sections)


def steps(made: DataRecipe, upto: str = "shard", without: Iterable[str] = LIGHT) -> list[Any]:
    """The steps of a recipe's pipeline up to a job, without those that nothing depends on."""
    found = [step for step in order.pipeline(made) if step.job not in without]
    last = max(place for place, step in enumerate(found) if step.job == upto)
    return found[: last + 1]


def build(
    made: DataRecipe,
    upto: str = "shard",
    without: Iterable[str] = LIGHT,
    redo: Iterable[str] = (),
    retry_failed: bool = False,
) -> tuple[Dataset, Told]:
    """Build a dataset in this process; what was built, and what the observer was told."""
    told = Told()
    pipeline.build(made, steps(made, upto, without), told, frozenset(redo), retry_failed)
    return Dataset(made.out_path()), told


def computed(told: Told) -> dict[str, int]:
    """Table -> parts that were computed, of the jobs that had something to do."""
    return {result.tables[-1]: result.computed for _, result in told.results if result}


def rows(dataset: Dataset, table: str) -> list[dict[str, Any]]:
    """A whole table as Python values."""
    found: list[dict[str, Any]] = dataset.read_table(table).to_pylist()
    return found


def put(dataset: Dataset, table: str, number: int, rows: pa.Table) -> Path:
    """Write a part by hand: in place of the part of that number, or as if its job read nothing."""
    record = dataset.record(table)
    if record is None and table != "listing":
        record = JobRecord("by hand", {}, [])
        dataset.write_record(table, record)
    planned = []
    if table == "samples":
        plan = dataset.record("shard_plan") or JobRecord("by hand", {}, [])
        shards = [*(plan.shards or ()), *(f"shard {new}" for new in range(len(plan.shards or ()), number + 1))]
        dataset.write_record("shard_plan", replace(plan, shards=shards))
        planned = [shards[number]]
    source = NOTHING if record is None else made_from(record.job, record.knobs)(planned)
    for name in names_in(dataset.folder(table)):
        if name.number == number:
            source = name.made_from
            (dataset.folder(table) / name.file).unlink()
    return dataset.commit_part(table, number, source, rows)


def put_shards(dataset: Dataset, plan: pa.Table) -> None:
    """Write a plan by hand, and on record what its shards are made from."""
    put(dataset, "shard_plan", 0, plan)
    shards = shard_digests(plan, range(max(plan["shard_id"].to_pylist(), default=-1) + 1))
    dataset.write_record("shard_plan", JobRecord("by hand", {}, [], shards))


def table_of(name: str, values: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Rows of the contract of a table; a column that a row does not give is null."""
    return pa.Table.from_pylist([dict(row) for row in values], schema=tables.SCHEMAS[name])


_AS_DUCKDB = {"list<item: halffloat>": pa.list_(pa.float32())}
"""Types that DuckDB reads from Parquet but not from Arrow, and as what."""


_GROWING = ("mix", "nouns", "noun_uses")
"""Tables into which tests write rows."""


@cache
def _empty_tables() -> duckdb.DuckDBPyConnection:
    """A DuckDB with every table of the contract; to start one takes longer than to ask it."""
    connection = duckdb.connect(config={"threads": 2})
    for name, schema in tables.SCHEMAS.items():
        connection.register(f"_{name}", _for_duckdb(schema).empty_table())
        connection.execute(f"CREATE TABLE {name} AS SELECT * FROM _{name}")
    return connection


def _for_duckdb(schema: pa.Schema) -> pa.Schema:
    return pa.schema([(field.name, _AS_DUCKDB.get(str(field.type), field.type)) for field in schema])


def connection_with(**given: pa.Table) -> duckdb.DuckDBPyConnection:
    """A connection that sees every table of the contract: those given, the others empty. What is made in it should be
    temporary: the others share a DuckDB with it."""
    connection = _empty_tables().cursor()
    connection.execute("SET preserve_insertion_order = true")  # a job may have changed it
    for name in {*given, *_GROWING}:
        schema = _for_duckdb(tables.SCHEMAS[name])
        rows = given.get(name, schema.empty_table()).cast(schema)
        connection.register(f"_{name}" if name in _GROWING else name, rows)
        if name in _GROWING:
            connection.execute(f"CREATE TEMP TABLE {name} AS SELECT * FROM _{name}")
    create_raw_offers(connection)
    return connection


def create_raw_offers(connection: duckdb.DuckDBPyConnection) -> None:
    """The view of the raw captions as the mix is offered them, over tables that are there."""
    sql = resources.files("engine").joinpath("raw_offers.sql").read_text(encoding="utf-8")
    connection.execute(sql.replace("CREATE OR REPLACE VIEW", "CREATE OR REPLACE TEMPORARY VIEW"))


def count_nouns(connection: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    """Fill `noun_uses` from the captions that the connection holds, as the job `statistics` does."""
    connection.execute(f"INSERT INTO noun_uses {noun_uses_sql()}")
    return connection


def run_query(connection: duckdb.DuckDBPyConnection, sql: str) -> list[dict[str, Any]]:
    """The rows of a query as Python values."""
    found: list[dict[str, Any]] = connection.sql(sql).to_arrow_table().to_pylist()
    return found
