"""An object store: whole objects, ranges, listings, and writes on a condition, for every cloud alike."""

from __future__ import annotations

import errno
import io
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import obstore
from obstore import exceptions as refused
from obstore.store import from_url

from engine.place.listing import pages_below
from schemas.files import aside_of, make_folder
from schemas.locations import public_url
from schemas.unread import StoreError, naming_the_disk

RETRIES, RETRY_S = 10, 180
"""A request that the server could not answer for now (SlowDown, 5xx, a connection cut) is sent again so often, and for
so many seconds at most."""
ANSWER_S = 600
"""Seconds that one request may take: a part of a large object over a slow line."""
_DENIED = (refused.PermissionDeniedError, refused.UnauthenticatedError, PermissionError)
_REFUSED = re.compile(
    r"\b40[13] (Forbidden|Unauthorized)|^(ExpiredToken|InvalidToken|InvalidAccessKeyId|AccessDenied)"
    r"|HEAD .*400 Bad Request"  # an expired token, where the answer has no text
)
"""Says in an answer that the credentials do not suffice; listings have no error of their own for it."""
_PAST_ITS_END = re.compile(r"status code: 416|range starting at \d+, but object was only")
_NO_CREDENTIALS = re.compile(r"169\.254\.169\.254|metadata\.google\.internal")
"""Where a client looks last, on machines of a cloud."""
_made: Any = from_url  # its types are those of every cloud's options
_processes = set[int]()
"""This process, once it has used a store; in one that is forked then its parent too."""


class Found(NamedTuple):
    key: str
    size: int
    etag: str | None
    written: float | None = None
    """When it was, in seconds by the store's clock; of objects that were listed."""


def other_than(etag: str) -> str:
    """An etag of the same form that is another one."""
    return re.sub(r"\d", lambda digit: str(9 - int(digit[0])), etag)


@dataclass(frozen=True)
class Store:
    """The objects of a store whose keys begin with a prefix. It may be pickled, and used by several threads."""

    bucket: str
    """The address of the bucket, such as s3://bucket or az://container."""
    prefix: str = ""
    """Of every key, without a slash at its end."""

    @classmethod
    def at(cls, url: str) -> Store:
        """The store at an address such as s3://bucket/folder; nothing is sent. Raises ValueError: the address names no
        bucket."""
        scheme, _, rest = url.partition("://")
        bucket, _, prefix = rest.rstrip("/").partition("/")
        if not bucket:
            raise ValueError(f"{url}: names no bucket; write {scheme}://BUCKET/FOLDER")
        return cls(f"{scheme}://{bucket}", prefix)

    def url(self, key: str = "") -> str:
        return "/".join(name for name in (self.bucket, self.prefix, key) if name)

    def get(self, key: str) -> bytes:
        """A whole object. Raises FileNotFoundError, StoreError: it is not there, or cannot be read; so do the other
        methods."""
        with self._naming(key):
            return obstore.get(self._client, self._key(key)).bytes().to_bytes()

    def piece(self, key: str, begin: int, end: int) -> bytes:
        """The bytes [begin, end) of an object; fewer or none where it ends before."""
        try:
            with self._naming(key):
                return obstore.get_range(self._client, self._key(key), start=begin, end=end).to_bytes()
        except StoreError as error:
            if _PAST_ITS_END.search(str(error)):
                return b""
            raise

    def find(self, key: str) -> Found | None:
        """What the store says about an object; None where there is none, as of the bucket itself."""
        if not self._key(key):
            return None
        try:
            with self._naming(key):
                meta = obstore.head(self._client, self._key(key))
        except FileNotFoundError:
            return None
        return Found(key, meta["size"], self._version(meta))

    def fetch(self, key: str, path: Path) -> None:
        """Write an object to a file of this machine, which is there whole or not at all."""
        with self._naming(key):
            answer = obstore.get(self._client, self._key(key))
        make_folder(path.parent)
        aside = aside_of(path)
        try:
            with naming_the_disk(path), aside.open("wb") as file, self._naming(key):
                for chunk in answer:
                    file.write(chunk)
            aside.rename(path)  # it can be fetched again, so nothing waits for the disk
        finally:
            aside.unlink(missing_ok=True)

    def put(self, key: str, data: bytes | Path) -> Found:
        """Write an object from memory or from a file: it is there whole, in place of what was there, or not at all."""
        with self._naming(key):
            made = obstore.put(self._client, self._key(key), data)
        return Found(key, len(data) if isinstance(data, bytes) else data.stat().st_size, made["e_tag"])

    def create(self, key: str, data: bytes) -> str | None:
        """Write an object that is not there yet, and give its etag; None where it is there."""
        return self._put_if(key, data, "create")

    def swap(self, key: str, data: bytes, etag: str) -> str | None:
        """Write an object in place of the one with an etag, and give its new one; None where it is another one."""
        return self._put_if(key, data, {"e_tag": etag, "version": etag})

    def _put_if(self, key: str, data: bytes, mode: Any) -> str | None:
        try:
            with self._naming(key):
                made = obstore.put(self._client, self._key(key), data, mode=mode, use_multipart=False)
        except (FileExistsError, FileNotFoundError):
            return None
        return self._version(made) or ""

    def _version(self, of: Any) -> str | None:
        """What a condition names of an object: its etag, or in GCS, which knows no other one, its generation."""
        version: str | None = of["version" if self.bucket.startswith("gs://") else "e_tag"]
        return version

    def refuse_versions(self) -> None:
        """Refuse a store that keeps what is deleted or replaced, as a versioned bucket does; one object is written.
        Raises ValueError: it does; the message says what to do."""
        key = f".probe-{secrets.token_hex(8)}"
        with self._naming(key):
            made = obstore.put(self._client, self._key(key), b"")
        self.delete([key])
        try:  # GCS gives a version to what it does not keep
            with self._naming(key):
                is_kept = made["version"] not in (None, "null") and obstore.get(
                    self._client, self._key(key), options={"version": made["version"]}
                )
        except FileNotFoundError:
            return
        if is_kept:
            raise ValueError(
                f"{self.bucket} keeps old versions of its objects, so what is taken out would stay there: suspend "
                "versioning, let a lifecycle rule delete versions that are not current, and run the same command again"
            )

    def below(self, folder: str = "") -> Iterator[Found]:
        """Every object below a folder, by key; without the empty ones that consoles mark folders with."""
        below = self._key(folder)
        with self._naming(folder):
            for page in pages_below(self._client, below):
                for meta in sorted(page, key=lambda meta: meta["path"]):
                    if not meta["size"]:
                        continue
                    written = meta["last_modified"].timestamp()
                    yield Found(self._relative(meta["path"]), meta["size"], meta["e_tag"], written)

    def names(self, folder: str = "") -> tuple[list[str], dict[str, int]]:
        """The names of the folders and of the objects directly in a folder, these with their sizes in bytes."""
        with self._naming(folder):
            found = obstore.list_with_delimiter(self._client, self._key(folder) or None)
        folders = [prefix.rstrip("/").rpartition("/")[2] for prefix in found["common_prefixes"]]
        sizes = {meta["path"].rpartition("/")[2]: meta["size"] for meta in found["objects"] if meta["size"]}
        return sorted(folders), dict(sorted(sizes.items()))

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; those that are not there are no error."""
        paths = [self._key(key) for key in keys]
        if not paths:
            return
        try:
            with self._naming(self._relative(paths[0])):
                obstore.delete(self._client, paths)
        except FileNotFoundError:  # clouds that delete them one by one stop at one that is gone already
            for path in paths:
                with suppress(FileNotFoundError), self._naming(self._relative(path)):
                    obstore.delete(self._client, [path])

    def copy(self, key: str, target: str) -> None:
        with self._naming(key):
            obstore.copy(self._client, self._key(key), self._key(target))

    def open(self, key: str, size: int | None = None) -> io.BufferedReader:
        """An object as a file to read; only the bytes that are read are sent. `size`: its size, where it is known."""
        if size is None and (found := self.find(key)) is not None:
            size = found.size
        if size is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.url(key))
        return io.BufferedReader(_Reading(self, key, size), 1 << 18)

    @property
    def _client(self) -> Any:
        _processes.add(os.getpid())
        assert len(_processes) == 1, "its parent has used stores, whose threads a process that is forked lacks"
        return _client(self.bucket)

    def _key(self, key: str) -> str:
        return "/".join(name for name in (self.prefix, key) if name)

    def _relative(self, path: str) -> str:
        return path.removeprefix(self.prefix).lstrip("/") if self.prefix else path

    @contextmanager
    def _naming(self, key: str) -> Iterator[None]:
        """Say which object an error is about, in one line and without secrets."""
        try:
            yield
        except (refused.NotFoundError, FileNotFoundError) as error:
            self._refuse_no_bucket(error)
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.url(key)) from None
        except (refused.AlreadyExistsError, refused.PreconditionError, FileExistsError):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), self.url(key)) from None
        except (refused.BaseError, PermissionError) as error:
            self._refuse_no_bucket(error)
            said = _said(error)
            if _NO_CREDENTIALS.search(said):
                raise ValueError(
                    f"{self.url(key)}: no credentials were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
                    "what docs/cluster.md names for other stores"
                ) from None
            if "invalid path" in said:
                raise ValueError(f"{self.url(key)}: {said}; delete that object, or rename it") from None
            if _REFUSED.search(said) or isinstance(error, _DENIED):
                shown: Any = re.search(r"^\w+(?=: )|\b40\d [A-Z]\w+( [A-Z]\w+)*", said) or [said]
                raise ValueError(
                    f"{self.url(key)}: the store refuses access ({shown[0]}); check the credentials (docs/cluster.md) "
                    "and this machine's clock"
                ) from None
            raise StoreError(f"{self.url(key)}: {said}") from None

    def _refuse_no_bucket(self, error: Exception) -> None:
        if "NoSuchBucket" in str(error) or "ContainerNotFound" in str(error):
            raise ValueError(f"{self.bucket}: there is no such bucket") from None


class _Reading(io.RawIOBase):
    """An object as a file; each read is one request."""

    def __init__(self, store: Store, key: str, size: int) -> None:
        self._store, self._key, self._size, self._at = store, key, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = max(0, offset + (0, self._at, self._size)[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        end = min(self._at + len(buffer), self._size)
        if end <= self._at:
            return 0
        data = self._store.piece(self._key, self._at, end)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


@cache
def _client(bucket: str) -> Any:
    options: dict[str, Any] = {"timeout": f"{ANSWER_S} seconds", "connect_timeout": "20 seconds"}
    keys: dict[str, Any] = {}
    if bucket.startswith(("s3://", "s3a://")):
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        if endpoint:
            endpoint = endpoint if "://" in endpoint else f"http://{endpoint}"
            if not re.match(r"https?://[^/]", endpoint):  # the client would panic
                raise ValueError(
                    f"AWS_ENDPOINT_URL={public_url(endpoint)}: write it as http://HOST:PORT or https://HOST"
                )
            keys["endpoint"] = endpoint
            options["allow_http"] = endpoint.startswith("http://")
        if (provider := _profile()) is not None:
            keys["credential_provider"] = provider
    elif os.environ.get("AZURE_STORAGE_USE_EMULATOR"):
        options["allow_http"] = True
    retry: Any = {"max_retries": RETRIES, "retry_timeout": timedelta(seconds=RETRY_S)}
    try:
        return _made(bucket, client_options=options, retry_config=retry, **keys)
    except (refused.BaseError, ValueError) as error:
        needs = "docs/cluster.md says what each store needs"
        raise ValueError(f"{public_url(bucket)}: {_said(error)}; {needs}") from None


def _profile() -> Any:
    """Credentials of a profile or a single sign-on, which botocore finds where it is installed; None where the
    environment has keys, or nothing is found."""
    if os.environ.get("AWS_ACCESS_KEY_ID") or os.environ.get("AWS_WEB_IDENTITY_TOKEN_FILE"):
        return None
    try:
        from obstore.auth.boto3 import Boto3CredentialProvider

        return Boto3CredentialProvider()
    except (ImportError, ValueError):
        return None


def _said(error: Exception) -> str:
    """What a store says, in one line that begins with its own word for it."""
    text = str(error).partition("\n\nDebug source")[0]
    code = re.search(r"<Code>(\w+)</Code>", text)
    said = " ".join(re.split(r"<\?xml|<Error", text)[0].split()).rstrip(": ")[:300]
    return f"{code[1]}: {said}" if code else said
