"""Open S3 with the client inside pyarrow: credentials and the endpoint come from the environment alone."""

from __future__ import annotations

import errno
import os
import re
from contextlib import suppress
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
from fsspec.implementations.arrow import ArrowFSWrapper
from fsspec.spec import AbstractBufferedFile
from pyarrow import fs as arrow

from schemas.lru import Lru
from schemas.reasons import FetchError

OPEN_FILES = 64
"""Objects whose size is remembered, so that a range costs one request: a shard's samples are in many tars."""
CONNECT_TIMEOUT_S = 5
SILENCE_S = 30
"""Seconds without an answer until a request fails."""

TWO_SLASHES = "a key below it has two slashes in a row, which no folder has: give it another key"

_CODE = re.compile(r"AWS Error ([A-Z_0-9]+)")
_STATUS = re.compile(r"HTTP status (\d{3})")

_REASONS = {
    "NO_SUCH_BUCKET": (FetchError.NOT_FOUND, "no such bucket"),
    "NO_SUCH_KEY": (FetchError.NOT_FOUND, "not found"),
    "RESOURCE_NOT_FOUND": (FetchError.NOT_FOUND, "not found"),
    "ACCESS_DENIED": (FetchError.FORBIDDEN, "permission denied"),
    "INVALID_ACCESS_KEY_ID": (FetchError.FORBIDDEN, "the credentials are refused"),
    "INVALID_CLIENT_TOKEN_ID": (FetchError.FORBIDDEN, "the credentials are refused"),
    "INVALID_SIGNATURE": (FetchError.FORBIDDEN, "the credentials are refused"),
    "SIGNATURE_DOES_NOT_MATCH": (FetchError.FORBIDDEN, "the credentials are refused"),
    "UNRECOGNIZED_CLIENT": (FetchError.FORBIDDEN, "the credentials are refused"),
    "MISSING_AUTHENTICATION_TOKEN": (FetchError.FORBIDDEN, "there are no credentials"),
    "REQUEST_EXPIRED": (FetchError.FORBIDDEN, "the credentials have expired"),
    "REQUEST_TIME_TOO_SKEWED": (FetchError.FORBIDDEN, "this machine's clock is wrong"),
    "SLOW_DOWN": (FetchError.RATE_LIMITED, "slow down"),
    "THROTTLING": (FetchError.RATE_LIMITED, "slow down"),
    "SERVICE_UNAVAILABLE": (FetchError.SERVER_ERROR, "the store is unavailable"),
    "INTERNAL_FAILURE": (FetchError.SERVER_ERROR, "an error inside the store"),
    "REQUEST_TIMEOUT": (FetchError.TIMEOUT, "timed out"),
    "NETWORK_CONNECTION": (FetchError.UNREACHABLE, "no connection"),
}
"""The client's name of an error -> reason and words: its own message may hold the key that was used."""


class ObjectStore(ArrowFSWrapper):
    """A pyarrow file system as fsspec has it: paths are `bucket/key` without a scheme, whatever letters a key has."""

    cachable = False

    def __init__(self, fs: arrow.FileSystem) -> None:
        """`fs` reads; a read is one request, and one more for the size of an object that is first met."""
        super().__init__(fs)
        self.root_marker = ""
        self._files: Lru[str, pa.NativeFile] = Lru(OPEN_FILES)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path.rstrip("/")

    def ls(self, path: str, detail: bool = False, **kwargs: Any) -> list[Any]:
        """As fsspec has it. Raises OSError: it cannot be listed, or holds keys with two slashes in a row, which pyarrow
        leaves out."""
        try:
            listed: list[Any] = super().ls(path, detail=True)
        except pa.ArrowInvalid:
            raise OSError(errno.EINVAL, "no valid path", path) from None
        if any(entry["name"].rstrip("/") == path and entry["type"] == "directory" for entry in listed):
            raise OSError(errno.EINVAL, TWO_SLASHES, path)
        return listed if detail else [entry["name"] for entry in listed]

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        """The bytes of an object, or those from `start` to before `end`. Raises OSError: it cannot be read."""
        if "/" not in path:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        try:
            if start is None:  # all of it is wanted, and it may have grown
                self._files.drop(path)
            file = self._files.get(path, lambda: self.fs.open_input_file(path))
            begin, size = start or 0, file.size()
            end = size if end is None else min(end, size)
            data: bytes = file.read_at(end - begin, begin) if begin < end else b""
        except pa.ArrowInvalid:
            raise OSError(errno.EINVAL, "no valid path", path) from None
        except OSError:
            self._files.drop(path)
            raise
        return data

    def _open(
        self, path: str, mode: str = "rb", block_size: int | None = None, cache_type: str = "readahead", **kwargs: Any
    ) -> Any:
        if mode != "rb":
            raise OSError(errno.EROFS, "object stores are only read")
        info = self.info(path)
        if info["type"] != "file":
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        self._files.drop(path)
        return _StoreFile(self, path, mode, block_size or "default", cache_type=cache_type, size=info["size"])


class _StoreFile(AbstractBufferedFile):
    """An object as a file, read in blocks."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        data: bytes = self.fs.cat_file(self.path, start, end)
        return data


def open_s3(bucket: str) -> ObjectStore:
    """The store that holds a bucket. Raises ValueError: no bucket is named, or the environment names an endpoint that
    is no address."""
    if not bucket:
        raise ValueError("s3://: names no bucket; write s3://BUCKET/FOLDER")
    # a hash: nothing here keeps a secret
    return _open_s3(bucket, hash(frozenset(item for item in os.environ.items() if item[0].startswith("AWS_"))))


@lru_cache(maxsize=16)
def _open_s3(bucket: str, environment: int) -> ObjectStore:
    options: dict[str, Any] = {"connect_timeout": CONNECT_TIMEOUT_S, "request_timeout": SILENCE_S}
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        if os.environ.get(name):
            region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
            return ObjectStore(arrow.S3FileSystem(**options, **_endpoint(name), region=region))
    with suppress(OSError, pa.ArrowInvalid):  # the read that follows reports what is wrong
        options["region"] = arrow.resolve_s3_region(bucket)  # the client looks for it in the environment alone
    return ObjectStore(arrow.S3FileSystem(**options))


def _endpoint(name: str) -> dict[str, str]:
    """An address out of the environment as pyarrow takes it."""
    given = os.environ[name]
    parts = urlsplit(given if "://" in given else f"http://{given}")
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or parts.path.strip("/"):
        raise ValueError(f"{name}: is no address of a server; set it to one like http://localhost:9000")
    return {"endpoint_override": parts.netloc, "scheme": parts.scheme}


def explain_store(error: OSError) -> tuple[FetchError, str] | None:
    """An error of pyarrow's client as a reason and words that name no key; None for any other error."""
    said = " ".join(map(str, error.args))
    found = _CODE.search(said)
    if found is None:
        return None
    code = found[1]
    if code == "NETWORK_CONNECTION" and re.search(r"curlCode: 28\b", said):
        return FetchError.TIMEOUT, "timed out"
    if code in _REASONS:
        return _REASONS[code]
    status = _STATUS.search(said)
    if status is None:
        return FetchError.FETCH_FAILED, code.lower().replace("_", " ")
    return reason_of_status(int(status[1])), f"HTTP {status[1]}"


def reason_of_status(status: int) -> FetchError:
    """The reason of an input whose HTTP status is other than 2xx."""
    if status in (404, 410):
        return FetchError.NOT_FOUND
    if status in (401, 403, 451):
        return FetchError.FORBIDDEN
    if status == 429:
        return FetchError.RATE_LIMITED
    if status == 408:
        return FetchError.TIMEOUT
    return FetchError.SERVER_ERROR if status >= 500 else FetchError.FETCH_FAILED
