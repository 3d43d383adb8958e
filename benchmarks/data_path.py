"""The whole data path of 12 MP JPEGs, job by job: CPU seconds a picture, what others' tools do of it, what a million
pictures cost.

`PRICE=0.04` sets the dollars that a core costs in an hour; no price was looked up.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from multiprocessing import get_context
from multiprocessing.queues import Queue
from pathlib import Path

from aiohttp import web

from benchmarks.cpu_time import descendants_cpu
from benchmarks.curation_speed import SIZES, write_photos
from benchmarks.made_captions import CaptionWriter
from benchmarks.peers import NUM_WORKERS, PeerMissing, data_juicer, img2dataset, img2dataset_rows
from commands import order
from curation import build as pipeline
from curation.build import Observer
from engine.run_log import JobResult
from schemas.recipe import DataRecipe
from tests.captioning.chat_server import ChatServer, completion

MEGAPIXELS = 12
NUM_FEW, NUM_PHOTOS = 8, 40
"""Photos of a run that tells what starting costs, and of the whole one; the difference counts."""
PRICE = float(os.environ.get("PRICE", "0.04"))
MILLION = 1_000_000
JUICER: tuple[dict[str, dict[str, object]], ...] = (
    {"image_shape_filter": {"min_width": 512, "min_height": 512}},
    {"image_deduplicator": {"method": "phash"}},
    {"clean_links_mapper": {}},
    {"clean_html_mapper": {}},
    {"fix_unicode_mapper": {}},
    {"whitespace_normalization_mapper": {}},
    {"text_length_filter": {"min_len": 5}},
)
"""What Data-Juicer has for ingest, dedup, clean and select without weights from a hub."""


class Spent(Observer):
    """CPU seconds of this process by job; jobs run one after the other."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = time.process_time()

    def end(self, job: str, result: JobResult | None) -> None:
        """What was spent since the last job belongs to this one."""
        now = time.process_time()
        self.seconds[job] = self.seconds.get(job, 0.0) + now - self._since
        self._since = now


async def _describe(server: ChatServer, request: web.Request, text: str, times: int) -> web.StreamResponse:
    return completion(CaptionWriter(abs(hash(text)) % 2**32).synthetic())


def _serve(urls: Queue[str]) -> None:
    """A server of captions of 180 words, in a process of its own so that its time is not the pipeline's."""
    with ChatServer(dict.fromkeys(range(256), _describe)) as server:
        urls.put(server.url)
        time.sleep(3600)


def data_path(folder: Path) -> Iterator[str]:
    """Every job on one core, local runner, captions by a server; then the other tools on the same photos."""
    paths = write_photos(folder / "photos", NUM_PHOTOS, SIZES[MEGAPIXELS], windows=True)
    writer = CaptionWriter(0)
    for path in paths:
        path.with_suffix(".txt").write_text(writer.raw(), encoding="utf-8")
    few = folder / "few"
    few.mkdir()
    for path in paths[:NUM_FEW]:
        for file in (path, path.with_suffix(".txt")):
            (few / file.name).hardlink_to(file)
    context = get_context("spawn")
    urls: Queue[str] = context.Queue()
    server = context.Process(target=_serve, args=(urls,), daemon=True)
    server.start()
    url = urls.get(timeout=60)
    _build(few, folder / "first", url)  # what is loaded once is not counted
    started, whole = _build(few, folder / "of-few", url), _build(folder / "photos", folder / "of-all", url)
    server.terminate()
    more = NUM_PHOTOS - NUM_FEW
    per_photo = {job: max(0.0, seconds - started.get(job, 0.0)) / more for job, seconds in whole.items()}
    for job, seconds in per_photo.items():
        yield f"| {job} | {seconds * 1e3:.2f} ms | | | |"
    total = sum(per_photo.values())
    yield f"| all jobs, {MEGAPIXELS} MP, 1 thread | {total * 1e3:.1f} ms | | | {_cost(total)} |"
    yield from _others(paths, folder, total)


def _build(photos: Path, out: Path, url: str) -> dict[str, float]:
    recipe = DataRecipe.from_mapping(
        {
            "images": str(photos),
            "out": str(out),
            "caption": {"captioner": "endpoint", "endpoint": {"url": url, "model": "m"}},
            "run": {"runner": "local", "threads": 1},
        }
    )
    spent = Spent()
    built = pipeline.build(recipe, order.pipeline(recipe), spent)
    kept = sum(count for outcome, *_, count in built.counts if outcome == "kept")
    assert kept == built.num_inputs, built.counts
    return spent.seconds


def _others(paths: list[Path], folder: Path, ours: float) -> Iterator[str]:
    """CPU seconds of all their processes; a run on a few photos is taken off."""

    def fetch(chosen: list[Path], out: Path) -> int:
        img2dataset([path.as_uri() for path in chosen], out, 1024, max(1, len(chosen) // (4 * NUM_WORKERS)))
        return sum(row["status"] == "success" for row in img2dataset_rows(out))

    def judge(chosen: list[Path], out: Path) -> int:
        return data_juicer(chosen, out, JUICER, [path.with_suffix(".txt").read_text() for path in chosen])[1]

    for number, (name, run) in enumerate(
        (
            ("img2dataset of file://: reads, hashes, shrinks to 1024 px, packs", fetch),
            ("Data-Juicer: sizes, pHash duplicates, four cleaners of text, lengths", judge),
        )
    ):
        costs = []
        try:
            for chosen in (paths[:NUM_FEW], paths):
                out = folder / f"other-{number}-{len(chosen)}"
                out.mkdir()
                with descendants_cpu() as spent:
                    kept = run(chosen, out)
                costs.append(spent.seconds)
        except PeerMissing as error:
            yield f"| {name} | | skipped: {error} | | |"
            continue
        each = (costs[1] - costs[0]) / (len(paths) - NUM_FEW)
        yield f"| {name}; {kept} of {len(paths)} kept | | {each * 1e3:.0f} ms | {each / ours:.1f} | {_cost(each)} |"


def _cost(seconds: float) -> str:
    hours = seconds * MILLION / 3600
    return f"a million: {hours:.1f} core-hours, {hours * PRICE:.2f} dollars at {PRICE:g} a core and hour"


BENCHMARKS = (data_path,)
