"""The whole of an ingest on Ray beside img2dataset and Data-Juicer: the same large photographs, the same cores."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.cpu_time import descendants_cpu
from benchmarks.curation_speed import SIZES, Times, write_photos
from benchmarks.peers import NUM_WORKERS, PeerMissing, addresses, data_juicer, img2dataset, img2dataset_rows, served
from commands import order
from curation import build as pipeline
from engine.dataset import Dataset, read_parquet
from engine.ray_cluster import connect
from schemas.recipe import DataRecipe

NUM_PHOTOS = 100
"""Of each size: with fewer, how long starting happens to take decides."""
NUM_FEW = 4
"""Photos of the run that tells what starting costs."""
PROXY_PX = 1024
ROUNDS = 3
GOAL = 2.0
_OPERATORS = ({"image_shape_filter": {"min_width": 1, "min_height": 1}}, {"image_deduplicator": {"method": "phash"}})


class _Run(NamedTuple):
    seconds: float
    kept: int
    cpu_s: float = 0.0
    """Of all its processes; of ours the driver too, of img2dataset without the server's."""


class _Way(NamedTuple):
    """One of those that are compared."""

    name: str
    run: Callable[[list[Path], Path], _Run]
    """Photos and a folder to write."""


def ingest_beside_peers(folder: Path) -> Iterator[str]:
    """Each in turn, on a few photos and on all, `ROUNDS` times; what the few took beyond their share is start-up."""
    photos = folder / "photos"
    paths = [
        path
        for megapixels in (6, 12)
        for path in write_photos(photos / str(megapixels), NUM_PHOTOS, SIZES[megapixels], windows=True)
    ]
    few = paths[:: len(paths) // NUM_FEW]
    _, connected = _timed(connect)
    with served(photos) as base:

        def fetch(base: str, chosen: list[Path], out: Path) -> _Run:
            urls = addresses(base, [path.relative_to(photos).as_posix() for path in chosen])
            seconds = img2dataset(urls, out, PROXY_PX, max(1, len(urls) // (4 * NUM_WORKERS)))
            return _Run(seconds, sum(row["status"] == "success" for row in img2dataset_rows(out)))

        ways = [
            _Way("ours", _ours),
            _Way("img2dataset over HTTP", lambda chosen, out: fetch(base, chosen, out)),
            _Way("img2dataset of file://", lambda chosen, out: fetch(photos.as_uri(), chosen, out)),
            _Way("Data-Juicer image_shape_filter, image_deduplicator", _juicer),
        ]
        _ours(few, folder / "first")  # Ray forks its first workers
        measured: dict[str, list[tuple[_Run, _Run]]] = {}
        missing: dict[str, str] = {}
        for number in range(ROUNDS):
            for position, way in enumerate(ways):
                if way.name in missing:
                    continue
                out = folder / f"{position}-{number}"
                out.mkdir()
                try:
                    runs = (_clocked(way, few, out / "few"), _clocked(way, paths, out / "all"))
                except PeerMissing as error:
                    missing[way.name] = str(error)
                else:
                    measured.setdefault(way.name, []).append(runs)
    num_bytes = sum(path.stat().st_size for path in paths)
    yield (
        f"| {len(paths)} JPEGs of 6 and 12 MP, {num_bytes / len(paths) / 1e6:.1f} MB each, {NUM_WORKERS} cores "
        f"| Ray itself starts in {connected:.1f} s | load average {os.getloadavg()[0]:.1f} | | |"
    )
    ours = measured["ours"]
    for way in ways:
        if way.name in missing:
            yield f"| ingest beside {way.name} | | skipped: {missing[way.name]} | | {GOAL:g} |"
        else:
            yield _row(way.name, measured[way.name], ours, len(paths))


def _clocked(way: _Way, chosen: list[Path], out: Path) -> _Run:
    begun = time.process_time()
    with descendants_cpu() as spent:
        run = way.run(chosen, out)
    driver = time.process_time() - begun if way.name == "ours" else 0.0
    return run._replace(cpu_s=spent.seconds + driver)


class _Cost(NamedTuple):
    """Of a run on all, what is left when the run on a few is taken off; both in seconds."""

    per_photo: float
    cpu_per_photo: float
    start: float


def _cost(runs: tuple[_Run, _Run], count: int) -> _Cost:
    few, every = runs
    more = count - NUM_FEW
    per_photo = (every.seconds - few.seconds) / more
    return _Cost(per_photo, (every.cpu_s - few.cpu_s) / more, few.seconds - NUM_FEW * per_photo)


def _row(name: str, theirs: list[tuple[_Run, _Run]], ours: list[tuple[_Run, _Run]], count: int) -> str:
    costs, own = ([_cost(runs, count) for runs in rounds] for rounds in (theirs, ours))
    per_photo, cpu, start = (statistics.median(column) for column in zip(*costs, strict=True))
    kept, whole = theirs[-1][1].kept, statistics.median(every.seconds for _, every in theirs)
    total = statistics.median(every.cpu_s for _, every in theirs)
    whole_run = f"all in {whole:.1f} s, {total:.1f} s of CPU; {kept} of {count} kept"
    if min(cost.per_photo for cost in (*costs, *own)) <= 0:
        return (
            f"| {name} | | start-up swayed more than the photos took: too much other work; {whole_run} | | {GOAL:g} |"
        )
    figures = f"{1 / per_photo:.1f} images/s, {cpu * 1e3:.0f} ms of CPU each; start-up {start:.1f} s; {whole_run}"
    if theirs is ours:
        return f"| ingest and fingerprint on Ray, proxies of {PROXY_PX} px | {figures} | | | |"
    wall, of_cpu = (
        statistics.median(other[column] / mine[column] for other, mine in zip(costs, own, strict=True))
        for column in (0, 1)
    )
    verdict = "reached" if wall >= GOAL else "missed"
    return f"| the same photos | | {name}: {figures} | {wall:.2f}; of CPU time {of_cpu:.2f} | {GOAL:g}, {verdict} |"


def _ours(chosen: list[Path], out: Path) -> _Run:
    """Jobs ingest and fingerprint from the command's first step to its last: listing, workers, tables, commits."""
    links = out.with_name(out.name + "-photos")
    links.mkdir()
    for number, path in enumerate(chosen):
        (links / f"{number:04d}.jpg").hardlink_to(path)
    recipe = DataRecipe.from_mapping(
        {
            "images": str(links),
            "out": str(out),
            "part_rows": max(1, len(chosen) // (4 * NUM_WORKERS)),
            "ingest": {"proxy_px": PROXY_PX},
        }
    )
    steps = [step for step in order.pipeline(recipe) if step.job in ("ingest", "fingerprint")]
    _, seconds = _timed(lambda: pipeline.build(recipe, steps, Times()))
    rows = [read_parquet(path, ["reason"]) for path in Dataset(out).parts("images")]
    return _Run(seconds, sum(rows["reason"].null_count for rows in rows))


def _juicer(chosen: list[Path], out: Path) -> _Run:
    seconds, kept, _ = data_juicer(chosen, out, _OPERATORS)
    return _Run(seconds, kept)


def _timed(work: Callable[[], object]) -> tuple[object, float]:
    begun = time.perf_counter()
    result = work()
    return result, time.perf_counter() - begun


BENCHMARKS = (ingest_beside_peers,)
