"""Listings side by side: every object once, in order, whatever the names and however the server lists."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import obstore
import pytest
from obstore.store import MemoryStore

from engine.place import listing
from engine.place.listing import pages_below
from tests.memory_store import counted_requests


def part(number: int) -> str:
    return f"part-{number:05d}.{number * 7919 % 0xFFFFFF:012x}.parquet"


NAMES = {
    "tables": [f"d s/tables/{table}/{part(number)}" for table in ("a", "b/c", "b", "e") for number in range(60)],
    "one long folder": [f"d s/tables/samples/{part(number)}" for number in range(40_000, 160_000, 400)],
    "shards": [
        f"d s/shards/{bucket}/{bucket}-{n:06d}.tar" for bucket in ("0.68", "1.0") for n in range(0, 90_000, 600)
    ],
    "digests": [f"d s/paid/{random.Random(number).randbytes(6).hex()}.parquet" for number in range(200)],
    "odd names": [f"d s/Grüße #{n % 7}?/50%{n:05d} ~世界+{n}" for n in range(200)] + ["d s/tables0", "d s/tables/b0"],
    "no folder": [f"{number:05d}" for number in range(0, 100_000, 500)],
}
"""Keys in a bucket."""


def filled(keys: list[str]) -> MemoryStore:
    client = MemoryStore()
    for key in keys:
        obstore.put(client, key, b"1")
    return client


@pytest.fixture(autouse=True)
def small_pages() -> Iterator[None]:
    with patch.multiple(listing, PAGE=8, LONG=3):
        yield


def listed(client: Any, below: str) -> list[str]:
    return [found["path"] for page in pages_below(client, below) for found in page]


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("below", ["", "d s", "d s/tables", "d s/tables/samples", "d s/tables/b", "d s/nothing"])
def test_every_object_is_listed_once_and_in_order(names: str, below: str) -> None:
    expected = sorted(key for key in NAMES[names] if not below or key.startswith(f"{below}/"))
    assert listed(filled(NAMES[names]), below) == expected


def test_azure_is_listed_from_the_first_key_on_alone() -> None:
    """Some of its servers find nothing behind a key, and others list all that is before it too."""
    begun, send = list[Any](), obstore.list

    def noted(*arguments: Any, offset: str | None = None, **named: Any) -> Iterator[Any]:
        begun.append(offset)
        return send(*arguments, offset=offset, **named)

    keys = NAMES["tables"]
    with patch.object(listing, "AzureStore", MemoryStore), patch.object(obstore, "list", noted):
        assert listed(filled(keys), "") == sorted(keys)
    assert begun == [None]


def test_folders_and_parts_of_a_long_one_are_listed_side_by_side() -> None:
    """Each answer takes 20 ms, and as many at a time as there are threads."""
    names, waiting, most, send = NAMES["tables"] + NAMES["one long folder"], list[int](), [0], obstore.list

    def slow(*arguments: Any, **named: Any) -> Iterator[Any]:
        for page in send(*arguments, **named):
            waiting.append(1)
            most[0] = max(most[0], len(waiting))
            time.sleep(0.02)
            waiting.pop()
            yield page

    with patch.object(obstore, "list", slow):
        assert listed(filled(names), "d s") == sorted(names)
    assert 4 <= most[0] <= listing.AT_ONCE


def test_what_fits_into_one_answer_is_one_request() -> None:
    client, threads = filled(NAMES["tables"][:7]), threading.active_count()
    with counted_requests() as requests:
        assert len(listed(client, "d s")) == 7
    assert requests["list"] == 1 and threading.active_count() == threads


def test_who_asks_whether_there_is_anything_asks_once() -> None:
    with counted_requests() as requests:
        assert next(pages_below(filled(NAMES["tables"]), "d s"))
    assert requests["list"] == 1


def from_the_front(send: Callable[..., Any]) -> Callable[..., Any]:
    return lambda client, prefix, offset=None, chunk_size=1: send(client, prefix, chunk_size=chunk_size)


def in_any_order(send: Callable[..., Any]) -> Callable[..., Any]:
    def listing_by_hash(client: Any, prefix: str, offset: str | None = None, chunk_size: int = 1) -> Iterator[Any]:
        found = sorted(send(client, prefix).collect(), key=lambda meta: hash(meta["path"]))
        begun = next((at for at, meta in enumerate(found, 1) if meta["path"] == offset), 0)
        for at in range(begun, len(found), chunk_size):
            yield found[at : at + chunk_size]

    return listing_by_hash


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("server", [from_the_front, in_any_order])
def test_a_server_that_lists_otherwise_hides_nothing(names: str, server: Callable[..., Any]) -> None:
    """One that cannot begin behind a key, and one that lists in no order, as S3's directory buckets do."""
    client = filled(NAMES[names])
    with patch.object(obstore, "list", server(obstore.list)):
        assert sorted(listed(client, "")) == sorted(NAMES[names])


def test_the_error_of_a_part_is_raised_and_nothing_is_listed_any_more() -> None:
    send, asked = obstore.list, list[str | None]()

    def failing(*arguments: Any, offset: str | None = None, **named: Any) -> Any:
        asked.append(offset)
        if offset is not None and offset >= "d s/tables/b":
            raise PermissionError("no")
        return send(*arguments, offset=offset, **named)

    with patch.object(obstore, "list", failing), pytest.raises(PermissionError, match="no"):
        listed(filled(NAMES["tables"]), "d s")
    before = len(asked)
    time.sleep(0.1)
    assert len(asked) == before
