"""kill -9 while captions are written: no committed caption is asked for again, and the table comes out the same."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from aiohttp import web
from PIL import Image

from tests.captioning.chat_server import ChatServer, completion
from tests.processes import Python
from tests.trees import content, sigma, start_sigma

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
TAGS = tuple(range(0, 260, 20))
"""13 pictures, told apart by the server through the red of their corner."""
BATCH = 2
"""An endpoint captioner takes twice its `concurrency` at once."""


async def describe(server: ChatServer, request: web.Request, text: str, times: int) -> web.StreamResponse:
    return completion(f"A field of noise with a corner whose red is {text.split()[-2]}.")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("noise")
    for tag in TAGS:
        pixels = np.random.default_rng(tag).integers(0, 256, (12, 12, 3), np.uint8)
        image = Image.fromarray(pixels).resize((128, 128), Image.Resampling.NEAREST)
        image.paste((tag, 90, 30), (0, 0, 64, 64))
        image.save(folder / f"{tag:03d}.png")
    return folder


@contextmanager
def serving(delay_s: float = 0.0) -> Iterator[ChatServer]:
    with ChatServer(dict.fromkeys(TAGS, describe), delay_s) as server:
        yield server


def arguments(photos: Path, out: Path, server: ChatServer, *more: str) -> list[str]:
    knobs = ["part_rows=7", "select.drop_duplicates=false", "caption.captioner=endpoint", "caption.endpoint.model=m"]
    knobs += ["select.min_short_side_px=64", f"caption.endpoint.url={server.url}", "caption.endpoint.concurrency=1"]
    return ["caption", str(ROOT / "recipes" / "folder.yaml"), f"images={photos}", f"out={out}", *knobs, *more]


@pytest.fixture(scope="module")
def undisturbed(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "dataset"
    with serving() as server:
        done = sigma(*arguments(photos, out, server, "run.runner=local"))
        assert done.returncode == 0, done.stderr
        assert server.asked == dict.fromkeys(TAGS, 1)
    return out


def batches(out: Path) -> list[Path]:
    return list(out.glob("paid/captions/part-*/[!.]*.parquet"))


def started(out: Path, arguments: list[str], num_batches: int) -> Python:
    """sigma in a process of its own, once so many batches of the parts in progress are on the disk."""
    process = start_sigma(*arguments)
    deadline = time.monotonic() + 60
    while process.poll() is None and len(batches(out)) < num_batches and time.monotonic() < deadline:
        time.sleep(0.005)
    assert process.poll() is None, "it ended before it could be killed"
    return process


def committed_tags(out: Path) -> set[int]:
    """The pictures whose captions are on the disk, whether their part is whole or not."""
    paths = [*batches(out), *out.glob("tables/captions/part-*.parquet")]
    try:
        captions = [caption for path in paths for caption in pq.read_table(path)["caption"].to_pylist()]
    except FileNotFoundError:  # its part was committed meanwhile
        return committed_tags(out)
    return {int(caption.rstrip(".").split()[-1]) for caption in captions}


def test_a_killed_process_asks_again_for_one_batch_at_most(photos: Path, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "dataset"
    with serving(delay_s=0.1) as server:
        told = arguments(photos, out, server, "run.runner=local")
        for num_batches in (2, 1):
            process = started(out, told, num_batches + len(batches(out)))
            process.send_signal(signal.SIGKILL)
            process.wait()
            time.sleep(0.3)  # what was on its way to the server gets there
            committed = committed_tags(out)
            assert 0 < len(committed) < len(TAGS)
        asked = server.asked.copy()
        server.delay_s = 0.0
        done = sigma(*told)
        assert done.returncode == 0, done.stderr
        assert not {tag for tag in committed if server.asked[tag] > asked[tag]}, "a committed caption was asked for"
        assert sum(server.asked.values()) <= len(TAGS) + 2 * BATCH
    assert content(out) == content(undisturbed)
    assert not list(out.glob("paid/captions/part-*/"))


def test_a_lost_ray_worker_loses_one_batch_at_most(
    photos: Path, undisturbed: Path, tmp_path: Path, on_ray: None
) -> None:
    out = tmp_path / "dataset"
    with serving(delay_s=0.5) as server:
        process = started(out, arguments(photos, out, server, "run.runner=ray", "caption.workers=2"), 2)
        port = urlsplit(server.url).port
        workers = [
            connection.pid
            for connection in psutil.net_connections("tcp")
            if connection.raddr and connection.raddr.port == port and connection.pid not in (os.getpid(), None)
        ]
        assert workers and all("ray::PartWorker" in " ".join(psutil.Process(pid).cmdline()) for pid in workers)
        committed, asked = committed_tags(out), server.asked.copy()
        os.kill(workers[0], signal.SIGKILL)
        assert process.wait(120) == 0
        assert all(server.asked[tag] == asked[tag] == 1 for tag in committed)
        assert sum(server.asked.values()) <= len(TAGS) + BATCH
    assert content(out) == content(undisturbed)


def test_redo_captions_anew_even_what_a_killed_run_has_paid_for(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "dataset"
    with serving(delay_s=0.1) as server:
        told = arguments(photos, out, server, "run.runner=local")
        process = started(out, told, 2)
        process.send_signal(signal.SIGKILL)
        process.wait()
        time.sleep(0.3)
        asked, server.delay_s = server.asked.copy(), 0.0
        assert sigma(*told, "--redo", "caption").returncode == 0
        assert server.asked - asked == dict.fromkeys(TAGS, 1)
