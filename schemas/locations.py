"""Paths and URLs of storage: which is which, and how a URL is shown without its secrets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

Location = TypeVar("Location", str, Path)

_REMOTE = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.-]*://")
_SECRET = re.compile(
    r"sig$|signature|token|secret|passw|credential|api[-_]?key|access[-_]?key|^key$|^auth|^x-amz-|^x-goog-|^policy$",
    re.I,
)


def is_remote(path: str) -> bool:
    """Whether a path is a URL (`s3://bucket/photos`) and not one of the local file system."""
    return bool(_REMOTE.match(path))


def public_url(url: str) -> str:
    """A URL without its secrets: no user, no password, no query parameter that signs or authorises."""
    if not is_remote(url):
        return url
    try:
        parts = urlsplit(url)
        query = parse_qsl(parts.query, keep_blank_values=True)
    except ValueError:
        return re.sub(r"//[^/?#]*@", "//", url).partition("?")[0]
    kept = [(name, value) for name, value in query if not _SECRET.search(name)]
    shown = parts.query if len(kept) == len(query) else urlencode(kept)
    if shown == parts.query and "@" not in parts.netloc:
        return url  # which urlunsplit may write otherwise: S3://, s3:///x
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, shown, parts.fragment))


def absolute(path: str) -> str:
    """A local path made absolute, `~` expanded; a URL as it is, without a slash at its end."""
    return path.rstrip("/") if is_remote(path) else str(Path(in_home(path)).absolute())


def on_disk(path: Location) -> Location:
    """A path of this machine, as `in_home` gives it. Raises ValueError: it is an address in a store. `Path` would make
    a local folder called `s3:` of it, and what a run wrote would be lost with its node."""
    if _COLLAPSED.match(str(path)):
        raise ValueError(
            f"{public_url(re.sub(':/+', '://', str(path), count=1))}: a store is no folder, and this is a "
            "place of this machine: name a path here, perhaps one where the store is mounted (docs/cluster.md)"
        )
    return in_home(path)


DATASET_STORES = ("s3", "s3a", "gs", "az", "azure", "adl", "abfs", "abfss")
"""Schemes of the stores that a dataset may be kept in."""


def for_datasets(path: Location) -> Location:
    """A place of a dataset: a path of this machine as `on_disk` gives it, or an address in a store. Raises ValueError:
    datasets cannot be kept there."""
    if not _COLLAPSED.match(str(path)):
        return in_home(path)
    scheme, _, rest = str(path).partition(":")
    scheme = scheme.lower()
    if scheme not in DATASET_STORES:
        raise ValueError(
            f"{public_url(scheme + '://' + rest.lstrip('/'))}: a dataset is kept in a folder, or in a store at "
            f"{', '.join(f'{known}://' for known in DATASET_STORES[:3])}..., where it can be written"
        )
    bucket, *folders = rest.strip("/").split("/")
    if "@" in bucket and scheme in ("s3", "s3a", "gs"):
        raise ValueError(
            f"{scheme}://{bucket.rpartition('@')[2]}: holds a user or a password; set them as docs/cluster.md says"
        )
    if ".." in folders:
        raise ValueError(f"{scheme}://{rest.strip('/')}: an address in a store has no ..; name the folder itself")
    if not bucket:
        raise ValueError(f"{scheme}://: names no bucket; write {scheme}://BUCKET/FOLDER")
    return type(path)(f"{scheme}://{rest.strip('/')}")


_COLLAPSED = re.compile(rf"^(?:[a-zA-Z][a-zA-Z0-9+.-]+:/|(?:{'|'.join(DATASET_STORES)}):$)")
"""A URL, or what `Path` makes of one: `s3:/bucket`. A drive of Windows has one letter."""


def in_home(path: Location) -> Location:
    """A path with `~`, or `~name`, at its beginning replaced by the home directory; any other text as it is. Raises
    ValueError: there is no such user."""
    if not str(path).startswith("~"):
        return path
    try:
        return type(path)(Path(path).expanduser())
    except RuntimeError:
        raise ValueError(f"{path}: there is no such home directory") from None
