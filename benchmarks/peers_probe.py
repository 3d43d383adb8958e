"""Sizes from headers: `ingest --probe-only` on Ray, Data-Juicer's image_shape_filter and Daft, the same files."""

from __future__ import annotations

import io
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from PIL import Image

from benchmarks.curation_speed import Times
from benchmarks.peers import PEERS_PYTHON, PeerMissing, data_juicer, operator_seconds, script
from curation import build as pipeline
from curation.ingest import headers, listing
from engine.dataset import Dataset, count_rows
from engine.ray_cluster import connect
from schemas.opening import picture_formats
from schemas.recipe import DataRecipe

NUM_FILES = 20_000
CORE_GOAL = 15_000
"""Headers per second and core."""
PILLOW_GOAL = 0.75
"""Of the rate at which Pillow opens the same files."""
DATA_JUICER_GOAL, DAFT_GOAL = 10.0, 2.0
ROUNDS = 3
PART_ROWS = 1000

_DAFT = """
import json, sys, time
import daft
from daft.functions import image_file, image_file_metadata
def sizes(pattern):
    begun = time.perf_counter()
    files = daft.from_glob_path(pattern)
    table = files.select(image_file_metadata(image_file(daft.col("path"))).alias("size")).to_pydict()
    return time.perf_counter() - begun, sum(size is not None for size in table["size"])
started, _ = sizes(sys.argv[1] + "/*0000.*")
seconds, count = sizes(sys.argv[1] + "/*")
print("RESULT " + json.dumps([started, seconds, count]))
"""


def write_many(folder: Path, count: int = NUM_FILES) -> None:
    """Photographs of three sizes as JPEG, PNG and WebP; each JPEG has a comment of its own, so no two are equal."""
    from skimage import data

    folder.mkdir(parents=True)
    bodies = []
    for pixels in (data.astronaut(), data.coffee(), data.chelsea(), data.rocket()):
        for longest_px in (96, 160, 224):
            picture = Image.fromarray(pixels)
            picture.thumbnail((longest_px, longest_px))
            for image_format, extension in (("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp")):
                buffer = io.BytesIO()
                picture.save(buffer, image_format)
                bodies.append((extension, buffer.getvalue()))
    for number in range(count):
        extension, body = bodies[number % len(bodies)]
        if extension == "jpg":
            body = body[:2] + b"\xff\xfe\x00\x0a" + b"%08d" % number + body[2:]
        (folder / f"{number:06d}.{extension}").write_bytes(body)


def probe_one_core(folder: Path) -> Iterator[str]:
    """Open, read, close and parse, row by row, in this process; files in the page cache."""
    write_many(folder / "photos")
    picture_formats()
    rows: list[headers.Listed] = [
        (number, str(folder / "photos"), name, None, None, None, None)
        for number, name in enumerate(sorted(path.name for path in (folder / "photos").iterdir()))
    ]

    def ours(row: headers.Listed) -> None:
        assert headers.header_row(row, 300_000_000)[4] is not None

    def pillow(row: headers.Listed) -> None:
        with Image.open(f"{row[1]}/{row[2]}") as image:
            assert image.size

    best = {ours: 0.0, pillow: 0.0}
    for _ in range(ROUNDS):
        for probe in best:
            begun = time.process_time()
            for row in rows:
                probe(row)
            best[probe] = max(best[probe], len(rows) / (time.process_time() - begun))
    rate, ratio = best[ours], best[ours] / best[pillow]
    yield (
        f"| header of a local file, 1 core | {rate:,.0f} images/s | Pillow's open {best[pillow]:,.0f} images/s | "
        f"{ratio:.2f} | {CORE_GOAL:,} and {PILLOW_GOAL}, "
        f"{'reached' if rate >= CORE_GOAL and ratio >= PILLOW_GOAL else 'missed'} |"
    )
    listed, read = (min(found) for found in zip(*(_costs(folder, number) for number in range(ROUNDS)), strict=True))
    yield (
        f"| CPU a file, commits included | listing {listed:.1f} us, parts of headers {read:.1f} us | the header alone "
        f"{1e6 / rate:.1f} us | {1e6 / rate / (listed + read):.2f} | |"
    )


def _costs(folder: Path, number: int) -> tuple[float, float]:
    """CPU us a file to list a folder and to compute the parts of headers in this process."""
    out = str(folder / f"costs-{number}")
    recipe = DataRecipe.from_mapping({"images": str(folder / "photos"), "out": out, "part_rows": PART_ROWS})
    dataset, job = Dataset(Path(out)), headers.map_job(recipe)
    begun = time.process_time()
    listing.update_listing(dataset.held(), recipe)
    listed = time.process_time()
    worker, held = job.build(), dataset.held()
    for task in job.tasks(held, range(held.num_parts("listing"))):
        job.run_part(dataset, lambda: worker, task, lambda *_: None)
    return (listed - begun) / NUM_FILES * 1e6, (time.process_time() - listed) / NUM_FILES * 1e6


def probe_beside_peers(folder: Path) -> Iterator[str]:
    """The whole of each path, start-up taken off: what the same takes for a few files."""
    write_many(folder / "photos")
    write_many(folder / "few", 4)
    begun = time.perf_counter()
    connect()
    connected = time.perf_counter() - begun
    _ours(folder / "few", folder / "first", 2)  # Ray forks its first workers
    few, many, daft, juicer = [], [], [], []
    for number in range(ROUNDS):
        few.append(_ours(folder / "few", folder / f"few-{number}", 2))
        many.append(_ours(folder / "photos", folder / f"many-{number}", PART_ROWS))
        daft += _answers(lambda: _daft(folder / "photos"))
        juicer += _answers(lambda number=number: _data_juicer(folder / "photos", folder / f"juicer-{number}"))
    started = statistics.median(few)
    ours = statistics.median(many) - started
    yield (
        f"| ingest --probe-only on Ray, listing and commits included | {NUM_FILES / ours:,.0f} images/s | "
        f"start-up: Ray {connected:.1f} s, workers {started:.1f} s | | |"
    )
    for name, found, goal in (
        ("Daft image_file_metadata", daft, DAFT_GOAL),
        ("Data-Juicer image_shape_filter, its operator alone", juicer, DATA_JUICER_GOAL),
    ):
        if not found:
            yield f"| {name} | | skipped: not in {PEERS_PYTHON} (make bench-peers-data), or it failed | | {goal:g} |"
            continue
        seconds, kept = sorted(found)[len(found) // 2]
        ratio = seconds / ours
        yield (
            f"| sizes of {NUM_FILES:,} files | {NUM_FILES / ours:,.0f} images/s | {name} {NUM_FILES / seconds:,.0f} "
            f"images/s, {kept:,} kept | {ratio:.1f} | {goal:g}, {'reached' if ratio >= goal else 'missed'} |"
        )


def _ours(photos: Path, out: Path, part_rows: int) -> float:
    """Seconds of the whole command but for imports and the cluster: listing, workers, headers, commits."""
    recipe = DataRecipe.from_mapping({"images": str(photos), "out": str(out), "part_rows": part_rows})
    begun = time.perf_counter()
    pipeline.build(recipe, [headers.map_job(recipe)], Times())
    seconds = time.perf_counter() - begun
    assert sum(count_rows(path) for path in Dataset(out).parts("headers")) == len(list(photos.iterdir()))
    return seconds


def _daft(photos: Path) -> tuple[float, int]:
    _, seconds, count = script(_DAFT, [str(photos)])
    return seconds, count


def _data_juicer(photos: Path, out: Path) -> tuple[float, int]:
    """The seconds that it logs for its operator, so that its start-up does not count."""
    operators = [{"image_shape_filter": {"min_width": 1, "min_height": 1}}]
    _, kept, log = data_juicer(sorted(photos.iterdir()), out, operators)
    return operator_seconds(log), kept


def _answers(measure: Callable[[], tuple[float, int]]) -> list[tuple[float, int]]:
    try:
        return [measure()]
    except PeerMissing as error:
        print(error, file=sys.stderr)
        return []


BENCHMARKS = (probe_one_core, probe_beside_peers)
