"""A bounded cache that drops the least recently used value."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Lru(Generic[K, V]):
    """The values that were used last, for several threads. The oldest are dropped while all are larger than `max_size`
    by `size_of`, in its unit such as bytes (without it a value counts as one); the newest always stays. `on_drop` is
    called with each value that leaves, for instance to close it, though another thread may still use it."""

    def __init__(
        self,
        max_size: int,
        size_of: Callable[[V], int] = lambda value: 1,
        on_drop: Callable[[V], object] = lambda value: None,
    ) -> None:
        self.size = 0
        self._max_size, self._size_of, self._on_drop = max_size, size_of, on_drop
        self._values: OrderedDict[K, V] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: K, make: Callable[[], V]) -> V:
        """The value of `key`; `make()` makes it where the cache has none. `make` runs without the lock, so that slow
        values of several keys are made at once. Where two threads make the value of one key, both get the first, and
        the other is dropped. None is returned but not kept."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        made = make()
        if made is None:
            return made
        with self._lock:
            if key in self._values:
                self._on_drop(made)
            else:
                self._values[key] = made
                self.size += self._size_of(made)
            self._values.move_to_end(key)
            while self.size > self._max_size and len(self._values) > 1:
                self._drop(next(iter(self._values)))
            return self._values[key]

    def drop(self, key: K) -> None:
        """Forget the value of `key` if there is one."""
        with self._lock:
            if key in self._values:
                self._drop(key)

    def clear(self) -> None:
        with self._lock:
            for key in list(self._values):
                self._drop(key)

    def _drop(self, key: K) -> None:
        value = self._values.pop(key)
        self.size -= self._size_of(value)
        self._on_drop(value)
