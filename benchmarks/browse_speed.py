"""How quickly `sigma browse` answers over a million rows: the tables are written by hand, the server is real.

`python -m benchmarks.browse_speed ROWS FOLDER [PAGE]` takes another size, and one page alone, such as thresholds; the
dataset stays in FOLDER and is used again.
"""

from __future__ import annotations

import io
import socket
import statistics
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import uvicorn
from PIL import Image

from engine.dataset import Dataset
from schemas import tables
from tests.building import put
from viewer.server import make_app

NUM_ROWS = 1_000_000
PART_ROWS = 10_000
ROUNDS = 5
NUM_WORDS = 5_000
"""Distinct nouns of the made-up captions; frequent ones are frequent as in language (Zipf)."""


def write_rows(dataset: Dataset, num_rows: int = NUM_ROWS, part_rows: int = PART_ROWS) -> None:
    """A finished dataset of `num_rows` inputs: nine in ten kept, the rest refused by every rule or broken."""
    rng = np.random.default_rng(0)
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(file, "JPEG")
    words = np.array([f"word{number}" for number in range(NUM_WORDS)])
    for number, begin in enumerate(range(0, num_rows, part_rows)):
        row_ids = np.arange(begin, min(begin + part_rows, num_rows))
        for name, columns in _part(row_ids, number, words, file.getvalue(), rng).items():
            put(dataset, name, number, _table(name, columns))


def _part(
    row_ids: np.ndarray, number: int, words: np.ndarray, jpeg: bytes, rng: np.random.Generator
) -> dict[str, dict[str, Any]]:
    """Table -> column -> values of one part."""
    count = len(row_ids)
    ids = [f"{row_id * 0x9E3779B97F4A7C15 % 2**64:016x}" for row_id in row_ids.tolist()]
    width, height = rng.integers(200, 4000, count), rng.integers(200, 4000, count)
    score = rng.normal(5, 1, count).clip(1, 10)
    kind = rng.integers(0, 100, count)
    reasons: Sequence[str | None] = [None] * 95 + ["too_small", "low_aesthetic", "duplicate", "duplicate", "error"]
    by = [reasons[value] for value in kind]
    rejected = [None if reason == "error" else reason for reason in by]
    kept = [reason is None for reason in by]
    found = {
        source: np.minimum(rng.zipf(1.3, (count, num)), NUM_WORDS) - 1
        for source, num in (("raw", 6), ("synthetic", 20))
    }
    nouns = {source: [words[row].tolist() if ok else None for row, ok in zip(places, kept, strict=True)]
             for source, places in found.items()}  # fmt: skip
    captions = {source: [" and a ".join(row) if row else None for row in values] for source, values in nouns.items()}
    key = {"row_id": row_ids, "image_id": ids}
    where = {"source": ["/photos"] * count, "source_name": ["photos"] * count,
             "member": [f"{row_id // 1000:04d}/{row_id:08d}.jpg" for row_id in row_ids]}  # fmt: skip
    coin = rng.random(count)
    mixed = [None if not ok else "synthetic" if value < 0.6 else "raw" for value, ok in zip(coin, kept, strict=True)]
    kept_rows = np.array(kept)
    duplicate = np.array([reason == "duplicate" for reason in by])
    return {
        "listing": {"row_id": row_ids, **where},
        "images": {**key, **where, "width": width, "height": height, "format": ["JPEG"] * count,
                   "sha256": ids, "raw_caption": captions["raw"],
                   "reason": ["truncated" if reason == "error" else None for reason in by]},
        "proxies": {**key, "jpeg": [jpeg] * count, "width": [64] * count, "height": [48] * count},
        "fingerprints": {**key, "phash": row_ids},
        "scores": {**key, "aesthetic": score, "aesthetic_scorer": ["photographic"] * count},
        "raw_captions": {**key, "caption": captions["raw"], "removed": [[]] * count},
        "captions": {**key, "captioner": ["made-up"] * count, "caption": captions["synthetic"],
                     "num_tokens": [None if not ok else 41 for ok in kept]},
        "mix": {**key, "coin": [value if ok else None for value, ok in zip(coin.tolist(), kept, strict=True)],
                "caption_source": mixed, "num_tokens": [None if not ok else 41 for ok in kept],
                "caption": [None if source is None else captions[source][place] for place, source in enumerate(mixed)]},
        "nouns": {"row_id": np.repeat(row_ids, 2), "image_id": np.repeat(ids, 2),
                  "caption_source": ["raw", "synthetic"] * count,
                  "nouns": [value for pair in zip(nouns["raw"], nouns["synthetic"], strict=True) for value in pair],
                  "num_words": [None if not ok else num for ok in kept for num in (16, 58)]},
        "samples": {"row_id": row_ids[kept_rows], "image_id": np.array(ids)[kept_rows],
                    "shard": [f"1.0/{number:05d}.tar"] * int(kept_rows.sum()),
                    "bucket": np.array(["1.0", "0.68", "1.46"])[row_ids[kept_rows] % 3]},
        "selection": {**key, "rejected_by": rejected, "kept": kept, "subsets": [[]] * count,
                      "threshold": [{"too_small": 512.0, "low_aesthetic": 3.0}.get(reason or "") for reason in by],
                      "duplicate_of_row": [int(row_ids[0]) if reason == "duplicate" else None for reason in by]},
        "duplicates": {"row_id": row_ids[duplicate], "image_id": np.array(ids)[duplicate],
                       "group_id": row_ids[duplicate], "method": ["phash"] * int(duplicate.sum()),
                       "distance": [1] * int(duplicate.sum())},
    }  # fmt: skip


def _table(name: str, columns: dict[str, Any]) -> pa.Table:
    """Columns by the contract of a table; a column that is not given is null."""
    schema = tables.SCHEMAS[name]
    num_rows = len(columns["row_id"])
    arrays = {
        field.name: pa.array(columns.get(field.name, [None] * num_rows)).cast(field.type)
        if not isinstance(columns.get(field.name), list)
        else pa.array(columns[field.name], field.type)
        for field in schema
    }
    return pa.table(arrays, schema=schema)


PATHS = {
    "overview": "/",
    "all images": "/images",
    "filter by size": "/images?column=picture.short_side&op=ge&value=500",
    "filter by score, sorted by it": "/images?column=scores.aesthetic&op=lt&value=4&sort=scores.aesthetic&order=down",
    "filter by outcome": "/images?column=ledger.outcome&op=is&value=error",
    "search in all captions, a new text each time, first page": "/images?q=word77{round}",
    "search in all captions for what none has": "/images?q=nothing{round}",
    "search in all captions, asked again": "/images?q=word777",
    "images of a noun, a new one each time, first page": "/nouns/word77{round}",
    "nouns": "/nouns",
    "thresholds": "/thresholds?min_short_side_px=300&min_aesthetic=5",
    "one image, whole": "/images/543210",
    "a thumbnail": "/thumb/543210",
}


@contextmanager
def served(dataset: Dataset) -> Iterator[httpx.Client]:
    """The live pages of a dataset at a real server on loopback."""
    app = make_app(dataset)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=60) as client:
            yield client
        server.should_exit = True
        thread.join(10)
    app.state.pages.live.close()


def browse_speed(folder: Path, num_rows: int = NUM_ROWS, only: str = "") -> Iterator[str]:
    """Seconds until an answer is complete, over loopback: first just after the start, then with everything counted."""
    dataset = Dataset(folder / str(num_rows))
    if not dataset.parts("duplicates"):
        write_rows(dataset, num_rows)
    begun = time.perf_counter()
    with served(dataset) as client:
        opened = time.perf_counter() - begun
        cold = answered(client, "/")
        yield f"| browse: overview just after the start | {cold:.2f} s | | | 1 s, {_reached(cold)} |"
        while client.get("/overview/nouns").status_code == 202:
            pass
        counted = time.perf_counter() - begun
        yield f"| browse: until all is counted in the background | {counted:.1f} s; open in {opened:.2f} s | | | |"
        for name, path in PATHS.items():
            if only not in name:
                continue
            used = time.process_time()
            taken = statistics.median(answered(client, path.format(round=number)) for number in range(ROUNDS))
            used = (time.process_time() - used) / ROUNDS
            is_goal = name.startswith(("overview", "filter", "search", "images of"))
            goal = f"1 s, {_reached(taken)}" if is_goal else ""
            yield f"| browse: {name} | {taken:.2f} s; {used:.2f} s of CPU | | | {goal} |"


def answered(client: httpx.Client, path: str) -> float:
    """Seconds until the whole answer is there."""
    begun = time.perf_counter()
    client.get(path).raise_for_status()
    return time.perf_counter() - begun


def _reached(seconds: float) -> str:
    return "reached" if seconds < 1 else "missed"


BENCHMARKS = (browse_speed,)

if __name__ == "__main__":
    for line in browse_speed(Path(sys.argv[2]), int(float(sys.argv[1])), *sys.argv[3:]):
        print(line, flush=True)
