"""The least recently used value goes first, by number or by size, and threads may share the cache."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from schemas.lru import Lru


def kept(cache: Lru[str, str]) -> list[str]:
    return list(cache._values)


def fill(cache: Lru[str, str], keys: str) -> None:
    for key in keys:
        assert cache.get(key, key.upper) == key.upper()


def test_the_least_recently_used_value_is_dropped() -> None:
    dropped: list[str] = []
    cache: Lru[str, str] = Lru(3, on_drop=dropped.append)
    fill(cache, "abcad")
    assert dropped == ["B"]
    assert kept(cache) == ["c", "a", "d"]
    assert len(cache) == cache.size == 3


def test_a_kept_value_is_not_made_again() -> None:
    cache: Lru[str, object] = Lru(1)
    value = cache.get("a", object)
    assert cache.get("a", lambda: pytest.fail("made again")) is value
    assert cache.get("b", object) is not value
    assert cache.get("a", object) is not value


def test_sizes_are_bounded_and_the_newest_value_stays() -> None:
    dropped: list[bytes] = []
    cache: Lru[int, bytes] = Lru(10, size_of=len, on_drop=dropped.append)
    for key, num_bytes in enumerate((4, 6, 1)):
        cache.get(key, partial(bytes, num_bytes))
    assert (list(cache._values), cache.size) == ([1, 2], 7)
    assert cache.get(3, lambda: bytes(11)) == bytes(11)
    assert (list(cache._values), cache.size) == ([3], 11)
    cache.get(4, lambda: bytes(10))
    assert (list(cache._values), cache.size) == ([4], 10)
    assert [len(value) for value in dropped] == [4, 6, 1, 11]


def test_drop_and_clear_close_what_they_forget() -> None:
    dropped: list[str] = []
    cache: Lru[str, str] = Lru(5, on_drop=dropped.append)
    fill(cache, "abc")
    cache.drop("b")
    cache.drop("absent")
    assert (dropped, cache.size) == (["B"], 2)
    cache.clear()
    assert (dropped, cache.size, len(cache)) == (["B", "A", "C"], 0, 0)
    fill(cache, "b")
    assert cache.size == 1


def test_none_is_not_kept() -> None:
    cache: Lru[str, str | None] = Lru(5)
    assert cache.get("a", lambda: None) is None
    assert len(cache) == 0
    assert cache.get("a", lambda: "A") == "A"


def test_a_value_that_cannot_be_made_leaves_nothing() -> None:
    cache: Lru[str, float] = Lru(5)
    with pytest.raises(ZeroDivisionError):
        cache.get("a", lambda: 1 / 0)
    assert len(cache) == 0
    assert cache.get("a", lambda: 1.0) == 1.0


def test_two_threads_that_make_one_value_get_the_same() -> None:
    dropped: list[object] = []
    cache: Lru[str, object] = Lru(5, on_drop=dropped.append)
    both = threading.Barrier(2)

    def make() -> object:
        both.wait(timeout=10)
        return object()

    with ThreadPoolExecutor(2) as pool:
        first, second = [future.result() for future in [pool.submit(cache.get, "a", make) for _ in range(2)]]
    assert first is second
    assert (len(dropped), dropped[0] is not first, cache.size) == (1, True, 1)


def test_threads_never_see_another_keys_value() -> None:
    cache: Lru[int, int] = Lru(7)

    def check(number: int) -> None:
        key = number * 31 % 20
        assert cache.get(key, lambda: key * key) == key * key

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(check, range(2000)))
    assert len(cache) == cache.size == 7
