"""The captioner `endpoint` at a server on this machine: how many of the allowed requests are in flight."""

from __future__ import annotations

import asyncio
import io
import math
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from aiohttp import web

from benchmarks.captioning_speed import pictures_of_noise
from captioning.captioners.endpoint import EndpointCaptioner
from captioning.recaption import Recaptioner
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
    inputs: dict[str, pa.Table] = {name: table_of(name, rows) for name in ("proxies", "selection")}
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


def _when_begun(server: ChatServer, number: int) -> float:
    """When the n-th request came."""
    begun = [
        when
        for (when, level), (_, before) in zip(server.levels, [(0.0, 0), *server.levels], strict=False)
        if level > before
    ]
    return begun[number - 1]


BENCHMARKS = (endpoint_in_flight,)
