"""Sends requests to one chat server or several: as many in flight as allowed, each to the server with the fewest."""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from captioning.captioners.base import Answer, CaptionerUnusable, CaptionFailure, Generated
from captioning.captioners.chat_reply import (
    PictureRefused,
    ServerBusy,
    ServerUnreachable,
    check_model,
    read_reply,
    retry_after_s,
    status_error,
)
from schemas.captioners import ChatSection

log = logging.getLogger(__name__)

LONGEST_WAIT_S = 60.0
"""Longest wait before a retry where the server names none."""
LONGEST_RETRY_AFTER_S = 300.0
"""Longest wait that a server may set."""
CONNECT_TIMEOUT_S = 20.0
MODELS_TIMEOUT_S = 10.0
"""Longest wait for a list of models; a server that gives none in that time is asked without."""
REPLY_BYTES = 4_000_000
"""No more of a reply is read; a caption is a few kB."""


class Server:
    """One server: its requests in flight, and how long it is left out."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.in_flight = 0
        self.failures = 0
        """Waits in a row that failed requests have caused."""
        self.out_until = 0.0
        self.out_since = 0.0

    def is_out(self) -> bool:
        """True while it is left out; after that one request tries it before others follow."""
        return self.out_until > time.monotonic() or bool(self.failures and self.in_flight)

    def rank(self) -> tuple[bool, float, int]:
        """The lowest takes the next request: the fewest in flight, or the first to come back where all are left out."""
        out = self.is_out()
        return out, self.out_until if out else 0.0, self.in_flight

    def answered(self) -> None:
        self.failures, self.out_until = 0, 0.0

    def failed(self, begun: float, error: ServerBusy, wait_s: Callable[[int], float]) -> None:
        """Leave it out for a while; of the requests that were in flight together, the first failure counts."""
        if begun >= self.out_since:
            self.out_since = time.monotonic()
            wait = wait_s(self.failures)
            self.out_until = self.out_since + wait
            self.failures += 1
            if wait >= LONGEST_WAIT_S:  # minutes in which nothing seems to happen
                log.warning("%s: %s; the next request to it waits for %.0f s", self.url, error, wait)


class ChatClient:
    """Requests of one captioner, on an event loop in a thread of its own. A server that fails is left out for the wait
    before a retry, and longer each time; where all are left out, requests go on, each after its own wait."""

    def __init__(self, section: ChatSection, key: str, servers: Sequence[Server]) -> None:
        """`servers` are the same for all clients of a captioner: one that is left out stays so from part to part."""
        self._section, self._key, self._servers = section, key, servers
        self._last_reply = 0.0
        """When any server last replied, whatever it said."""
        self._thread = threading.Thread(target=self._serve, name="chat client", daemon=True)
        self._ready = threading.Event()

    def __enter__(self) -> ChatClient:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Drop what is in flight."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def check(self) -> None:
        """Ask every server for its models, before the first picture. Raises CaptionerUnusable: none can be reached, or
        one refuses the key or lacks the model."""
        self._run(self._check()).result()

    def ask(self, make_body: Callable[[], bytes], seed: int) -> Future[Answer]:
        """Send one request; its body is made on a thread, before it has a slot. The future raises CaptionerUnusable
        where no server can be reached or one refuses every request of this kind."""
        return self._run(self._answer(make_body, seed))

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def _serve(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        section = self._section
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._slots = asyncio.Semaphore(section.concurrency)
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        self._limits, self._models_limits = (
            aiohttp.ClientTimeout(total=total, sock_connect=CONNECT_TIMEOUT_S)
            for total in (section.timeout_s, min(section.timeout_s, MODELS_TIMEOUT_S))
        )
        connector = aiohttp.TCPConnector(limit=section.concurrency + len(self._servers))
        async with aiohttp.ClientSession(headers=headers, connector=connector) as self._session:
            self._ready.set()
            await self._stop.wait()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

    async def _check(self) -> None:
        for attempt in range(self._section.retries + 1):
            reached = await asyncio.gather(*(self._check_one(server) for server in self._servers))
            if None in reached:
                return
            if attempt < self._section.retries:
                await asyncio.sleep(self._wait_s(attempt, 0))
        raise self._nobody_there(reached[0])

    async def _check_one(self, server: Server) -> ServerUnreachable | None:
        """Check what one server says of itself; one that lists no models is not asked further."""
        begun = time.monotonic()
        try:
            async with self._replied(server, "GET", "/models") as (status, content, _):
                if status == 401:
                    raise status_error(status, content)
                if status == 200:
                    check_model(content, self._section.model or "", self._section.max_tokens)
        except CaptionerUnusable as error:
            raise CaptionerUnusable(f"{server.url}: {error}") from None
        except ServerUnreachable as error:
            server.failed(begun, error, partial(self._wait_s, seed=0))
            return error
        except ServerBusy:
            pass
        return None

    async def _answer(self, make_body: Callable[[], bytes], seed: int) -> Answer:
        """Ask about one picture until there is an answer, a refusal, or no retry left."""
        body = await asyncio.to_thread(make_body)
        async with self._slots:
            begun = time.monotonic()
            for attempt in range(self._section.retries + 1):
                server = self._best()
                sent = time.monotonic()
                try:
                    answer = await self._post(server, body)
                except PictureRefused as refused:
                    server.answered()
                    return CaptionFailure(str(refused), "filtered" if refused.filtered else "refused")
                except CaptionerUnusable as error:
                    raise CaptionerUnusable(f"{server.url}: {error}") from None
                except ServerBusy as error:
                    last, wait_s = error, partial(self._wait_s, seed=seed, retry_after=error.retry_after_s)
                    server.failed(sent, error, wait_s)
                else:
                    server.answered()
                    return replace(answer, seconds=time.monotonic() - sent)
                if attempt < self._section.retries and self._best().is_out():
                    await asyncio.sleep(wait_s(attempt))
        if isinstance(last, ServerUnreachable) and self._last_reply < begun:
            raise self._nobody_there(last)
        return CaptionFailure(f"{last}, {self._section.retries + 1} times")

    def _best(self) -> Server:
        return min(self._servers, key=Server.rank)

    def _nobody_there(self, error: ServerUnreachable | None) -> CaptionerUnusable:
        return CaptionerUnusable(
            f"{', '.join(server.url for server in self._servers)}: no server answers there ({error})"
        )

    async def _post(self, server: Server, body: bytes) -> Generated:
        """Send one request. Raises ServerBusy: the server is overloaded or slow, or sent no chat completion. Raises
        PictureRefused, or CaptionerUnusable: it refuses this picture, or every request of this kind."""
        async with self._replied(server, "POST", "/chat/completions", body) as (status, content, wait):
            if status != 200:
                raise status_error(status, content, retry_after_s(wait))
            return read_reply(content)

    @asynccontextmanager
    async def _replied(
        self, server: Server, method: str, path: str, body: bytes | None = None
    ) -> AsyncIterator[tuple[int, bytes, str | None]]:
        """The status, content and Retry-After of a server's reply. Raises ServerBusy: the server is slow or cut the
        connection. Raises ServerUnreachable: the server accepts no connection."""
        server.in_flight += 1
        try:
            async with self._session.request(
                method,
                server.url + path,
                data=body,
                headers={"Content-Type": "application/json"} if body else None,
                timeout=self._limits if body else self._models_limits,
                allow_redirects=False,
                proxy=proxy_of(server.url),
            ) as response:
                content = await read_bounded(response.content)
                if self._key:  # some servers repeat it in their errors
                    content = content.replace(self._key.encode(), b"***")
                self._last_reply = time.monotonic()
                yield response.status, content, response.headers.get("Retry-After")
        except aiohttp.ClientSSLError as error:
            raise CaptionerUnusable(
                f"no https there ({error}); write http:// for a server without it, or name the file with the "
                "authority of its certificate in the environment variable SSL_CERT_FILE"
            ) from None
        except aiohttp.ClientConnectorError as error:
            raise ServerUnreachable(str(error)) from None
        except aiohttp.ConnectionTimeoutError:
            raise ServerUnreachable(f"no connection within {CONNECT_TIMEOUT_S:g} s") from None
        except TimeoutError:
            raise ServerBusy(f"no answer within {self._section.timeout_s:g} s") from None
        except aiohttp.ClientError as error:
            raise ServerBusy(f"the connection was cut ({error or type(error).__name__})") from None
        finally:
            server.in_flight -= 1

    def _wait_s(self, attempt: int, seed: int, retry_after: float | None = None) -> float:
        """Seconds before the next try: the server's own wait, else doubled each time. Up to a half is added at random,
        so that requests which failed together are not sent again together."""
        spread = 1 + random.Random(seed + attempt).random() / 2
        if retry_after is not None:
            return min(retry_after, LONGEST_RETRY_AFTER_S) * spread
        return min(self._section.backoff_s * 2**attempt, LONGEST_WAIT_S) * spread


def proxy_of(url: str) -> str | None:
    """The proxy that the environment names for an address; none for this machine, whatever the environment says."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host in ("localhost", "::1") or host.startswith("127.") or urllib.request.proxy_bypass(host):
        return None
    return urllib.request.getproxies().get(parts.scheme)


async def read_bounded(stream: aiohttp.StreamReader) -> bytes:
    """A reply, or its first `REPLY_BYTES`."""
    content = bytearray()
    async for chunk in stream.iter_any():
        content += chunk
        if len(content) > REPLY_BYTES:
            break
    return bytes(content)
