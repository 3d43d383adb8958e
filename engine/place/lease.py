"""One writer at a time in a store: an object that its holder beats, and that another takes over once it stands still.

No clocks are compared: who waits looks whether the etag moves, by its own clock.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from engine.place.store import Store, StoreError

log = logging.getLogger(__name__)

BEAT_S = 10.0
"""Seconds between two beats of a holder."""
STILL_S = 35.0
"""A lease whose etag does not move for so long is held by nobody any more."""
LOCK, SHARED, PROBE = ".lock", ".lock-shared", ".probe"


class Lease:
    """A lease that is held; it beats in a thread of its own until it is given back or lost."""

    def __init__(self, store: Store, key: str, etag: str, lost: Callable[[], None]) -> None:
        self._store, self._key, self._etag, self._lost = store, key, etag, lost
        self._end, self._count = threading.Event(), 0
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._thread.start()

    def give_back(self) -> None:
        """End the beats and delete the object."""
        self._end.set()
        self._thread.join()
        if self._etag:
            with suppress(OSError, ValueError):
                self._store.delete([self._key])

    def _beat(self) -> None:
        missed = 0.0
        while not self._end.wait(BEAT_S):
            begun = time.monotonic()
            self._count += 1
            try:
                etag = self._store.swap(self._key, _holder(self._count), self._etag)
            except (StoreError, ValueError):  # the store does not answer: others will find the lease standing still
                missed += BEAT_S + time.monotonic() - begun
                etag = self._etag if missed < STILL_S - 2 * BEAT_S else None
            else:
                missed = 0.0
            self._etag = etag or ""
            if etag is None:
                self._lost()
                return


def _holder(count: int = 0) -> bytes:
    who = {"process": os.getpid(), "host": socket.gethostname(), "beat": count, "token": secrets.token_hex(8)}
    return json.dumps(who).encode()


@contextmanager
def leased(
    store: Store,
    refusal: Callable[[str], str],
    shared: bool = False,
    waiting: Callable[[str], None] | None = None,
    lost: Callable[[], None] | None = None,
) -> Iterator[None]:
    """Hold a dataset in a store for writing.

    Args:
        refusal: makes the error's text from the name of the holder.
        shared: with others that hold it so.
        waiting: is called with the holder before it is watched for `STILL_S`; the default logs it.
        lost: is called from another thread where the lease was taken over, as after a long pause of this machine; the
            default ends the process.

    Raises:
        ValueError: another process holds it, or the store does not do what a lease needs.
    """

    def say(who: str) -> None:
        log.warning("%s: looking for %.0f s whether %s still writes it", store.url(), STILL_S, who)

    waiting = waiting or say
    refuse_unconditional(store)
    key = f"{SHARED}/{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}" if shared else LOCK
    etag = _take(store, key, refusal, waiting)
    lease = Lease(store, key, etag, lost or _end_process)
    try:
        # Whoever comes second of two sees the other: both write their own object before they look for another's.
        others = [LOCK] if shared else [found.key for found in store.below(SHARED)]
        for other in others:
            if (who := _moving(store, other, waiting)) is not None:
                raise ValueError(refusal(who))
        yield
    finally:
        lease.give_back()


def _take(store: Store, key: str, refusal: Callable[[str], str], waiting: Callable[[str], None]) -> str:
    for _ in range(3):
        if (etag := store.create(key, _holder())) is not None:
            return etag
        found = store.find(key)
        if found is None or found.etag is None:
            continue  # it was given back meanwhile
        if (who := _moving(store, key, waiting)) is not None:
            raise ValueError(refusal(who))
        if (etag := store.swap(key, _holder(), found.etag)) is not None:
            return etag
    raise ValueError(refusal("another process"))


def _moving(store: Store, key: str, waiting: Callable[[str], None]) -> str | None:
    """The holder of a lease that moves; None of one that does not, which is deleted where it is of those that share."""
    begun, first = time.monotonic(), store.find(key)
    if first is None:
        return None
    who = _named(store, key)
    waiting(who)
    while time.monotonic() - begun < STILL_S:
        time.sleep(min(1.0, STILL_S / 10))
        now = store.find(key)
        if now is None:
            return None
        if now.etag != first.etag:
            return who
    if key != LOCK:
        store.delete([key])
    return None


def _named(store: Store, key: str) -> str:
    try:
        who: dict[str, Any] = json.loads(store.get(key))
        return f"process {who['process']} on {who['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def refuse_unconditional(store: Store) -> None:
    """Refuse a server that does not do what a lease needs, and answers as if it did.

    Raises:
        ValueError: with what it ignores.
    """
    key = f"{PROBE}-{secrets.token_hex(8)}"
    try:
        first = store.create(key, b"1")
        ignored = "If-None-Match" if store.create(key, b"2") is not None else None
        if ignored is None and store.swap(key, b"3", f'"{secrets.token_hex(16)}"') is not None:
            ignored = "If-Match"
    finally:
        with suppress(OSError, ValueError):
            store.delete([key])
    if first is None or ignored is not None:
        raise ValueError(
            f"{store.url()}: its server ignores {ignored or 'If-None-Match'}, so two commands could write there at "
            "once; use a store with conditional writes, or mount it as a folder (docs/cluster.md)"
        )


def _end_process() -> None:
    """Stop at once: another process writes this dataset now."""
    os.write(2, b"error: another process has taken over the dataset while this one was not heard of; stopped\n")
    os._exit(1)
