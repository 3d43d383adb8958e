"""What a dataset comes to at 33 million and at a billion inputs, by arithmetic; `docs/scale.md` shows the table.

`python -m benchmarks.billion` prints it. Every assumption is a number below; what was measured says where.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from engine.place.listing import AT_ONCE as PAGES_AT_ONCE
from engine.place.listing import PAGE

SIZES = (33e6, 1e9)

PART_ROWS = 4096
MAP_TABLES = 10
KEPT = 0.6
"""Assumed share of the inputs that end in a shard."""
ORIGINAL_BYTES, SHARD_BYTES = 1.2e6, 512e6
"""An original, assumed; a shard, the recipe's default."""
REQUEST_S, AT_ONCE = 0.030, 16
"""Seconds a request, assumed; requests of the driver at the same time."""
NAME_S = 18e-6
"""Seconds of the processor to look at the name of a part, as docs/benchmarks.md has it."""
TARS_AT_ONCE, WORKERS = 32, 100
"""Tars that one process reads at the same time, and workers of an assumed cluster."""
ROW_BYTES = 300
"""A row of the listing, assumed."""
LEDGER_S, PLAN_S = 15e-6, 55e-6
"""Seconds a row: counting the ledger and planning the shards, as docs/benchmarks.md has them."""
PLANNING_S, PLANNING_BYTES = 8.0 / 33e6, 21.0
"""The trainer's plan, seconds and bytes a sample, as docs/benchmarks.md has it."""
GPUS_PER_NODE = 8


class Loop(NamedTuple):
    """A row of the table."""

    what: str
    how: str
    """What the number is made of."""
    shown: tuple[str, ...]
    """For each of `SIZES`."""


def loops() -> Iterator[Loop]:
    """The rows, in the order of a build."""
    parts = [size / PART_ROWS for size in SIZES]
    shards = [size * KEPT * ORIGINAL_BYTES / SHARD_BYTES for size in SIZES]

    def loop(what: str, how: str, seconds: Iterator[float] | list[float]) -> Loop:
        return Loop(what, how, tuple(duration(each) for each in seconds))

    def amount(what: str, how: str, values: list[float], unit: str = "") -> Loop:
        return Loop(what, how, tuple(f"{number(each)}{unit}" for each in values))

    yield amount("parts in all tables of inputs", f"{MAP_TABLES} tables", [MAP_TABLES * each for each in parts])
    yield amount("shards", f"{SHARD_BYTES / 1e6:.0f} MB each", shards)
    yield amount("bytes in shards", "", [size * KEPT * ORIGINAL_BYTES / 1e12 for size in SIZES], " TB")
    yield loop("listing tars in one process", "a request a sample, 8 tars at once, as before",
               [size * REQUEST_S / 8 for size in SIZES])  # fmt: skip
    yield loop("listing tars in one process", f"{TARS_AT_ONCE} at once",
               [size * REQUEST_S / TARS_AT_ONCE for size in SIZES])  # fmt: skip
    yield loop(f"listing tars on {WORKERS} workers", f"{TARS_AT_ONCE} at once each",
               [size * REQUEST_S / TARS_AT_ONCE / WORKERS for size in SIZES])  # fmt: skip
    yield loop("numbering their rows", f"one process, {AT_ONCE} writes at once",
               [each * REQUEST_S / AT_ONCE + size * ROW_BYTES / 100e6
                for each, size in zip(parts, SIZES, strict=True)])  # fmt: skip
    yield loop("listing the names of all parts", f"{PAGE} a page, {PAGES_AT_ONCE} at once, then each name",
               [(MAP_TABLES * each + shard) * (REQUEST_S / PAGE / PAGES_AT_ONCE + NAME_S)
                for each, shard in zip(parts, shards, strict=True)])  # fmt: skip
    yield loop("rows and reasons of a job", f"a part a request, {AT_ONCE} at once, where workers have not said them",
               [each * REQUEST_S / AT_ONCE for each in parts])  # fmt: skip
    yield loop("the index of the shards", f"a shard a request, {AT_ONCE} at once, then its rows",
               [each * REQUEST_S / AT_ONCE + size * KEPT * 13.7e-6
                for each, size in zip(shards, SIZES, strict=True)])  # fmt: skip
    yield loop("counting the ledger", "15 s a million", [size * LEDGER_S for size in SIZES])
    yield loop("planning the shards", "55 s a million, in one process", [size * PLAN_S for size in SIZES])
    yield loop("a trainer's plan", "8 s for 33 million samples", [size * KEPT * PLANNING_S for size in SIZES])
    yield amount("memory of a node's trainers", f"{PLANNING_BYTES:.0f} B a sample and GPU, {GPUS_PER_NODE} GPUs",
                 [size * KEPT * PLANNING_BYTES * GPUS_PER_NODE / 1e9 for size in SIZES], " GB")  # fmt: skip


def duration(seconds: float) -> str:
    """A time in its own unit."""
    for unit, length in (("days", 86_400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"


def number(value: float) -> str:
    """Two digits that say something."""
    digits = max(0, len(str(int(value))) - 2)
    return f"{round(value / 10**digits) * 10**digits:,.0f}"


def table() -> str:
    """The table as Markdown."""
    rows = [("", "made of", *(f"{size / 1e6:,.0f} million" for size in SIZES)), ("---",) * (2 + len(SIZES))]
    rows += [(each.what, each.how, *each.shown) for each in loops()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    print(table())
