"""A store in memory for tests whose subject is the dataset, not the server; and kill -9 before one of its writes."""

from __future__ import annotations

import hashlib
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import obstore
from obstore.store import MemoryStore

from engine.names import _record_of
from tests.dying import Died

URL = "s3://bucket/ds"
"""Of the dataset in it."""

_NOWHERE = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none"}
"""For clients that do not know of the store in memory."""


REQUESTS = ("put", "get", "get_range", "head", "list", "list_with_delimiter", "delete", "copy")


@contextmanager
def counted_requests() -> Iterator[Counter[str]]:
    """The requests sent inside by kind, but for the beats of a lease; one deletes up to a thousand objects."""
    counts = Counter[str]()

    def counting(kind: str, send: Callable[..., Any]) -> Callable[..., Any]:
        def sent(*arguments: Any, **named: Any) -> Any:
            counts[kind] += "mode" not in named
            return send(*arguments, **named)

        return sent

    with patch.multiple(obstore, **{kind: counting(kind, getattr(obstore, kind)) for kind in REQUESTS}):
        yield counts


class Memory:
    """What a bucket holds; whoever uses it is a machine with a scratch folder of its own."""

    def __init__(self, objects: Mapping[str, bytes] | None = None) -> None:
        self.client = MemoryStore()
        for key, data in (objects or {}).items():
            obstore.put(self.client, key, data)

    @contextmanager
    def used(self, scratch: str | Path, dies_at: int | None = None, backwards: bool = False) -> Iterator[list[int]]:
        """Use it from here on, and die before the n-th write. Each object of those deleted at once counts for itself.

        Args:
            backwards: delete the last of them first.

        Yields:
            A list whose one number is how many writes are left.
        """
        left = [sys.maxsize if dies_at is None else dies_at]
        put, delete, copy = obstore.put, obstore.delete, obstore.copy

        def dying(send: Callable[..., Any]) -> Callable[..., Any]:
            def sent(*arguments: Any, **named: Any) -> Any:
                if "mode" not in named:  # the lease of a process that died stays, and stands still
                    left[0] -= 1
                if left[0] < 0:
                    raise Died
                return send(*arguments, **named)

            return sent

        def delete_each(store: Any, keys: list[str]) -> None:
            for key in reversed(keys) if backwards else keys:
                dying(delete)(store, [key])

        _record_of.cache_clear()  # the etags of each such store begin anew
        with (
            patch("engine.place.store._client", lambda bucket: self.client),
            patch.dict(os.environ, _NOWHERE, SIGMA_SCRATCH=str(scratch)),
            patch.multiple(obstore, put=dying(put), copy=dying(copy), delete=delete_each),
        ):
            yield left

    def objects(self) -> dict[str, bytes]:
        """Everything in it but the lease of a process that died."""
        found = (meta["path"] for page in obstore.list(self.client) for meta in page)
        return {key: obstore.get(self.client, key).bytes().to_bytes() for key in found if "/.lock" not in key}

    def content(self, folders: tuple[str, ...] = ("tables", "shards")) -> dict[str, str]:
        """As `tests.trees.content`, of the dataset in it."""
        found = {key.removeprefix("ds/"): data for key, data in self.objects().items()}
        return {key: hashlib.sha256(found[key]).hexdigest() for key in sorted(found) if key.startswith(folders)}
