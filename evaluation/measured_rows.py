"""What the tables of a model hold of its pictures, as arrays: features, cosines, and what is missing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.dataset import Dataset, read_parquet
from schemas.evaluation import Metrics


@dataclass(frozen=True)
class Rows:
    """One table of a model: what was measured of its pictures, and what is missing."""

    values: np.ndarray
    """(n, d) features, or (n,) cosines."""
    categories: np.ndarray
    """(n,) of text; "" where there is none."""
    prompts: np.ndarray
    """(n,) of text, the ids."""
    lost: Sequence[tuple[str, str]]
    """The prompts of the pictures that are missing, and why."""

    def of(self, category: str) -> Rows:
        chosen = self.categories == category
        return Rows(self.values[chosen], self.categories[chosen], self.prompts[chosen], self.lost)


def read_rows(dataset: Dataset, table: str, column: str) -> Rows:
    """What a table of features or cosines holds, picture by picture."""
    values, categories, prompts, lost = list[np.ndarray](), list[str](), list[str](), list[tuple[str, str]]()
    for path in dataset.parts(table):
        part = read_parquet(path, ["prompt_id", "category", "reason", column])
        there, gone = part.filter(pc.is_valid(part[column])), part.filter(pc.is_null(part[column]))
        if there.num_rows:
            found = there[column].combine_chunks()
            is_list = pa.types.is_list(found.type)
            flat = (found.flatten() if is_list else found).to_numpy(zero_copy_only=False)
            values.append(flat.reshape(there.num_rows, -1) if is_list else flat)
        categories += [name or "" for name in there["category"].to_pylist()]
        prompts += there["prompt_id"].to_pylist()
        lost += zip(gone["prompt_id"].to_pylist(), gone["reason"].to_pylist(), strict=True)
    whole = np.concatenate(values) if values else np.zeros((0, 1), np.float32)
    return Rows(whole, np.array(categories, dtype=object), np.array(prompts, dtype=object), lost)


def missing(rows: Rows, what: str) -> str | None:
    """Which pictures are missing, and what to type; None where none is."""
    if not rows.lost:
        return None
    first = ", ".join(f"{prompt_id} ({why})" for prompt_id, why in rows.lost[:2])
    total = len(rows.values) + len(rows.lost)
    return (
        f"{len(rows.lost):,} of {total:,} {what} are missing: {first}; metrics.allow_missing=true measures the others"
    )


def by_category(rows: Rows, metrics: Metrics) -> Iterator[tuple[str | None, Rows]]:
    """All rows, then those of each category."""
    if len(rows.values):
        yield None, rows
    for category in sorted(set(rows.categories) - {""}) if metrics.by_category else ():
        yield category, rows.of(category)
