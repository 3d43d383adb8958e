"""Flip bits of a dataset or of a trained run one at a time, and see whether each is found, or changes nothing.

As a script: python -m tests.flips FOLDER [NUMBER]
"""

from __future__ import annotations

import logging
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from commands.order import pipeline
from curation.ingest import listing
from curation.upkeep.doctor import check_dataset
from engine.dataset import Dataset, read_parquet
from schemas.features import RECORD_FILE, damaged_files
from schemas.recipe import DataRecipe
from schemas.seal import check_text, read_json
from training.checkpoint import read_checkpoint
from training.metrics import METRICS_FILE, read_metrics

Flip = tuple[str, Path, int]
"""(kind of the place, file, number of the bit)"""

KINDS = {
    ".records/": "record of a table",
    "runs/": "run",
    ".paid/": "journal",
    "features/": "features",
    "purged.jsonl": "takedowns",
    "recipe.yaml": "recipe",
    METRICS_FILE: "metrics",
    RECORD_FILE: "stage's features.json",
    "README.md": "card",
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


def is_found(root: Path, path: Path, bit: int) -> bool:
    """Whether one flipped bit is found, or what is read is the same; it is mended afterwards."""
    whole, read = path.read_bytes(), reader(root, path)
    before = read()
    data = bytearray(whole)
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(bytes(data))
    said = Heard()
    logging.getLogger().addHandler(said)
    try:
        return read() == before or said.warnings > 0
    except (ValueError, OSError):
        return True
    finally:
        logging.getLogger().removeHandler(said)
        path.write_bytes(whole)


class Heard(logging.Handler):
    """Counts warnings."""

    warnings = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.warnings += record.levelno >= logging.WARNING


def reader(root: Path, path: Path) -> Callable[[], Any]:
    """What reads a file again, and refuses it where it is damaged."""
    if path.suffix == ".pt":
        return lambda: sorted(read_checkpoint(path))
    if path.name == METRICS_FILE:
        return lambda: read_metrics(path.parent)
    if "features" in path.relative_to(root).parts[:-1]:
        folder = root / Path(*path.relative_to(root).parts[:2])
        return lambda: refusing(damaged_files(folder, root / "shards"))
    if path.parent.name == "runs" or (path.suffix == ".json" and not (root / "tables").is_dir()):
        return lambda: read_json(path)
    if ".paid" in path.parts:
        return lambda: read_parquet(path) if path.suffix == ".parquet" else read_json(path)
    if path.name == "recipe.yaml" and (root / "tables").is_dir():
        return lambda: states(root)
    if path.name == "recipe.yaml":
        return lambda: yaml.safe_load(check_text(path.read_text()))
    return lambda: refusing([finding for finding in check_dataset(root, threads=1) if not finding.fine])


def refusing(found: list[Any]) -> None:
    """Raise where anything is found."""
    if found:
        raise ValueError(str(found[0]))


def states(root: Path) -> list[tuple[str, str]]:
    """What the recipe of a dataset makes of its jobs: a knob that changed outdates one, or is refused."""
    made = DataRecipe.load(root / "recipe.yaml", [f"out={root}"])
    listed = ("listing", str(listing.is_listed(Dataset(root), made)))
    return [listed, *((step.job, str(step.state(Dataset(root)))) for step in pipeline(made))]


def main() -> None:
    """Print every flip that was not found, and the counts."""
    root, number = Path(sys.argv[1]).absolute(), int(sys.argv[2]) if len(sys.argv) > 2 else 2000
    tried: dict[str, list[bool]] = {}
    for kind, path, bit in flips(root, number):
        tried.setdefault(kind, []).append(is_found(root, path, bit))
        if not tried[kind][-1]:
            print(f"NOT FOUND: {kind}, {path}, bit {bit}", flush=True)
    for kind, found in tried.items():
        print(f"{kind}: {sum(found)} of {len(found)} found")


if __name__ == "__main__":
    main()
