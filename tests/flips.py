"""Flip bits of a dataset or of a trained run one at a time, and see whether each is found, or changes nothing."""

from __future__ import annotations

import json
import logging
import random
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import torch
import yaml

from commands.order import pipeline
from curation.ingest import listing
from curation.ingest.takedown_log import read_log
from curation.upkeep.doctor import check_dataset
from engine.dataset import Dataset, read_parquet
from schemas.features import NULL_FILE, RECORD_FILE, damaged_files
from schemas.recipe import DataRecipe
from schemas.seal import check_text, read_json
from training.checkpoint import read_checkpoint
from training.metrics import METRICS_FILE, read_metrics

Flip = tuple[str, Path, int]
"""(kind of the place, file, number of the bit)"""

KINDS = {
    ".records/": "record of a table",
    "runs/": "run",
    "paid/": "journal",
    "features/": "features",
    "purged.jsonl": "takedowns",
    "recipe.yaml": "recipe",
    METRICS_FILE: "metrics",
    RECORD_FILE: "stage's features.json",
    "README.md": "card",
    "catalog.duckdb": "catalog",
    ".json": "wids",
    ".tar": "tar",
    ".pt": "checkpoint",
    ".parquet": "table",
}
"""What is in the path of a file -> its kind; the first that fits."""


def places(root: Path) -> dict[str, list[tuple[Path, int, int]]]:
    """Kind of place -> (file, first byte, end) of every stretch of it."""
    found: dict[str, list[tuple[Path, int, int]]] = {}
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        kind = next((kind for part, kind in KINDS.items() if part in str(path.relative_to(root))), None)
        size = path.stat().st_size
        if kind is None or size == 0:
            continue
        if kind != "table":
            found.setdefault(kind, []).append((path, 0, size))
            continue
        footer = size - 8 - int.from_bytes(path.read_bytes()[-8:-4], "little")
        kind = "index" if path.name == "index.parquet" else "table"
        found.setdefault(f"pages of {kind}", []).append((path, 0, footer))
        found.setdefault(f"footer of {kind}", []).append((path, footer, size))
    return found


def flips(root: Path, number: int, seed: int = 0) -> Iterator[Flip]:
    """Random places, as many of each kind."""
    stretches, chance = places(root), random.Random(seed)
    for count in range(number):
        kind = list(stretches)[count % len(stretches)]
        path, begin, end = chance.choice(stretches[kind])
        yield kind, path, chance.randrange(8 * begin, 8 * end)


FOUND, REFUSED, HARMLESS, MISSED = "found by doctor", "refused by its reader", "without effect", "missed"


def outcome(root: Path, path: Path, bit: int) -> str:
    """What comes of one flipped bit, which is mended afterwards: doctor finds it, else the file's reader refuses it or
    warns, else the reader gives the same as before, else it is missed."""
    whole, read = path.read_bytes(), reader(root, path)
    before = read()
    data = bytearray(whole)
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(bytes(data))
    said = Heard()
    logging.getLogger().addHandler(said)
    try:
        if not is_fine(root, path):
            return FOUND
        same = read() == before
        return REFUSED if said.warnings else HARMLESS if same else MISSED
    except REFUSALS:
        return REFUSED
    finally:
        logging.getLogger().removeHandler(said)
        path.write_bytes(whole)


REFUSALS = (ValueError, OSError, duckdb.Error, tarfile.TarError)
"""What the readers raise, those of others too: a defect of ours is none of them."""


class Heard(logging.Handler):
    """Counts warnings."""

    warnings = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.warnings += record.levelno >= logging.WARNING


def is_fine(root: Path, path: Path) -> bool:
    """Whether doctor, or for the features of a run what it calls, finds nothing."""
    if (root / "tables").is_dir():
        return all(finding.fine for finding in check_dataset(root, threads=1))
    parts = path.relative_to(root).parts
    return parts[0] != "features" or not damaged_files(root / parts[0] / parts[1], root / "shards")


def reader(root: Path, path: Path) -> Callable[[], Any]:
    """What reads a file again: it gives all that the file says."""
    is_feature = "features" in path.relative_to(root).parts[:-1]
    readers: dict[str, Callable[[], Any]] = {
        METRICS_FILE: lambda: read_metrics(path.parent),
        NULL_FILE: path.read_bytes,
        "purged.jsonl": lambda: read_log(Dataset(root)),
        "recipe.yaml": lambda: states(root) if (root / "tables").is_dir() else stage_knobs(path),
        "wids.json": lambda: json.loads(path.read_text()),
        "catalog.duckdb": lambda: views(path),
        ".md": path.read_bytes,
        ".json": lambda: read_json(path),
        ".pt": lambda: plain(read_checkpoint(path)),
        ".parquet": lambda: read_parquet(path).to_pylist() if "paid" in path.parts else rows_of(path),
        ".tar": path.read_bytes if is_feature else lambda: members(path),
    }
    return readers.get(path.name) or readers[path.suffix]


def stage_knobs(path: Path) -> Any:
    """The knobs that a stage was trained with."""
    return yaml.safe_load(check_text(path.read_text()))


def rows_of(path: Path) -> Any:
    """A table as DuckDB and Arrow give it, neither of which knows our seals."""
    with duckdb.connect() as connection:
        by_duckdb = connection.execute("SELECT * FROM read_parquet(?, hive_partitioning=false)", [str(path)]).fetchall()
    return str(by_duckdb), pq.read_table(path, partitioning=None).to_pylist()


def views(path: Path) -> Any:
    """The views of a catalog with the meanings of their columns."""
    with duckdb.connect(str(path), read_only=True) as connection:
        made = connection.execute("SELECT view_name, sql, comment FROM duckdb_views() WHERE NOT internal ORDER BY ALL")
        columns = "SELECT table_name, column_name, comment FROM duckdb_columns() WHERE NOT internal ORDER BY ALL"
        return made.fetchall(), connection.execute(columns).fetchall()


def members(path: Path) -> list[tuple[str, bytes]]:
    """The members of a tar, in order."""
    with tarfile.open(path) as tar:
        return [(info.name, file.read()) for info in tar if (file := tar.extractfile(info)) is not None]


def plain(value: Any) -> Any:
    """Nested content without tensors, which `==` does not compare."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.contiguous().view(torch.uint8).numpy().tobytes()
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value


def states(root: Path) -> list[tuple[str, str]]:
    """What the recipe of a dataset makes of its jobs: a knob that changed outdates one, or is refused."""
    made, held = DataRecipe.load(root / "recipe.yaml", [f"out={root}"]), Dataset(root).held()
    listed = ("listing", str(listing.is_listed(Dataset(root).held(), made)))
    return [listed, *((step.job, str(step.state(held))) for step in pipeline(made))]
