"""What the house itself costs: CPU seconds of small builds, commands over many parts, and lines by package."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from curation.ingest import ingest
from engine.dataset import Dataset, JobRecord
from engine.job import State
from engine.names import NOTHING
from schemas.recipe import DataRecipe
from schemas.tables import SCHEMAS
from tests.building import build, recipe, write_pictures

ROOT = Path(__file__).parents[1]
BUILDS = 5
MANY_PARTS = 3334

APART = """
import sys, time
from engine.map_job import MapJob
from engine.reduce_job import ReduceJob
inside = 0.0
def timed(work):
    def run(*args):
        global inside
        begun = time.process_time()
        try:
            return work(*args)
        finally:
            inside += time.process_time() - begun
    return run
MapJob.run_part, ReduceJob.compute = timed(MapJob.run_part), timed(ReduceJob.compute)
import sigma
try:
    sigma.main()
finally:
    print(inside, file=sys.stderr)
"""
"""A command that says last how many CPU seconds were inside parts and queries, their imports among them."""


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


def start_up(folder: Path) -> Iterator[str]:
    """CPU seconds, user and system, of commands that show something, and of a small build outside its jobs; the best of
    five."""
    write_pictures(folder / "photos", [(384, 256)] * 24)
    out = folder / "dataset"
    builds = []
    for number in range(BUILDS):
        out = folder / f"dataset-{number}"
        words = ["build", "demo", f"images={folder / 'photos'}", f"out={out}", "run.runner=local"]
        seconds, said = _cpu(["-c", APART, *words])
        builds.append((seconds - float(said.split()[-1]), seconds))
    for what, words in (("--help", ["--help"]), ("status of 24 pictures", ["status", str(out)])):
        least = min(_cpu(["-m", "sigma", *words])[0] for _ in range(BUILDS))
        yield f"| sigma {what}, CPU | {least:.2f} s | | | 0.4 s |"
    outside, whole = min(builds)
    yield f"| a build of 24 pictures, CPU outside its jobs | {outside:.2f} s | in all {whole:.2f} s | | 2.5 s |"


def _cpu(words: list[str]) -> tuple[float, str]:
    """CPU seconds of a command of Python, whose modules stay compiled, and what it wrote to stderr."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": ""},
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, run.stderr


def many_parts(folder: Path) -> Iterator[str]:
    """Seconds from the command to its end, over 10,002 parts in three tables that are done; the best of five."""
    made = _with_many_parts(folder)
    recipe_file = Dataset(made.out_path()).recipe
    for what, command in (
        ("sigma ingest, nothing to do", ["ingest", str(recipe_file)]),  # the first counts, as the end of a build does
        ("sigma status", ["status", str(made.out_path())]),
    ):
        seconds = []
        for _ in range(BUILDS):
            begun = time.perf_counter()
            subprocess.run([sys.executable, "-m", "sigma", *command], cwd=ROOT, check=True, capture_output=True)
            seconds.append(time.perf_counter() - begun)
        yield f"| {what}, {3 * MANY_PARTS:,} parts in three tables | {min(seconds):.2f} s | | | 2 s |"


def _with_many_parts(folder: Path) -> DataRecipe:
    """A dataset that is ingested, one input in each part, without any picture."""
    (folder / "photos").mkdir()
    made = recipe(folder / "photos", folder / "dataset")
    dataset, source, job = Dataset(made.out_path()), made.all_sources()[0], ingest.map_job(made)
    listed = {"path": source.location(), "name": source.label(), "rows": MANY_PARTS, "parts": MANY_PARTS, "ignored": {}}
    dataset.write_record("listing", JobRecord("ingest", {"part_rows": made.part_rows, "sources": [listed]}, []))
    for number in range(MANY_PARTS):
        dataset.commit_part("listing", number, NOTHING, _row("listing", number))
    job.prepare(dataset, State.NEW, redo=False)
    for number, made_from in enumerate(job.expected(dataset.held())):
        for table in job.outputs:
            dataset.commit_part(table, number, made_from or NOTHING, _row(table, number))
    dataset.recipe.write_text(made.with_absolute_paths().to_yaml(), encoding="utf-8")
    return made


def _row(table: str, number: int) -> pa.Table:
    row = {"row_id": number, "source": "photos", "source_name": "photos", "member": f"{number}.jpg"}
    return pa.Table.from_pylist([row], schema=SCHEMAS[table])


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


BENCHMARKS = (small_build, start_up, many_parts, lines_of_code)
