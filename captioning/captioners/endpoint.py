"""The captioner `endpoint`: asks a server with OpenAI's API, such as vLLM or SGLang, about many pictures at once."""

from __future__ import annotations

import io
import json
import os
from base64 import b64encode
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import Any

from PIL import Image

from captioning.captioners.base import Answer, CaptionerUnusable, Plain, Question, up_to
from captioning.captioners.chat_client import ChatClient, Server
from schemas.captioners import ChatSection, Endpoint

Answered = SimpleQueue[tuple[str, Future[Answer]]]


class EndpointCaptioner:
    """Sends one request per picture, up to `concurrency` in flight, and nothing before the first picture. Before it,
    each server is asked for its models. A picture that a server refuses fails alone."""

    def __init__(self, section: Endpoint) -> None:
        """Read the key. Raises ValueError: the recipe names no server or model, or a key that is not set."""
        if not section.servers() or section.model is None:
            raise CaptionerUnusable("caption.endpoint: name the server (url) and its model (model)")
        self._section = section
        self._key = read_key(section.api_key_env)
        self._servers = [Server(url) for url in section.servers()]
        self._checked = False
        self.name, self.revision = section.model, None
        self.prompt: str | None = section.prompt
        self.retries_help = section.extra_body.get("temperature", section.temperature) != 0
        self.window = 2 * section.concurrency  # half of them are made ready while the others are in flight
        self.parameters: dict[str, Plain] = {
            "api": "chat/completions",
            "image_px": section.image_px,
            "jpeg_quality": section.jpeg_quality,
            "max_tokens": section.max_tokens,
            "temperature": section.temperature,
        }
        if section.token_limit_field != "max_tokens":
            self.parameters["token_limit_field"] = section.token_limit_field
        if section.image_format != "jpeg":
            self.parameters["image_format"] = section.image_format
        if section.extra_body:
            self.parameters["extra_body"] = json.dumps(section.extra_body, sort_keys=True)

    def stream(self, questions: Iterator[Question | None]) -> Generator[tuple[str, Answer], None, None]:
        """The answers. Raises CaptionerUnusable: no server can be reached, or one refuses key, model or address."""
        answered: Answered = SimpleQueue()
        in_flight = 0
        with ChatClient(self._section, self._key, self._servers) as client:
            while True:
                for question in up_to(self.window - in_flight, questions):
                    if not self._checked:
                        client.check()
                        self._checked = True
                    future = client.ask(partial(self._body, question.picture, question.seed), question.seed)
                    future.add_done_callback(partial(_put, answered, question.image_id))
                    in_flight += 1
                if not in_flight:
                    return
                image_id, answer = answered.get()
                in_flight -= 1
                yield image_id, answer.result()

    def _body(self, image: Image.Image, seed: int) -> bytes:
        assert self.prompt is not None
        return chat_body(self._section, [picture_uri(image, self._section)], self.prompt, seed)


def chat_body(section: ChatSection, pictures: Sequence[str], prompt: str, seed: int) -> bytes:
    """A request about pictures, given as `picture_uri` does, in their order and before the prompt."""
    message = {
        "role": "user",
        "content": [
            *({"type": "image_url", "image_url": {"url": picture}} for picture in pictures),
            {"type": "text", "text": prompt},
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


def _put(answered: Answered, image_id: str, answer: Future[Answer]) -> None:
    answered.put((image_id, answer))


def read_key(variable: str | None) -> str:
    """The key that an environment variable holds; '' where the recipe names none. Raises CaptionerUnusable: the
    variable is not set, or what it holds cannot be sent; the message does not repeat it."""
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


def picture_uri(image: Image.Image, section: ChatSection) -> str:
    """A picture in a data URI, as a section has pictures sent."""
    if max(image.size) > section.image_px:
        scale = section.image_px / max(image.size)
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    file = io.BytesIO()
    image.save(file, section.image_format, quality=section.jpeg_quality)  # of which PNG takes no notice
    return f"data:image/{section.image_format};base64,{b64encode(file.getvalue()).decode()}"
