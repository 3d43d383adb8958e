"""One writer at a time: races, a holder that is gone, one that wakes again, and servers that only pretend."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from engine.place import lease
from engine.place.lease import leased
from engine.place.store import Store
from schemas.commit import write_bytes
from schemas.files import mount_point
from schemas.unread import StoreError
from tests.storing import Store as Server
from tests.storing import race_for_lease


@pytest.fixture
def store(bucket: Server, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(lease, "BEAT_S", 0.05)
    monkeypatch.setattr(lease, "STILL_S", 0.6)
    return Store.at(f"s3://{bucket.bucket}/ds")


def refusal(holder: str) -> str:
    return f"held by {holder}"


def never() -> None:
    raise AssertionError("the lease was lost")


def test_a_second_writer_is_refused_and_names_the_first(store: Store) -> None:
    with leased(store, refusal), pytest.raises(ValueError, match=r"held by process \d+ on "), leased(store, refusal):
        pass
    assert list(store.below()) == []
    with leased(store, refusal):
        pass


@pytest.mark.slow
def test_of_eight_that_start_at_once_one_gets_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "STILL_S", 10.0)  # the server shares this process, and a busy machine stops it for long
    got, refused = race_for_lease(store, held_s=6)
    assert {*got} == {1} and len(got) + len(refused) == 8 and refused


def test_a_lease_whose_holder_is_gone_is_taken_over(store: Store) -> None:
    store.create(lease.LOCK, b'{"process": 1, "host": "gone"}')
    waited: list[str] = []
    with leased(store, refusal, waiting=waited.append):
        assert waited == ["process 1 on gone"]


def test_a_holder_that_wakes_after_it_was_taken_over_finds_out_and_leaves_the_lease_alone(store: Store) -> None:
    lost, asleep = threading.Event(), threading.Event()
    beats = store.swap

    class Sleeping(Store):
        def swap(self, key: str, data: bytes, etag: str) -> str | None:
            if asleep.is_set():
                time.sleep(1.5)
            return beats(key, data, etag)

    with leased(Sleeping(store.bucket, store.prefix), refusal, lost=lost.set):
        asleep.set()
        with leased(store, refusal, lost=never):
            assert lost.wait(5)
    assert store.find(lease.LOCK) is None


def test_those_that_share_exclude_a_writer_and_not_each_other(store: Store) -> None:
    with (
        leased(store, refusal, shared=True),
        leased(store, refusal, shared=True),
        pytest.raises(ValueError, match="held by"),
        leased(store, refusal),
    ):
        pass
    with leased(store, refusal), pytest.raises(ValueError, match="held by"), leased(store, refusal, shared=True):
        pass
    assert list(store.below()) == []


def test_one_that_shared_and_is_gone_is_swept(store: Store) -> None:
    store.create(f"{lease.SHARED}/gone", b"{}")
    with leased(store, refusal):
        assert [found.key for found in store.below()] == [lease.LOCK]


@pytest.mark.parametrize(("ignored", "header"), [("create", "If-None-Match"), ("swap", "If-Match")])
def test_a_server_that_ignores_a_condition_is_refused(store: Store, ignored: str, header: str) -> None:
    class Pretending(Store):
        def _put_if(self, key: str, data: bytes, mode: Any) -> str | None:
            if (mode == "create") == (ignored == "create"):
                return self.put(key, data).etag
            return super()._put_if(key, data, mode)

    made = Pretending(store.bucket, store.prefix)
    with pytest.raises(ValueError, match=f"s3://photos/ds: its server ignores {header}"), leased(made, refusal):
        pass
    assert list(store.below()) == []


def test_a_beat_whose_answer_is_lost_does_not_cost_the_lease(store: Store) -> None:
    swap, num_lost = store.swap, list[str]()

    class Losing(Store):
        def swap(self, key: str, data: bytes, etag: str) -> str | None:
            made = swap(key, data, etag)
            if not num_lost and made:
                num_lost.append(key)
                raise StoreError("connection reset")  # after the store had done it
            return made

    with leased(Losing(store.bucket, store.prefix), refusal, lost=never):
        time.sleep(0.3)
        assert num_lost and store.find(lease.LOCK) is not None
    assert list(store.below()) == []


def test_a_store_that_takes_as_long_as_a_beat_to_answer_costs_no_healthy_lease_and_is_spoken_of(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Slow(Store):
        def __getattribute__(self, name: str) -> Any:
            if name in ("find", "swap", "get"):
                time.sleep(0.18)
            return super().__getattribute__(name)

    slow = Slow(store.bucket, store.prefix)
    monkeypatch.setattr(lease, "SLOW_S", 0.05)
    with leased(slow, refusal, lost=never):
        assert "the store takes 0 s for an answer, so all takes long" in caplog.text
        for _ in range(2):
            with pytest.raises(ValueError, match="held by"), leased(slow, refusal):
                pass


def test_a_holder_that_was_taken_over_writes_nothing_more_and_leaves_the_other_lease_alone(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As after SIGSTOP and SIGCONT: its thread has not beaten yet when it goes on."""
    monkeypatch.setattr(lease.Lease, "_beat_on", lambda self: None)
    place, lost = mount_point(store.url()), list[str]()
    with leased(store, refusal, lost=lambda: lost.append("first")):
        time.sleep(0.7)
        with leased(store, refusal, lost=never), pytest.raises(ValueError, match="has taken over"):
            write_bytes(place / "tables" / "x", b"1")
        assert lost == ["first"]
    with leased(store, refusal, lost=lambda: lost.append("second")):
        second = store.get(lease.LOCK)
        zombie = lease.Lease(store, lease.LOCK, "old", '"0123"', lambda: lost.append("zombie"))
        zombie._beaten -= 1
        zombie.give_back()
        assert lost[1:] == ["zombie"] and store.get(lease.LOCK) == second
    assert list(store.below()) == []


def test_a_process_that_ends_at_once_gives_its_leases_back(store: Store) -> None:
    with leased(store, refusal, lost=never):
        lease.give_all_back()
        assert list(store.below()) == []
        time.sleep(0.2)
    assert list(store.below()) == []


def test_a_store_that_is_silent_for_a_moment_does_not_cost_the_lease(bucket: Server, store: Store) -> None:
    with leased(store, refusal, lost=never):
        bucket.refused["ds/.lock"] = 503
        time.sleep(0.2)
        bucket.refused.clear()
        time.sleep(0.2)
