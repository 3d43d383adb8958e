"""2,000 bits flipped one at a time in a small dataset and a trained run: each is found, refused, or changes nothing.

`python -m benchmarks.bit_flips [NUMBER] [SEED]` also names every flip that was missed.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

from captioning.captioners.attributes import AttributesCaptioner
from captioning.captioners.make import CAPTIONERS
from curation.upkeep.find import Wanted
from curation.upkeep.purge import show_and_purge
from schemas.shard_index import read_index
from schemas.training import TrainingRecipe
from tests.building import build, recipe, steps, write_pictures
from tests.flips import FOUND, HARMLESS, MISSED, REFUSED, Flip, flips, outcome
from tests.training.encoding import encode
from training.train import train

NUMBER = 2000
OUTCOMES = (FOUND, REFUSED, HARMLESS, MISSED)


def dataset_and_run(folder: Path) -> tuple[Path, Path]:
    """A dataset of twelve pictures with everything that a folder can hold, and a run of two stages trained on it."""
    write_pictures(folder / "photos", [(96, 64)] * 7 + [(64, 96)] * 4 + [(40, 40)])
    with patch.dict(CAPTIONERS, {"endpoint": lambda section: AttributesCaptioner()}):
        caption = {"beside": ["endpoint"], "endpoint": {"url": "http://localhost/v1", "model": "none"}}
        made = recipe(folder / "photos", folder / "dataset", caption=caption, shard={"max_samples": 4})
        dataset, _ = build(made, without=())
        stricter = recipe(
            folder / "photos",
            folder / "dataset",
            caption=caption,
            shard={"max_samples": 4},
            select={"min_short_side_px": 50},
        )
        build(stricter, without=(), redo=["select"])  # what a caption has cost waits in .paid
        taken = Wanted(image_ids=(read_index(dataset.shards)["key"][0].as_py(),))
        list(show_and_purge(dataset, steps(stricter, without=()), taken, "a benchmark", [], False, stricter.run))
    values = {
        "dataset": str(dataset.root),
        "out": str(folder / "run"),
        "model": {"depth": 2, "hidden_size": 32, "num_heads": 2},
        "latents": {"channels": 4},
        "text": {"channels": 16, "max_tokens": 20},
        "data": {"batch": 4},
        "checkpoint_every": 2,
        "log_every": 1,
        "stages": [{"name": name, "resolution": 32, "steps": 4} for name in ("first", "second")],
    }
    trained = TrainingRecipe.from_mapping(values)
    encode(trained)
    train(trained)
    return dataset.root, trained.out_folder


def survey(roots: tuple[Path, Path], number: int, seed: int) -> Iterator[tuple[Flip, str]]:
    """Every flip with what came of it: three quarters of them in the dataset, the others in the run."""
    for root, count in zip(roots, (number * 3 // 4, number // 4), strict=True):
        for flip in flips(root, count, seed):
            yield flip, outcome(root, *flip[1:])


def bit_flips(folder: Path, number: int = NUMBER, seed: int = 0) -> Iterator[str]:
    """One row per kind of file, and one per flip that was missed."""
    kinds: dict[str, Counter[str]] = {}
    roots = dataset_and_run(folder)
    for (kind, path, bit), found in survey(roots, number, seed):
        kinds.setdefault(kind, Counter())[found] += 1
        if found == MISSED:
            yield f"missed: {path.relative_to(folder)}, bit {bit}"
    yield f"| kind of file | flipped | {' | '.join(OUTCOMES)} |"
    yield "|---" * (2 + len(OUTCOMES)) + "|"
    kinds["all"] = sum(kinds.values(), Counter())
    for kind, counts in kinds.items():
        yield f"| {kind} | {counts.total():,} | {' | '.join(f'{counts[each]:,}' for each in OUTCOMES)} |"


BENCHMARKS = (bit_flips,)


def main() -> None:
    """Print the table."""
    arguments = [int(word) for word in sys.argv[1:]]
    with tempfile.TemporaryDirectory() as folder:
        for line in bit_flips(Path(folder), *arguments):
            print(line, flush=True)


if __name__ == "__main__":
    main()
