"""A real HTTP server on loopback for tests: files with ranges and an index page, and answers that go wrong."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aiohttp import web

from tests.photos import HTML


class Served:
    """What a server was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: Counter[str] = Counter()
        """Path -> requests for it."""
        self.ranges: list[str] = []
        """The Range headers of requests that had one."""
        self.recovered = False
        """Set it, and what failed for the time being works."""


@contextmanager
def serving(folder: Path) -> Iterator[Served]:
    """Serve a folder: `/files/...` its files, `/status/404/...` and so on what the path says.

    `/busy/NAME` answers 429 and `/stalls/NAME` stops half way, until `recovered`; `/optout/NAME` carries X-Robots-Tag:
    noai; `/moved/NAME` redirects; `/page/NAME` is HTML that calls itself a JPEG; `/norange/NAME` ignores ranges.
    """
    served = Served()
    loop = asyncio.new_event_loop()
    started = threading.Event()
    runners: list[web.AppRunner] = []

    async def start() -> None:
        app = web.Application()
        app.router.add_get("/{kind}/{tail:.*}", lambda request: _answer(request, folder, served))
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        runners.append(runner)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        served.url = f"http://127.0.0.1:{port}"
        started.set()

    def run() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(start())
        loop.run_forever()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert started.wait(10)
    try:
        yield served
    finally:
        asyncio.run_coroutine_threadsafe(_end(runners[0]), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


async def _end(runner: web.AppRunner) -> None:
    await runner.cleanup()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def _answer(request: web.Request, folder: Path, served: Served) -> web.StreamResponse:
    kind, tail = request.match_info["kind"], request.match_info["tail"]
    if request.method == "GET":
        served.requests[request.path] += 1
    if "Range" in request.headers:
        served.ranges.append(request.headers["Range"])
    path = folder / tail
    if kind == "files" and path.is_dir():
        inner = "".join(
            f'<a href="{found.name}{"/" if found.is_dir() else ""}">{found.name}</a>\n' for found in path.iterdir()
        )
        return web.Response(text=f'<html><a href="../">up</a>{inner}</html>', content_type="text/html")
    if kind == "status":
        return web.Response(status=int(tail.split("/")[0]))
    if kind == "busy" and not served.recovered:
        return web.Response(status=429)
    if kind == "stalls" and not served.recovered:
        response = web.StreamResponse(headers={"Content-Length": str(path.stat().st_size)})
        await response.prepare(request)
        await response.write(path.read_bytes()[:100])
        await asyncio.sleep(30)
        return response
    if kind == "moved":
        raise web.HTTPFound(f"/files/{tail}")
    if kind == "page":
        return web.Response(body=HTML, content_type="image/jpeg")
    if not path.is_file():
        raise web.HTTPNotFound
    if kind == "norange":
        return web.Response(body=path.read_bytes(), content_type="image/jpeg")
    headers = {"X-Robots-Tag": "noai"} if kind == "optout" else {}
    return web.FileResponse(path, headers=headers)
