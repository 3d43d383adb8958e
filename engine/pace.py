"""How fast the parts of a table come, by the time at which each was committed: for whoever looks at a build from
outside."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

from engine.names import Held
from schemas.files import times_in

RECENT_PARTS = 100
"""The parts that are looked at: those committed last."""
SILENT_S, SILENT_GAPS = 60.0, 10
"""Nobody is at work on a table that gets no part for so long: seconds, and usual gaps between two parts."""


class Pace(NamedTuple):
    """Of a table in progress."""

    parts_per_s: float
    seconds_left: float


def pace(committed: Iterable[float], num_missing: int, now: float) -> Pace | None:
    """Tell the rate and the time left; None where nobody is at work, or too few parts are there to tell. `committed`:
    when each part was, in seconds. What came before a long silence was the work of another run. `num_missing`: parts
    that are still to come."""
    times = sorted(committed)[-RECENT_PARTS:]
    gaps = [after - before for before, after in pairwise(times)]
    if not gaps or not num_missing:
        return None
    longest = SILENT_S + SILENT_GAPS * statistics.median(gaps)
    first = max((place + 1 for place, gap in enumerate(gaps) if gap > longest), default=0)
    span = times[-1] - times[first]
    if now - times[-1] > longest or span <= 0:
        return None
    rate = (len(times) - 1 - first) / span
    return Pace(rate, num_missing / rate)


def commit_times(held: Held, table: str) -> list[float]:
    """When the parts of a table were committed, in seconds."""
    times = times_in(held.dataset.folder(table))
    return [times[name.file] for name in held.parts(table).values() if name.file in times]
