"""One writer at a time in a store: an object that its holder beats, and that another takes over once it moves no more.
No clocks are compared: who waits looks whether the etag moves, by its own clock. A holder that was not heard of for
long, as after a pause of its machine, beats before it writes anything, and stops where another has taken over."""

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

from engine.place.store import Store, other_than
from schemas.unread import StoreError

log = logging.getLogger(__name__)

BEAT_S = 10.0
"""Seconds between two beats of a holder; more where the store takes longer to answer."""
STILL_S = 35.0
"""A lease whose etag does not move for so long is held by nobody any more."""
SLOW_S = 2.0
"""A store that takes longer for an answer is spoken of: a command sends many requests one after the other."""
LOCK, SHARED = ".lock", ".lock-shared"

_held: set[Lease] = set()
"""The leases of this process."""


class Lease:
    """A lease that is held; it beats in a thread of its own until it is given back or lost."""

    def __init__(self, store: Store, key: str, token: str, etag: str, lost: Callable[[], None]) -> None:
        self._store, self._key, self._token, self._etag, self._lost = store, key, token, etag, lost
        self._end, self._beating, self._beaten = threading.Event(), threading.Lock(), time.monotonic()
        _held.add(self)
        self._thread = threading.Thread(target=self._beat_on, name="lease", daemon=True)
        self._thread.start()

    def assure(self) -> None:
        """See that the lease is still held, where its last beat was long ago. Raises ValueError, StoreError: it was
        taken over, or the store does not answer."""
        if time.monotonic() - self._beaten > STILL_S / 2:
            self._beat(STILL_S / 2)
        if not self._etag:
            raise ValueError(f"{self._store.url()}: another process has taken over the dataset")

    def give_back(self) -> None:
        """End the beats and delete the object, where it is still that of this lease."""
        self._end.set()
        try:
            with suppress(OSError, ValueError):
                self.assure()
                with self._beating:
                    self._store.delete([self._key])
                    self._etag = ""
        finally:
            _held.discard(self)

    def _beat_on(self) -> None:
        while not self._end.wait(max(0.0, self._beaten + BEAT_S - time.monotonic())):
            try:
                self._beat()
            except (StoreError, ValueError):  # the next answer says whether another has taken over meanwhile
                self._end.wait(BEAT_S / 10)

    def _beat(self, age: float = 0) -> None:
        """Beat, where the last beat was at least so many seconds ago."""
        with self._beating:
            begun = time.monotonic()
            if not self._etag or begun - self._beaten < age:
                return
            etag = self._store.swap(self._key, _holder(self._token), self._etag)
            if etag is None:  # a beat whose answer was lost has arrived all the same
                etag = _etag_of(self._store, self._key, self._token)
            self._etag = etag or ""
            if etag is not None:
                self._beaten = begun
                return
            self._end.set()
        self._lost()


def assure() -> None:
    """See that every lease of this process is still held, before it writes or deletes something; see `Lease.assure`."""
    for lease in list(_held):
        lease.assure()


def give_all_back() -> None:
    """Give back every lease of this process, which ends."""
    for lease in list(_held):
        lease.give_back()


def _holder(token: str) -> bytes:
    who = {"process": os.getpid(), "host": socket.gethostname(), "token": token, "beat": secrets.token_hex(8)}
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

    waiting, token = waiting or say, secrets.token_hex(8)
    key = f"{SHARED}/{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}" if shared else LOCK
    etag = _take(store, key, token, refusal, waiting)
    try:
        begun = time.monotonic()
        _refuse_unconditional(store, key, etag)
        if (answer_s := (time.monotonic() - begun) / 2) > SLOW_S:
            log.warning("%s: the store takes %.0f s for an answer, so all takes long", store.url(), answer_s)
    except BaseException:
        with suppress(OSError, ValueError):
            store.delete([key])
        raise
    lease = Lease(store, key, token, etag, lost or _end_process)
    try:
        # Whoever comes second of two sees the other: both write their own object before they look for another's.
        others = [LOCK] if shared else [found.key for found in store.below(SHARED)]
        for other in others:
            if (who := _moving(store, other, waiting)) is not None:
                raise ValueError(refusal(who))
        yield
    finally:
        lease.give_back()


def _take(store: Store, key: str, token: str, refusal: Callable[[str], str], waiting: Callable[[str], None]) -> str:
    for _ in range(3):
        etag = store.create(key, _holder(token)) or _etag_of(store, key, token)
        if etag is not None:
            return etag
        found = store.find(key)
        if found is None or found.etag is None:
            continue  # it was given back meanwhile
        if (who := _moving(store, key, waiting)) is not None:
            raise ValueError(refusal(who))
        if (etag := store.swap(key, _holder(token), found.etag)) is not None:
            return etag
    raise ValueError(refusal("another process"))


def _moving(store: Store, key: str, waiting: Callable[[str], None]) -> str | None:
    """The holder of a lease that moves; None of one that does not, which is deleted where it is of those that share."""
    first = store.find(key)
    if first is None:
        return None
    begun, who = time.monotonic(), _named(_read(store, key))
    waiting(who)
    is_over = False
    while not is_over:
        time.sleep(min(1.0, STILL_S / 10))
        is_over = time.monotonic() - begun > STILL_S  # before the last look: a store may be slow to answer
        now = store.find(key)
        if now is None:
            return None
        if now.etag != first.etag:
            return who
    if key != LOCK:
        store.delete([key])
    return None


def _read(store: Store, key: str) -> dict[str, Any]:
    try:
        who = json.loads(store.get(key))
    except (FileNotFoundError, ValueError):
        return {}
    return who if isinstance(who, dict) else {}


def _named(who: dict[str, Any]) -> str:
    return f"process {who['process']} on {who['host']}" if {"process", "host"} <= who.keys() else "another process"


def _etag_of(store: Store, key: str, token: str) -> str | None:
    """The etag of a lease that has this token; None where it is another's."""
    found = store.find(key)
    return found.etag if found is not None and _read(store, key).get("token") == token else None


def _refuse_unconditional(store: Store, key: str, etag: str) -> None:
    """Refuse a server that does not do what a lease needs, and answers as if it did. `key`, `etag`: of an object that
    is there. Raises ValueError: with what it ignores."""
    ignored = None
    if store.create(key, b"{}") is not None:
        ignored = "If-None-Match"
    elif store.swap(key, b"{}", other_than(etag)) is not None:
        ignored = "If-Match"
    if ignored is not None:
        raise ValueError(
            f"{store.url()}: its server ignores {ignored}, so two commands could write there at once; use a store with "
            "conditional writes, or mount it as a folder (docs/cluster.md)"
        )


def _end_process() -> None:
    """Stop at once: another process writes this dataset now."""
    os.write(2, b"error: another process has taken over the dataset while this one was not heard of; stopped\n")
    os._exit(1)
