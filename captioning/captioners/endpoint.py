"""The captioner `endpoint`: asks a server with OpenAI's API, such as vLLM or SGLang, about many pictures at once."""

from __future__ import annotations

import asyncio
import io
import json
import os
import random
import urllib.request
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from PIL import Image

from captioning.captioners.base import Answer, CaptionerUnusable, CaptionFailure, Generated, Plain
from captioning.captioners.chat_reply import (
    PictureRefused,
    ServerBusy,
    ServerUnreachable,
    read_reply,
    retry_after_s,
    status_error,
)
from schemas.captioners import Endpoint

LONGEST_WAIT_S = 60.0
"""Longest wait before a retry where the server names none."""
LONGEST_RETRY_AFTER_S = 300.0
"""Longest wait that a server may set."""
CONNECT_TIMEOUT_S = 20.0
REPLY_BYTES = 4_000_000
"""No more of a reply is read; a caption is a few kB."""


class EndpointCaptioner:
    """Sends one request per picture, up to `concurrency` in flight, and nothing before the first picture.

    A picture that the server refuses fails alone; the others of its batch keep their answers.
    """

    def __init__(self, section: Endpoint) -> None:
        """Read the key.

        Raises:
            ValueError: the recipe names no server or model, or a variable for the key that is not set.
        """
        if section.url is None or section.model is None:
            raise CaptionerUnusable("caption.endpoint: name the server (url) and its model (model)")
        self._section = section
        self._url = f"{section.url}/chat/completions"
        self._key = read_key(section.api_key_env)
        self._proxy = proxy_of(self._url)
        self.name, self.revision = section.model, None
        self.prompt: str | None = section.prompt
        self.retries_help = section.extra_body.get("temperature", section.temperature) != 0
        self.batch_size = 2 * section.concurrency  # while the last of a batch are written, others are in flight
        self.parameters: dict[str, Plain] = {
            "api": "chat/completions",
            "image_px": section.image_px,
            "jpeg_quality": section.jpeg_quality,
            "max_tokens": section.max_tokens,
            "temperature": section.temperature,
        }
        if section.token_limit_field != "max_tokens":
            self.parameters["token_limit_field"] = section.token_limit_field
        if section.extra_body:
            self.parameters["extra_body"] = json.dumps(section.extra_body, sort_keys=True)

    def caption(self, images: Sequence[Image.Image], seeds: Sequence[int]) -> list[Answer]:
        """One answer per picture, in order.

        Raises:
            CaptionerUnusable: the server cannot be reached, or refuses key, model or address.
        """
        return asyncio.run(self._ask_all(images, seeds))

    async def _ask_all(self, images: Sequence[Image.Image], seeds: Sequence[int]) -> list[Answer]:
        section = self._section
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        limits = aiohttp.ClientTimeout(total=section.timeout_s, sock_connect=CONNECT_TIMEOUT_S)
        slots = asyncio.Semaphore(section.concurrency)
        async with aiohttp.ClientSession(
            headers=headers, timeout=limits, connector=aiohttp.TCPConnector(limit=section.concurrency)
        ) as session:
            tasks = [
                asyncio.create_task(self._ask(session, slots, image, seed))
                for image, seed in zip(images, seeds, strict=True)
            ]
            try:
                answers: list[Answer | ServerUnreachable] = await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
        unreachable = [answer for answer in answers if isinstance(answer, ServerUnreachable)]
        if unreachable and len(unreachable) == len(answers):
            raise CaptionerUnusable(f"{section.url}: no server answers there ({unreachable[0]})")
        return [CaptionFailure(str(answer)) if isinstance(answer, ServerUnreachable) else answer for answer in answers]

    async def _ask(
        self, session: aiohttp.ClientSession, slots: asyncio.Semaphore, image: Image.Image, seed: int
    ) -> Answer | ServerUnreachable:
        """Ask about one picture until there is an answer, a refusal, or no retry left."""
        async with slots:
            body = await asyncio.to_thread(self._body, image, seed)
            for attempt in range(self._section.retries + 1):
                try:
                    return await self._post(session, body)
                except PictureRefused as refused:
                    return CaptionFailure(str(refused))
                except CaptionerUnusable as error:
                    raise CaptionerUnusable(f"{self._section.url}: {error}") from None
                except (ServerBusy, ServerUnreachable) as error:
                    last = error
                if attempt < self._section.retries:
                    await asyncio.sleep(self._wait_s(attempt, last, seed))
        if isinstance(last, ServerUnreachable):
            return last
        return CaptionFailure(f"{last}, {self._section.retries + 1} times")

    async def _post(self, session: aiohttp.ClientSession, body: bytes) -> Generated:
        """Send one request.

        Raises:
            ServerBusy: the server is overloaded or slow, cut the connection or sent no chat completion.
            ServerUnreachable: the server accepts no connection.
            PictureRefused: the server refuses this picture.
            CaptionerUnusable: the server refuses every request of this kind.
        """
        try:
            async with session.post(
                self._url,
                data=body,
                headers={"Content-Type": "application/json"},
                allow_redirects=False,
                proxy=self._proxy,
            ) as response:
                content = await read_bounded(response.content)
                if self._key:  # some servers repeat it in their errors
                    content = content.replace(self._key.encode(), b"***")
                if response.status != 200:
                    raise status_error(response.status, content, retry_after_s(response.headers.get("Retry-After")))
        except aiohttp.ClientConnectorError as error:
            raise ServerUnreachable(str(error)) from None
        except aiohttp.ConnectionTimeoutError:
            raise ServerUnreachable(f"no connection within {CONNECT_TIMEOUT_S:g} s") from None
        except TimeoutError:
            raise ServerBusy(f"no answer within {self._section.timeout_s:g} s") from None
        except aiohttp.ClientError as error:
            raise ServerBusy(f"the connection was cut ({error or type(error).__name__})") from None
        return read_reply(content)

    def _body(self, image: Image.Image, seed: int) -> bytes:
        section = self._section
        message = {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": data_uri(image, section.image_px, section.jpeg_quality)}},
                {"type": "text", "text": section.prompt},
            ],
        }
        request: Mapping[str, Any] = {
            "model": section.model,
            "messages": [message],
            section.token_limit_field: section.max_tokens,
            "temperature": section.temperature,
            "seed": seed,
            **section.extra_body,
        }
        return json.dumps({name: value for name, value in request.items() if value is not None}).encode()

    def _wait_s(self, attempt: int, error: ServerBusy | ServerUnreachable, seed: int) -> float:
        """Seconds before the next try: the server's own wait, else doubled each time. Up to a half is added at random,
        so that requests which failed together are not sent again together."""
        spread = 1 + random.Random(seed + attempt).random() / 2
        if error.retry_after_s is not None:
            return min(error.retry_after_s, LONGEST_RETRY_AFTER_S) * spread
        return min(self._section.backoff_s * 2**attempt, LONGEST_WAIT_S) * spread


def read_key(variable: str | None) -> str:
    """The key that an environment variable holds; '' where the recipe names none.

    Raises:
        CaptionerUnusable: the variable is not set, or what it holds cannot be sent; the message does not repeat it.
    """
    if variable is None:
        return ""
    key = os.environ.get(variable, "").strip()
    if not key:
        raise CaptionerUnusable(
            f"caption.endpoint.api_key_env: the environment variable {variable} is not set where the captioner runs; "
            "export it (on a cluster: on every node), or set the knob to null for a server without a key"
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise CaptionerUnusable(f"caption.endpoint.api_key_env: what {variable} holds is no key")
    return key


def data_uri(image: Image.Image, longest_px: int, quality: int) -> str:
    """A picture as a JPEG in a data URI, shrunk to a longest side."""
    if max(image.size) > longest_px:
        scale = longest_px / max(image.size)
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return f"data:image/jpeg;base64,{b64encode(file.getvalue()).decode()}"


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
