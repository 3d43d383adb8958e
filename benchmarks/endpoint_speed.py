"""Captioners that answer in any order: how full the job keeps a server, and an engine in its own process."""

from __future__ import annotations

import asyncio
import io
import math
import random
import time
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path

import pyarrow as pa
from aiohttp import web

from benchmarks.captioning_speed import pictures_of_noise
from benchmarks.made_captions import CaptionWriter
from captioning.captioners.base import Answer, Generated, Plain, Question, up_to
from captioning.captioners.endpoint import EndpointCaptioner
from captioning.recaption import Recaptioner
from captioning.texts.gate import judge
from engine.dataset import Dataset
from engine.paid import Paid
from schemas.captioners import Endpoint
from tests.building import table_of
from tests.captioning.chat_server import ChatServer, completion

MEAN_S = 0.8
"""Mean time of an answer; times are log-normal, one in twenty takes 2.6 times as long or longer."""
REFUSED = 0.05


async def _uneven(server: ChatServer, request: web.Request, text: str, times: int) -> web.StreamResponse:
    dice = random.Random(text)
    await asyncio.sleep(MEAN_S * dice.lognormvariate(-0.18, 0.6))
    words = " ".join(dice.choices(["dog", "barn", "gate", "lamp", "clock", "door", "kettle", "ladder"], k=20))
    return completion("I'm sorry, but I cannot." if dice.random() < REFUSED else f"A {words} stand on a lawn.")


def endpoint_in_flight(_folder: Path, num_pictures: int = 4096, concurrency: int = 32) -> Iterator[str]:
    """One part of proxies of 1024 px, some answers refused and asked again.

    The requests in flight are counted by the server.
    """
    inputs = _part(num_pictures)
    with ChatServer(dict.fromkeys(range(0, 256, 20), _uneven)) as server:
        section = Endpoint(url=server.url, model="m", temperature=1.0, concurrency=concurrency)
        worker = Recaptioner(lambda: EndpointCaptioner(section), threads=2)
        begun = time.perf_counter()
        worker(inputs, lambda *_: None)
        took_s = time.perf_counter() - begun
    asked = server.asked.total()
    start, last = (_when_begun(server, number) for number in (concurrency, asked))
    busy_s = sum(
        level * (min(until, last) - max(since, start))
        for (since, level), (until, _) in zip(server.levels, server.levels[1:], strict=False)
        if until > start and since < last
    )
    whole_s = sum(
        level * (until - since) for (since, level), (until, _) in zip(server.levels, server.levels[1:], strict=False)
    )
    shares = f"{busy_s / (last - start) / concurrency:.3f}; {whole_s / took_s / concurrency:.3f}"
    yield (
        f"| requests in flight of {concurrency} allowed, {num_pictures} pictures, {asked} requests: mean from the "
        f"first to the last request; from start to end | {shares} | | | 0.95 |"
    )
    least = math.ceil(asked / concurrency) * MEAN_S
    yield f"| time, and the least for so many answers of {MEAN_S} s on average | {took_s:.1f} s | {least:.1f} s | | |"


class Paced:
    """Takes as long as an engine on a GPU may: a step at a time, in which this process has nothing to do."""

    name, revision, prompt, retries_help = "paced", None, None, False
    parameters: Mapping[str, Plain] = {}
    at_once, window = 256, 384
    step_s = 256 / (30 * 180)
    """30 pictures/s with captions of 180 tokens, what an H100 may reach by `benchmarks.captioning_cost`."""

    def __init__(self) -> None:
        self.num_steps = 0
        writer = CaptionWriter(0)
        self._texts = [writer.synthetic() for _ in range(64)]

    def stream(self, questions: Iterator[Question | None]) -> Generator[tuple[str, Answer], None, None]:
        """The answers; a caption takes some steps, as its seed says, and its place goes to the next picture."""
        waiting: deque[Question] = deque()
        left: dict[str, int] = {}
        while True:
            waiting.extend(up_to(self.window - len(waiting) - len(left), questions))
            while waiting and len(left) < self.at_once:
                question = waiting.popleft()
                left[question.image_id] = max(20, round(random.Random(question.seed).gauss(180, 40)))
            if not left:
                return
            time.sleep(self.step_s)
            self.num_steps += 1
            left = {image_id: steps - 1 for image_id, steps in left.items()}
            for image_id in [image_id for image_id, steps in left.items() if not steps]:
                del left[image_id]
                yield image_id, Generated(self._texts[hash(image_id) % len(self._texts)], True, 180)


def engine_overhead(folder: Path, num_pictures: int = 1200) -> Iterator[str]:
    """The time that the job adds around an engine that writes 30 captions a second, with one thread that decodes."""
    inputs, engine = _part(num_pictures), Paced()
    paid = Paid.of(Dataset(folder), "captions", 0)
    worker = Recaptioner(lambda: engine, threads=1)
    judge("Ein Hund liegt auf der Wiese.")  # loads the model of languages, once per worker
    begun = time.perf_counter()
    worker(inputs, lambda *_: None, paid)
    took_s = time.perf_counter() - begun
    slept_s = engine.num_steps * engine.step_s
    yield (
        f"| the job around an engine of 30 captions/s, {num_pictures} pictures of 1024 px: wall time beyond its "
        f"own {slept_s:.0f} s | {(took_s - slept_s) / took_s:.1%} | | | 5 % |"
    )


def _part(num_pictures: int) -> dict[str, pa.Table]:
    """One part of proxies of 1024 px, all kept."""
    jpegs = []
    for picture in pictures_of_noise(8):
        picture.putpixel((0, 0), (20, 100, 100))
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=90)
        jpegs.append(file.getvalue())
    rows = [
        {"row_id": row, "image_id": f"{row:032x}", "jpeg": jpegs[row % len(jpegs)], "kept": True}
        for row in range(num_pictures)
    ]
    return {name: table_of(name, rows) for name in ("proxies", "selection")}


def _when_begun(server: ChatServer, number: int) -> float:
    """When the n-th request came."""
    begun = [
        when
        for (when, level), (_, before) in zip(server.levels, [(0.0, 0), *server.levels], strict=False)
        if level > before
    ]
    return begun[number - 1]


BENCHMARKS = (endpoint_in_flight, engine_overhead)
