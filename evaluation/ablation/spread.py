"""Whether two cells differ by more than their seeds do."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

T_95 = {2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
"""Student's t of a two-sided 95 % interval, by degrees of freedom; that of 9 is taken above, which is a little wide."""


@dataclass(frozen=True)
class Difference:
    """The mean over seeds of a cell less its reference, and the 95 % interval of that mean."""

    mean: float
    low: float
    high: float

    @property
    def is_seen(self) -> bool:
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        if not self.is_seen:
            return "no difference seen"
        return f"{self.mean:+.3g} ({self.low:+.3g} to {self.high:+.3g})"


def paired_difference(cell: Sequence[float], reference: Sequence[float]) -> Difference:
    """Seed by seed, because cells of one seed see the same batches and noise. `cell`, `reference`: one value per seed,
    in the same order; at least three."""
    differences = [a - b for a, b in zip(cell, reference, strict=True)]
    assert len(differences) >= 3
    mean = statistics.fmean(differences)
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    reach = T_95[min(len(differences) - 1, max(T_95))] * error
    return Difference(mean, mean - reach, mean + reach)
