"""Reading from an S3 server on loopback: samples with a warm cache against the local folder, and training's wait."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import torch

from benchmarks.loader_speed import alternating, photos_of, write_shards
from engine.place.store import Store
from schemas.shard_index import ShardIndex
from schemas.training import TrainingRecipe
from tests.storing import as_user_of, storing
from tests.training.encoding import encode
from training.data.cache import bring
from training.data.chance import Chance
from training.data.loader import Loader
from training.data.reader import ShardReader
from training.data.selection import Selection
from training.data.tars import Copies
from training.features import stage_features
from training.metrics import read_metrics
from training.parallel.distributed import World
from training.reading import source_of
from training.stages import stage_data
from training.train import train

RATE_GOAL, WAIT_GOAL = 0.8, 0.01
FAST_BATCH, FAST_STEP_S = 16, 0.04
"""A trainer of 400 pictures a second, whose steps another processor computes."""


@contextmanager
def served() -> Iterator[str]:
    """A server in this process, which it finds; gives the address of a bucket."""
    with storing("bucket") as server, as_user_of(server):
        yield f"s3://{server.bucket}"


def uploaded(folder: Path, address: str) -> str:
    """Put a dataset's files into the store."""
    place = Store.at(address)
    for path in sorted(folder.rglob("[!.]*")):
        if path.is_file():
            place.put(path.relative_to(folder).as_posix(), path)
    return address


def store_undecoded(folder: Path) -> Iterator[str]:
    """All members of all samples in random order: from copies of a dataset in a store, and from the folder itself."""
    with served() as bucket:
        for name, width, quality, copies_of_each in (("large", 2000, 90, 30), ("small", 320, 75, 100)):
            pictures, size = photos_of(folder / name, width, quality)
            local = folder / name / "dataset"
            write_shards(local / "shards", pictures, size, copies_of_each)
            copies = Copies.of(uploaded(local, f"{bucket}/{name}"), folder / name / "copies")
            bring(copies)
            rows = Selection(ShardIndex(local / "shards"))
            here = ShardReader(local / "shards", rows)
            there = ShardReader(copies.folder / "shards", rows, copies=copies)
            jumbled = np.random.default_rng(0).permutation(rows.num_rows).tolist()

            def read(reader: ShardReader, numbers: Sequence[int]) -> None:
                for number in numbers:
                    reader.members(number)

            begun = time.perf_counter()
            read(there, jumbled[:200])
            by_range = 200 / (time.perf_counter() - begun)
            for shard in rows.shards():
                path = copies.folder / "shards" / shard
                copies.store.fetch(copies.key(path), path)
            theirs, ours = alternating(lambda: read(here, jumbled), lambda: read(there, jumbled), 5)  # noqa: B023
            ratio, kilobytes = theirs / ours, sum(map(len, pictures)) / len(pictures) / 1000
            verdict = "reached" if ratio >= RATE_GOAL else "missed"
            yield (
                f"| undecoded, {kilobytes:,.0f} kB a picture, in random order, copies of what is in a store | "
                f"{rows.num_rows / ours:,.0f} samples/s ({by_range:,.0f} by range) | the folder "
                f"{rows.num_rows / theirs:,.0f} | {ratio:.2f} | {RATE_GOAL}, {verdict} |"
            )


def store_wait(folder: Path) -> Iterator[str]:
    """Training on features from a store, from a cold start; the same from the folder."""
    pictures, size = photos_of(folder, 640, 85)
    write_shards(folder / "dataset" / "shards", pictures, size, 10)
    values = {
        "dataset": str(folder / "dataset"),
        "out": str(folder / "local"),
        "model": {"depth": 2, "hidden_size": 64, "num_heads": 2},
        "precision": "fp32",
        "data": {"batch": 4},
        "features": {"use": "require"},
        "log_every": 5,
        "checkpoint_every": 100,
        "stages": [{"name": "features", "resolution": 256, "steps": 400}],
    }
    local = TrainingRecipe.from_mapping(values)
    encode(local)
    train(local)
    with served() as bucket:
        data = {"batch": 4, "cache_dir": str(folder / "copies")}
        where = {"dataset": uploaded(folder / "dataset", f"{bucket}/ds"), "out": str(folder / "remote")}
        remote = TrainingRecipe.from_mapping(values | {"data": data} | where)
        train(remote)
        there, here = loading(remote), loading(local)
        fast = [waiting(recipe) for recipe in (remote, local)]
    lines = [read_metrics(recipe.stage_folder(recipe.stages[0])) for recipe in (remote, local)]
    ours, theirs = ([np.mean([line[key] for line in of]) for key in ("wait_share", "images_per_s")] for of in lines)
    assert [line["loss"] for line in lines[0]] == [line["loss"] for line in lines[1]]
    verdict = "reached" if ours[0] <= WAIT_GOAL else "missed"
    yield (
        f"| features at 256 px in a store, from a cold start | wait {ours[0]:.2%} at {ours[1]:,.0f} images/s; loader "
        f"alone, warm, {there:,.0f} | the folder {theirs[0]:.2%} at {theirs[1]:,.0f}; {here:,.0f} | {there / here:.2f} "
        f"| {WAIT_GOAL:.0%} wait, {verdict} |"
    )
    verdict, rate = "reached" if fast[0] <= WAIT_GOAL else "missed", FAST_BATCH / FAST_STEP_S
    yield (
        f"| the same, warm, for a trainer of {rate:,.0f} images/s | wait {fast[0]:.2%} | the folder {fast[1]:.2%} | | "
        f"{WAIT_GOAL:.0%} wait, {verdict} |"
    )


def loading(recipe: TrainingRecipe, steps: int = 200) -> float:
    """Pictures per second that the loader gives when nothing trains."""
    with loader_of(recipe, steps) as loader:
        begun = time.perf_counter()
        num_images = sum(len(batch.image_ids) for batch in loader.batches(0, steps))
        return num_images / (time.perf_counter() - begun)


def waiting(recipe: TrainingRecipe, steps: int = 100) -> float:
    """The share of its steps that a fast trainer waits for data once it has its first batch."""
    data = recipe.data.model_copy(update={"batch": FAST_BATCH})
    with loader_of(recipe.model_copy(update={"data": data}), steps) as loader:
        for step, _ in enumerate(loader.batches(0, steps)):
            loader.waited_s *= step > 0
            time.sleep(FAST_STEP_S)
        return loader.waited_s / (steps * FAST_STEP_S)


@contextmanager
def loader_of(recipe: TrainingRecipe, steps: int) -> Iterator[Loader]:
    """A loader for the first stage, without a cache of samples."""
    stage = recipe.stages[0]
    data, here = stage_data(recipe, stage), World(0, 1, torch.device("cpu"))
    with closing(source_of(recipe, data, stage_features(recipe, stage), range(steps), here)) as source:
        yield Loader(source, data.order, Chance(0, "benchmark"), recipe.data.model_copy(update={"cache_mb": 0}))


BENCHMARKS = (store_undecoded, store_wait)
