"""Build a dataset in Python, without the command line, and query it.

    python examples/build_in_python.py ~/Pictures my-dataset

The same jobs run as in `sigma build`, so either may go on where the other stopped.
"""

from __future__ import annotations

import sys
from pathlib import Path

from commands.order import pipeline
from curation.build import build
from engine import catalog
from engine.dataset import Dataset
from schemas.recipe import DataRecipe


def build_dataset(images: Path, out: Path) -> Dataset:
    """Turn a folder of pictures into shards: short sides from 512 px, near copies dropped, captions mixed 60 / 40."""
    recipe = DataRecipe.from_mapping(
        {
            "images": str(images),
            "out": str(out),
            "select": {"min_short_side_px": 512},
            "mix": {"synthetic_share": 0.6},
            "run": {"runner": "local"},
        }
    )
    build(recipe, pipeline(recipe))
    return Dataset(out)


def outcomes(dataset: Dataset) -> list[tuple[str, str | None, int]]:
    """Return (outcome, reason, count) over the ledger, in which every input has exactly one row."""
    query = "SELECT outcome, reason, count(*) FROM ledger GROUP BY ALL ORDER BY ALL"
    with catalog.connect(dataset) as connection:
        return connection.sql(query).fetchall()


if __name__ == "__main__":
    made = build_dataset(Path(sys.argv[1]), Path(sys.argv[2]))
    for outcome, reason, count in outcomes(made):
        print(f"{outcome:<10} {reason or '':<14} {count}")
    print(f"shards: {made.root / 'shards'}")
