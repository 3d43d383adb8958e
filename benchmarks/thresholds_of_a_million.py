"""Time `sigma cuts` over a made-up dataset: python benchmarks/thresholds_of_a_million.py [NUM_ROWS, else a million]"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curation.selection import select
from curation.selection.thresholds import changed_recipe, compare
from engine import catalog
from engine.dataset import Dataset
from schemas.recipe import DataRecipe
from schemas.tables import SCHEMAS
from tests.building import put

PART_ROWS = 65536


def main(num_rows: int) -> None:
    """Write the tables that `select` reads, select, then compare with other thresholds."""
    chance = np.random.default_rng(0)
    row_ids = np.arange(num_rows)
    ids = [f"{row:032x}" for row in row_ids]
    columns: dict[str, dict[str, Any]] = {
        "listing": {"member": [f"{row}.jpg" for row in row_ids], "source": ["/x"] * num_rows},
        "images": {
            "image_id": ids,
            "sha256": [name * 2 for name in ids],
            "width": chance.integers(300, 4000, num_rows),
            "height": chance.integers(300, 4000, num_rows),
            "format": ["JPEG"] * num_rows,
        },
        "scores": {"image_id": ids, "aesthetic": chance.normal(5, 1, num_rows)},
        "raw_captions": {"caption": ["a caption"] * num_rows},
    }
    with tempfile.TemporaryDirectory() as folder:
        dataset = Dataset(Path(folder))
        for table, values in columns.items():
            filled = pa.table({"row_id": row_ids, **values})
            for field in SCHEMAS[table]:
                if field.name not in filled.column_names:
                    blank = pa.nulls(num_rows, field.type)
                    if not field.nullable:
                        value = [] if pa.types.is_list(field.type) else "x"
                        blank = pa.array([value] * num_rows, field.type)
                    filled = filled.append_column(field.name, blank)
            for number, begin in enumerate(range(0, num_rows, PART_ROWS)):
                put(dataset, table, number, filled.slice(begin, PART_ROWS))
        recipe = DataRecipe.from_mapping({"images": "/x", "out": folder})
        with catalog.connect(dataset) as connection:
            chosen = connection.sql(select.reduce_job(recipe).query(connection)).to_arrow_table()
        for number, begin in enumerate(range(0, num_rows, PART_ROWS)):
            put(dataset, "selection", number, chosen.slice(begin, PART_ROWS))
        begun = time.perf_counter()
        changed = changed_recipe(recipe, ["select.min_aesthetic=5.5", "select.min_short_side_px=1024"])
        found = compare(dataset, recipe, changed)
        print(f"{num_rows:,} rows, kept {found.kept}: {time.perf_counter() - begun:.1f} s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
