"""Which of a stage's pictures are trained on: not those held out, enlarged too much or repeated too often."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.ids import unit_interval
from schemas.training import Data
from training.data.order import Shapes, dealt_counts
from training.data.selection import Selection

HELD_OUT = "validation"
"""The salt of the coin that holds pictures out; it knows neither seed nor stage, so every run holds out the same."""
NAMED_SHAPES = 3
"""Underfilled buckets that a line names."""


@dataclass(frozen=True)
class Usable:
    """The pictures that a stage trains on."""

    rows: Selection
    """Of the shard index, in tar order."""
    shapes: Shapes
    """(height, width) in px of each row's training picture."""
    notes: tuple[str, ...] = ()
    """Sentences about what is left out, enlarged or repeated."""

    def where(self, kept: NDArray[np.bool_], note: str) -> Usable:
        """The same without some of the pictures."""
        shapes = Shapes(self.shapes.table, self.shapes.codes[kept])
        return Usable(self.rows.where(kept), shapes, (*self.notes, note))


def held_out(rows: Selection, share: float) -> NDArray[np.bool_]:
    """True for the rows that are held out: by a coin of the image id, the same in every stage, seed and run."""
    parts = (part["image_id"].to_pylist() for part in rows.parts(["image_id"]))
    coins = (unit_interval(image_id, HELD_OUT) for part in parts for image_id in part)
    return np.fromiter((coin < share for coin in coins), np.bool_, rows.num_rows)


def enlargement(rows: Selection, shapes: Shapes) -> NDArray[np.float32]:
    """How many times each picture is enlarged to cover its training shape, (rows,); below 1 it is shrunk."""
    factors, end = np.empty(rows.num_rows, np.float32), 0
    for part in rows.parts(("height", "width")):
        begin, end = end, end + part.num_rows
        table = np.array(shapes.table)[shapes.codes[begin:end]]  # (rows of the part, 2)
        factors[begin:end] = np.maximum(table[:, 0] / part["height"].to_numpy(), table[:, 1] / part["width"].to_numpy())
    return factors


def without_enlarged(found: Usable, most: float | None) -> Usable:
    """Leave out pictures enlarged more than `most` times; say how many are enlarged. Raises ValueError: nothing is
    left."""
    factors = enlargement(found.rows, found.shapes)
    over = factors > (most or np.inf)
    if over.all():
        raise ValueError(
            f"data.max_upscale: {most} leaves out all {len(over):,} pictures, the largest is enlarged "
            f"{factors.min():.2f} times; raise it, or lower the resolution"
        )
    if over.any():
        note = f"{over.sum():,} of {len(over):,} pictures are left out: they would be enlarged more than {most:g} times"
        found, factors = found.where(~over, note), factors[~over]
    enlarged = factors[factors > 1]
    if not len(enlarged):
        return found
    note = (
        f"{len(enlarged):,} of {len(factors):,} pictures are enlarged to cover their bucket, half of them more than "
        f"{np.median(enlarged):.2f} times, at most {enlarged.max():.2f} times; data.max_upscale sets a limit"
    )
    return Usable(found.rows, found.shapes, (*found.notes, note))


def without_repeated(found: Usable, data: Data) -> Usable:
    """Leave out the buckets that repeat a picture more than `max_repeats` times in a batch; say which repeat any.
    Raises ValueError: nothing is left."""
    weights = found.rows.weights() if data.balance_concepts else None
    counts = dealt_counts(found.shapes, weights)
    repeats = np.where(counts > 0, -(-data.batch // np.maximum(counts, 1)), 0)
    over = (repeats > (data.max_repeats or data.batch))[found.shapes.codes]
    if over.all():
        raise ValueError(
            f"data.max_repeats: {data.max_repeats} leaves out all {len(over):,} pictures, the fullest bucket repeats "
            f"each {repeats[repeats > 0].min()} times to fill a batch of {data.batch}; raise it, or lower data.batch"
        )
    if over.any():
        note = (
            f"{over.sum():,} of {len(over):,} pictures are left out: their buckets would repeat each more than "
            f"{data.max_repeats} times to fill a batch of {data.batch}"
        )
        repeats = np.where(repeats > (data.max_repeats or data.batch), 0, repeats)
        found = found.where(~over, note)
    if not (repeats > 1).any():
        return found
    seen = (repeats > 1)[found.shapes.codes].sum()
    small = [code for code in np.argsort(-repeats, kind="stable").tolist() if repeats[code] > 1]
    sides = [found.shapes.table[code] for code in small[:NAMED_SHAPES]]
    named = [
        f"{width}x{height} px with {counts[code]:,}, {repeats[code]} times"
        for code, (height, width) in zip(small, sides, strict=False)
    ]
    others = ", where others are seen once" if seen < found.rows.num_rows else ""
    note = (
        f"{seen:,} of {found.rows.num_rows:,} pictures are seen up to {repeats.max()} times an epoch{others}: a batch "
        f"is {data.batch}, and {'a bucket holds' if len(small) == 1 else f'{len(small)} buckets hold'} fewer "
        f"({'; '.join(named)}{'; ...' if len(small) > NAMED_SHAPES else ''}); data.max_repeats sets a limit"
    )
    return Usable(found.rows, found.shapes, (*found.notes, note))
