"""Flip bits of a dataset one at a time, and see whether `sigma doctor` finds each of them.

As a script: python -m tests.flips DATASET [NUMBER]
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path

from curation.upkeep.doctor import check_dataset
from engine.dataset import Dataset

Flip = tuple[str, Path, int]
"""(kind of the place, file, number of the bit)"""


def places(root: Path) -> dict[str, list[tuple[Path, int, int]]]:
    """Kind of place -> (file, first byte, end) of every stretch of it."""
    found: dict[str, list[tuple[Path, int, int]]] = {}
    for path in sorted([*root.rglob("*.parquet"), *root.rglob("*.tar"), *root.rglob("wids.json")]):
        size = path.stat().st_size
        if path.suffix != ".parquet":
            found.setdefault(path.suffix[1:], []).append((path, 0, size))
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
    """Whether doctor finds one flipped bit, which is mended afterwards."""
    whole = path.read_bytes()
    data = bytearray(whole)
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(bytes(data))
    try:
        return any(not finding.fine for finding in check_dataset(root, threads=1))
    finally:
        path.write_bytes(whole)


def main() -> None:
    """Print every flip that was not found, and the counts."""
    dataset, number = Dataset(Path(sys.argv[1])), int(sys.argv[2]) if len(sys.argv) > 2 else 2000
    tried: dict[str, list[bool]] = {}
    for kind, path, bit in flips(dataset.root, number):
        tried.setdefault(kind, []).append(is_found(dataset.root, path, bit))
        if not tried[kind][-1]:
            print(f"NOT FOUND: {kind}, {path}, bit {bit}", flush=True)
    for kind, found in tried.items():
        print(f"{kind}: {sum(found)} of {len(found)} found")


if __name__ == "__main__":
    main()
