"""Reads a chat server's reply: a caption, a refused picture, a request to send again, or a mistake in the recipe."""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from captioning.captioners.base import CaptionerUnusable, Generated
from captioning.texts.text import read_json

ENDED = frozenset({"stop", "eos", "eos_token", "stop_sequence", "end_turn"})
"""What `finish_reason` is where the model came to an end."""
CUT = frozenset({"length", "max_tokens", "model_length", "model_context_window_exceeded"})
"""What it is at the limit of tokens. Anything else (error, abort, null) ends no caption."""

MOST_TOKENS = 2**31 - 1
"""What the column of a caption's tokens holds; a count above it, or below 0, is none."""

MODELS_SHOWN = 5

LONGEST_MESSAGE = 200
"""Longest part of a server's message that is shown, in letters."""

_FILTERED = re.compile(
    rb"content[ _-]?(?:filter|policy|management|moderation)|moderat(?:ed|ion)|flagged", re.IGNORECASE
)
"""What the error of a content filter says: Azure's, OpenAI's and OpenRouter's."""

_UNSUPPORTED = re.compile(
    r"(?:unsupported|unrecogni[sz]ed|unknown|unexpected|invalid)[^'\"`]{0,40}"
    r"(?:parameter|argument|field|keyword)s?[^'\"`]{0,20}['\"`](\w{1,60})['\"`]|\(parameter=(\w{1,60})",
    re.IGNORECASE,
)


class ServerBusy(Exception):
    """Another try may help. `retry_after_s` is the wait that the server wants; None where it names none."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ServerUnreachable(ServerBusy):
    """The server accepts no connection."""


class PictureRefused(Exception):
    """The server refuses this picture, and would refuse it again; `filtered` by its content filter."""

    def __init__(self, message: str, filtered: bool = False) -> None:
        super().__init__(message)
        self.filtered = filtered


def check_model(content: bytes, model: str, max_tokens: int) -> None:
    """Look a model up in a server's list of models; a list that cannot be read says nothing. Raises CaptionerUnusable:
    the list lacks the model, or the model reads and writes fewer tokens than `max_tokens`."""
    try:
        listed = {str(entry["id"]): entry for entry in read_json(content)["data"]}
    except (ValueError, LookupError, TypeError):
        return
    names = {model, model.partition(":")[0]}  # "llava" is listed as "llava:latest", "x:fast" as "x"
    found = next((entry for name, entry in listed.items() if name in names or name.partition(":")[0] == model), None)
    if found is None:
        if not listed or model.startswith(("/", ".", "~")):  # some servers load a folder when they are asked for it
            return
        shown = ", ".join(sorted(listed)[:MODELS_SHOWN]) + (", ..." if len(listed) > MODELS_SHOWN else "")
        raise CaptionerUnusable(f"the server has no model {model}; set caption.endpoint.model to one of {shown}")
    longest = found.get("max_model_len")
    if isinstance(longest, int) and 0 < longest <= max_tokens:
        raise CaptionerUnusable(
            f"caption.endpoint.max_tokens={max_tokens} leaves no room for the picture: the server gives {model} "
            f"{longest} tokens for picture, prompt and caption together (max_model_len); set it lower"
        )


def status_error(status: int, content: bytes, retry_after_s: float | None = None) -> Exception:
    """The error that a status other than 200 means."""
    said = f"the server says {status}: {message_of(content)}"
    if status in (408, 425, 429) or status >= 500:
        return ServerBusy(said, retry_after_s)
    if status in (400, 403, 422, 451) and _FILTERED.search(content):
        return PictureRefused(said, filtered=True)
    if status == 401:
        return CaptionerUnusable(f"{said}; caption.endpoint.api_key_env names the variable that holds its key")
    if status == 403:
        return CaptionerUnusable(f"{said}; its key does not allow this")
    if status in (404, 405):
        return CaptionerUnusable(f"{said}; check caption.endpoint.url (it ends in /v1) and caption.endpoint.model")
    if 300 <= status < 400:
        return CaptionerUnusable(f"{said}; the server has moved, set caption.endpoint.url to its new address")
    if status in (400, 422) and (field := _refused_field(content)):
        advice = "set caption.endpoint.token_limit_field" if "max_" in field else "see caption.endpoint.extra_body"
        return CaptionerUnusable(f"{said}; the server does not take {field} of the request: {advice}")
    return PictureRefused(said)


def _refused_field(content: bytes) -> str | None:
    """The field of the request that a server's error is about; None where it is about the picture, or names none."""
    try:
        error = read_json(content)
    except ValueError:
        return None
    error = error.get("error", error) if isinstance(error, dict) else None
    field = error.get("param") if isinstance(error, dict) else None
    named = _UNSUPPORTED.search(message_of(content)) if field is None else None
    field = named.group(1) or named.group(2) if named else field
    return field if isinstance(field, str) and field and "messages" not in field and "image" not in field else None


def message_of(content: bytes) -> str:
    """The first line of a server's error message."""
    try:
        found = read_json(content)
    except ValueError:
        found = content.decode(errors="replace")
    for key in ("error", "message", "detail"):  # OpenAI's {"error": {"message": ...}}; older vLLM; FastAPI
        if isinstance(found, dict) and key in found:
            found = found[key]
    lines = [line.strip() for line in str(found).splitlines() if line.strip()]
    text = lines[0] if lines else "nothing"
    return text if len(text) <= LONGEST_MESSAGE else f"{text[:LONGEST_MESSAGE]}..."


def read_reply(content: bytes) -> Generated:
    """The caption in a reply of `chat/completions`. Raises ServerBusy: the reply is no chat completion, or its text is
    one that the server did not finish. Raises PictureRefused: the server's filter held the text back."""
    try:
        reply = read_json(content)
        choice = reply["choices"][0]
        message = choice["message"]
        text = message.get("content") or message.get("refusal")  # in its own field, as OpenAI has it
        usage = reply.get("usage") or {}
    except (ValueError, LookupError, TypeError, AttributeError):
        raise ServerBusy(f"the reply is no chat completion: {message_of(content)}") from None
    if isinstance(text, list):  # parts, as some servers write them
        text = "".join(str(part.get("text", "")) for part in text if isinstance(part, dict))
    if text is not None and not isinstance(text, str):
        raise ServerBusy("the reply is no chat completion: its content is no text")
    ending = choice.get("finish_reason", "stop")
    if ending == "content_filter":
        raise PictureRefused("the server's content filter held the text back", filtered=True)
    if not isinstance(ending, str) or ending not in ENDED | CUT:
        raise ServerBusy(
            f"the server did not finish the text: finish_reason is {message_of(json.dumps(ending).encode())}"
        )
    num_tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
    revision = reply.get("system_fingerprint")
    return Generated(
        text or "",
        ending in ENDED,
        num_tokens if isinstance(num_tokens, int) and 0 <= num_tokens <= MOST_TOKENS else None,
        revision if isinstance(revision, str) and revision else None,
    )


def retry_after_s(header: str | None) -> float | None:
    """Seconds to wait by a `Retry-After` header, which holds a number or a date; None where it holds neither."""
    if header is None:
        return None
    try:
        seconds = float(header)
        return max(0.0, seconds) if math.isfinite(seconds) else None
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(header)
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())
