"""Reach local and remote storage through one door: a client for each kind of URL, and its errors as reasons."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import fsspec

from curation.images.header import Unreadable
from curation.sources.stores import CONNECT_TIMEOUT_S, SILENCE_S, explain_store, open_s3, reason_of_status
from schemas.files import open_descriptor
from schemas.locations import is_remote
from schemas.reasons import TRANSIENT, FetchError, ImageError
from schemas.unread import PASSING

ATTEMPTS = 3
"""How often a read is tried that fails for a passing reason."""
FIRST_PAUSE_S = 0.5
_PIECE = 1 << 20

PACKAGES = {"gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "abfss": "adlfs", "az": "adlfs"}
"""Scheme -> the package that fsspec needs for it; all are in the `cloud` extra."""

_LOCAL_SCHEMES = {"file", "local", "memory", "dir", "reference", "generic", "data", "zip", "tar", "libarchive"} | {
    "cached",
    "blockcache",
    "filecache",
    "simplecache",
}
KNOWN_SCHEMES = (frozenset(fsspec.available_protocols()) | {"s3", "s3a"}) - _LOCAL_SCHEMES
"""Schemes of addresses in tables: those of a network, which lead to nothing on this machine."""

Result = TypeVar("Result")


def remote_errors() -> tuple[type[Exception], ...]:
    """Errors of reading from a remote storage; timeouts are OSErrors too."""
    import aiohttp  # which takes longer than all else of a command over a finished dataset

    return (OSError, aiohttp.ClientError)


class NoClient(ValueError):
    """The client of a kind of URL is not installed; the message names the command that installs it."""


class RemoteError(OSError):
    """A remote input could not be read; the reason is one for the ledger."""

    def __init__(self, reason: FetchError, detail: str) -> None:
        """`strerror` is the detail, as of any OSError."""
        super().__init__(errno.EIO, detail)
        self.reason = reason
        self.detail = detail


def unreadable(error: OSError) -> Unreadable:
    """An error of reading an input as the reason of its row."""
    if isinstance(error, RemoteError):
        return Unreadable(error.reason, error.detail)
    if isinstance(error, IsADirectoryError):
        return Unreadable(ImageError.UNREADABLE, "a folder that cannot be listed")
    return Unreadable(ImageError.UNREADABLE, error.strerror or type(error).__name__)


def may_pass(error: OSError) -> bool:
    """Whether an error of reading is one of the disk or the server, and not of the file."""
    return error.reason in TRANSIENT if isinstance(error, RemoteError) else error.errno in PASSING


def not_listed(path: str, error: OSError) -> ValueError:
    """The error of a folder that cannot be listed."""
    what_now = "or run again once it can be" if may_pass(error) else "and the rights"
    return ValueError(f"{path}: cannot be listed ({error.strerror or 'not found'}); check the spelling {what_now}")


def why(path: str, error: Exception) -> str:
    """An error of reading a local or remote file in words that name no address and no key."""
    if is_remote(path) and isinstance(error, remote_errors()):
        return explain(error).detail
    return getattr(error, "strerror", None) or " ".join(str(error).split())


def read_file(path: str, most_bytes: int | None = None) -> bytes:
    """The bytes of a local file. Raises OSError: as of `open_descriptor`, or it has more than `most_bytes`."""
    descriptor, size = open_descriptor(path)
    with os.fdopen(descriptor, "rb") as file:
        check_size(size, most_bytes)
        data = file.read(size + 1)  # memory for `most_bytes` takes longer than reading a photograph
        if len(data) > size:  # it grows, or is one of those whose size is never known
            data += file.read() if most_bytes is None else file.read(most_bytes + 1 - len(data))
            check_size(len(data), most_bytes)
        return data


def check_size(num_bytes: int | None, most_bytes: int | None) -> None:
    """Refuse what is larger than it may be, before it is read. Raises OSError: it is."""
    if most_bytes is not None and num_bytes is not None and num_bytes > most_bytes:
        raise OSError(errno.EFBIG, f"{num_bytes:,} bytes or more, of which {most_bytes:,} at most are read")


def is_within(link: str, folder: str) -> bool:
    """Whether a link leads to a file below a folder, which is given without links."""
    return os.path.realpath(link).startswith(folder.rstrip("/") + "/")


def is_there(folder: str) -> bool:
    """Whether a folder can be listed and holds something: the place of a disk that is unmounted is an empty folder."""
    try:
        with os.scandir(Path(folder)) as entries:
            return any(True for _ in entries)
    except OSError:
        return False


def filesystem(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL or a local path, and the path in it. Raises ValueError: no such scheme, or the
    package for it is not installed; the message names the command."""
    if not is_remote(url):
        return fsspec.filesystem("file"), url
    scheme, _, rest = url.partition("://")
    scheme = scheme.lower()
    if scheme in ("s3", "s3a"):
        return open_s3(rest.partition("/")[0]), rest.rstrip("/")
    try:
        fs, path = fsspec.core.url_to_fs(url, **_patience(scheme))
    except ImportError as error:
        package = PACKAGES.get(scheme)
        how = f"pip install {package}" if package else " ".join(str(error).split())
        raise NoClient(f"{scheme}://: its client is not installed; {how}") from None
    except ValueError as error:
        raise ValueError(f"{scheme}://: {' '.join(str(error).split())}; name a scheme that fsspec knows") from None
    return fs, str(path)


def _patience(scheme: str) -> dict[str, Any]:
    """Options of the client for web servers, which waits five minutes for one that has fallen silent; a file has these
    minutes as a whole."""
    if scheme not in ("http", "https"):
        return {}
    import aiohttp

    most = aiohttp.ClientTimeout(total=300, sock_connect=CONNECT_TIMEOUT_S, sock_read=SILENCE_S)
    return {"client_kwargs": {"timeout": most}}


def why_no_address(url: str) -> str | None:
    """Why a URL can never be read, whatever is installed; None where it may be."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return "no address: its host or port is none"
    return None if parts.scheme in KNOWN_SCHEMES else f"no address: nothing knows {parts.scheme}://"


def read_remote(
    url: str, begin: int | None = None, num_bytes: int | None = None, most_bytes: int | None = None
) -> bytes:
    """The bytes of a remote file, or a range of them and nothing else. Raises RemoteError: it cannot be read, after a
    few attempts where that may help, or a web server sends more than `most_bytes`, whatever it has said before."""
    fs, path = filesystem(url)
    if begin is None and most_bytes is not None and url.lower().startswith(("http://", "https://")):
        return patiently(lambda: _read_web(fs, path, most_bytes))
    end = None if begin is None or num_bytes is None else begin + num_bytes
    data: bytes = patiently(lambda: fs.cat_file(path, start=begin, end=end))
    if begin is not None and num_bytes is not None and len(data) > num_bytes:
        return data[begin : begin + num_bytes]  # a server that knows no ranges sends everything
    return data


def _read_web(fs: Any, path: str, most_bytes: int) -> bytes:
    with fs.open(path, "rb", block_size=0, size=1) as answer:  # streamed, without asking for its size before
        data = bytearray()
        while piece := answer.read(_PIECE):
            data += piece
            if len(data) > most_bytes:
                raise RemoteError(FetchError.FETCH_FAILED, f"more than {most_bytes:,} bytes, which are not read")
    return bytes(data)


def patiently(read: Callable[[], Result]) -> Result:
    """The result of `read`, which is tried again after a pause where its error may pass. Raises RemoteError: of the
    last attempt."""
    for attempt in range(ATTEMPTS):
        try:
            return read()
        except remote_errors() as error:
            failed = explain(error)
            if failed.reason not in TRANSIENT or attempt == ATTEMPTS - 1:
                raise failed from None
        time.sleep(FIRST_PAUSE_S * 2**attempt)
    raise AssertionError("unreachable")


def explain(error: Exception) -> RemoteError:
    """An error of a storage client as a reason and a detail that names no address and no key."""
    import aiohttp

    if isinstance(error, RemoteError):
        return error
    if isinstance(error, FileNotFoundError) and isinstance(error.__cause__, remote_errors()):
        return explain(error.__cause__)  # fsspec raises it for any answer that it cannot use
    if isinstance(error, aiohttp.ClientResponseError):
        return RemoteError(reason_of_status(error.status), f"HTTP {error.status}")
    if isinstance(error, FileNotFoundError | IsADirectoryError):
        return RemoteError(FetchError.NOT_FOUND, "not found")
    if isinstance(error, PermissionError):
        return RemoteError(FetchError.FORBIDDEN, "permission denied")
    if isinstance(error, TimeoutError):
        return RemoteError(FetchError.TIMEOUT, "timed out")
    if isinstance(error, aiohttp.InvalidURL):
        return RemoteError(FetchError.BAD_URL, "not a valid URL")
    if isinstance(error, aiohttp.ClientPayloadError):
        return RemoteError(FetchError.TIMEOUT, "the answer stopped half way")
    if isinstance(error, OSError) and (said := explain_store(error)) is not None:
        return RemoteError(*said)
    if isinstance(error, OSError) and error.errno == errno.EINVAL:
        return RemoteError(FetchError.BAD_URL, error.strerror or "not a valid path")
    return RemoteError(FetchError.UNREACHABLE, type(error).__name__)
