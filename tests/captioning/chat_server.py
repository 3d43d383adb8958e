"""A chat server on loopback that behaves as a picture's colour tells it to, and remembers what it was asked."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from PIL import Image

Behaviour = Callable[["ChatServer", web.Request, str, int], Awaitable[web.StreamResponse]]


class ChatServer:
    """Serves in a thread of its own. A picture is named by its red channel, a `tag` of 0 to 255 in steps of 20."""

    def __init__(
        self, behaviours: dict[int, Behaviour] | None = None, delay_s: float = 0.0, models: object = None
    ) -> None:
        """`models` is what it lists at /v1/models, or the status that it answers there; None has no such address."""
        self.behaviours = behaviours or {}
        self.delay_s, self.models = delay_s, models
        self.asked: Counter[int] = Counter()
        """requests by tag"""
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.sizes: list[tuple[int, int]] = []
        self.in_flight = self.most_in_flight = 0
        self.levels: list[tuple[float, int]] = []
        """(time, requests in flight from then on)"""
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> ChatServer:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def _serve(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application(client_max_size=50_000_000)
        app.router.add_post("/v1/chat/completions", self._answer)
        if self.models is not None:
            app.router.add_get("/v1/models", self._list)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.port: int = runner.addresses[0][1]
        self._ready.set()
        await self._stop.wait()
        await runner.cleanup()

    async def _list(self, request: web.Request) -> web.StreamResponse:
        if isinstance(self.models, int):
            return web.Response(status=self.models)
        return web.json_response(self.models)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.in_flight += 1
        self.levels.append((time.monotonic(), self.in_flight))
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            body = await request.json()
            self.bodies.append(body)
            self.headers.append(dict(request.headers))
            image, question = body["messages"][0]["content"]
            kind, _, data = image["image_url"]["url"].partition(",")
            assert kind == "data:image/jpeg;base64"
            with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
                self.sizes.append(picture.size)
                tag = round(picture.convert("RGB").getpixel((0, 0))[0] / 20) * 20  # type: ignore[index]
            self.asked[tag] += 1
            await asyncio.sleep(self.delay_s)
            behave = self.behaviours.get(tag, good)
            return await behave(self, request, f"{question['text']} {tag} {body['seed']}", self.asked[tag])
        finally:
            self.in_flight -= 1
            self.levels.append((time.monotonic(), self.in_flight))


def completion(
    text: object, finish_reason: object = "stop", system_fingerprint: str | None = None, **message: object
) -> web.Response:
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": finish_reason}
    usage = {"completion_tokens": 5}
    return web.json_response({"choices": [choice], "usage": usage, "system_fingerprint": system_fingerprint})


async def good(server: ChatServer, request: web.Request, text: str, times: int) -> web.StreamResponse:
    return completion(text)


async def empty(server: ChatServer, request: web.Request, text: str, times: int) -> web.StreamResponse:
    return completion(None)


async def cut_short(server: ChatServer, request: web.Request, text: str, times: int) -> web.StreamResponse:
    return completion(text, "length")


async def filtered(server: ChatServer, request: web.Request, text: str, times: int) -> web.StreamResponse:
    return completion(None, "content_filter")


async def hang(server: ChatServer, request: web.Request, text: str, times: int) -> web.StreamResponse:
    await asyncio.sleep(30)
    return completion(text)


async def cut_connection(server: ChatServer, request: web.Request, text: str, times: int) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.close()
    return web.Response()


async def cut_reply(server: ChatServer, request: web.Request, text: str, times: int) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"choices": [')
    assert request.transport is not None
    request.transport.close()
    return response


async def bad_json(server: ChatServer, request: web.Request, text: str, times: int) -> web.StreamResponse:
    return web.Response(text="<html>gateway</html>")


async def no_choices(server: ChatServer, request: web.Request, text: str, times: int) -> web.StreamResponse:
    return web.json_response({"choices": []})


def status(code: int, message: str = "no", **headers: str) -> Behaviour:
    """Always this status."""

    async def answer(server: ChatServer, request: web.Request, text: str, times: int) -> web.StreamResponse:
        body = json.dumps({"error": {"message": message, "key": request.headers.get("Authorization")}})
        return web.Response(status=code, text=body, headers={name.replace("_", "-"): v for name, v in headers.items()})

    return answer


def first(times_bad: int, bad: Behaviour) -> Behaviour:
    """Misbehaves the first times, then answers."""

    async def answer(server: ChatServer, request: web.Request, text: str, times: int) -> web.StreamResponse:
        return await (bad if times <= times_bad else good)(server, request, text, times)

    return answer
