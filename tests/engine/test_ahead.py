from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.ahead import in_batches


def doubled(batch: list[int]) -> Callable[[], Iterable[int]]:
    return lambda: [2 * row for row in batch]


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.one_of(st.none(), st.integers(0, 5)), max_size=40),
    size=st.integers(1, 5),
    within=st.integers(1, 12),
    threads=st.integers(1, 3),
)
def test_each_row_comes_back_in_order_in_a_batch_of_its_kind(
    rows: list[int | None], size: int, within: int, threads: int
) -> None:
    batches: list[list[int]] = []

    def model(batch: list[int]) -> Callable[[], Iterable[int]]:
        batches.append(batch)
        return doubled(batch)

    found = in_batches(lambda row: row, rows, model, threads=threads, size=size, kind=lambda row: row, within=within)
    assert list(found) == [(row, None if row is None else 2 * row) for row in rows]
    assert all(0 < len(batch) <= size and len(set(batch)) == 1 for batch in batches)
    assert sorted(row for batch in batches for row in batch) == sorted(row for row in rows if row is not None)


def test_which_rows_share_a_batch_depends_on_the_rows_alone() -> None:
    def batches_of(threads: int, pause_s: float) -> list[list[int]]:
        seen: list[list[int]] = []

        def model(batch: list[int]) -> Callable[[], Iterable[int]]:
            seen.append(batch)
            time.sleep(pause_s)
            return doubled(batch)

        list(
            in_batches(lambda row: row, range(50), model, threads=threads, size=4, kind=lambda row: row % 3, within=10)
        )
        return seen

    assert batches_of(1, 0) == batches_of(3, 0.001)


def test_the_model_is_not_waited_for_while_the_next_rows_are_prepared() -> None:
    """One batch is held by the model until two more of them are prepared, which a loop would wait for for ever."""
    prepared = threading.Semaphore(0)

    def prepare(row: int) -> int:
        prepared.release()
        return row

    def model(batch: list[int]) -> Callable[[], Iterable[int]]:
        if batch[0] == 0:
            assert all(prepared.acquire(timeout=10) for _ in range(12))
        return doubled(batch)

    assert len(list(in_batches(prepare, range(20), model, threads=2, size=4))) == 20


def test_rows_ahead_of_the_reader_are_bounded() -> None:
    begun: list[int] = []

    def prepare(row: int) -> int:
        begun.append(row)
        return row

    found = in_batches(prepare, range(10_000), doubled, threads=2, size=4, within=8)
    for number in range(40):
        assert next(found) == (number, 2 * number)
    assert len(begun) <= 40 + 2 * 8 + 3 * 4 + 2 * 2
    found.close()


def test_rows_that_no_model_sees_do_not_pile_up() -> None:
    rows = iter(range(10_000))
    found = in_batches(lambda _: None, rows, doubled, threads=1, size=2)
    assert next(found) == (None, None)
    assert next(rows) < 40
    found.close()


@pytest.mark.parametrize("where", ["prepare", "model", "finish"])
def test_an_error_stops_the_rows_where_it_was_due(where: str) -> None:
    def prepare(row: int) -> int:
        if where == "prepare" and row == 9:
            raise OSError("the row")
        return row

    def model(batch: list[int]) -> Callable[[], Iterable[int]]:
        def finish() -> Iterable[int]:
            if where == "finish" and 9 in batch:
                raise OSError("the result")
            return batch

        if where == "model" and 9 in batch:
            raise OSError("the batch")
        return finish

    done = []
    with pytest.raises(OSError, match=r"the (row|batch|result)"):
        for row, _ in in_batches(prepare, range(30), model, threads=2, size=4):
            done.append(row)
    assert done == list(range(len(done))) and len(done) <= 9
    assert threading.active_count() < 20


def test_who_shares_a_model_has_it_one_after_the_other_and_is_ready_for_it() -> None:
    """The first holder's last batch is held until the second one has prepared as many rows as it may."""
    turn, ready = threading.Lock(), threading.Semaphore(0)
    shown: list[int] = []

    def prepare(row: int) -> int:
        if row >= 100:
            ready.release()
        return row

    def model(batch: list[int]) -> Callable[[], Iterable[int]]:
        shown.extend(batch)
        if 39 in batch:
            assert all(ready.acquire(timeout=10) for _ in range(8))
        return doubled(batch)

    def run(first: int) -> list[tuple[int, int | None]]:
        rows = range(first, first + 40)
        return list(in_batches(prepare, rows, model, threads=2, size=4, within=8, turn=turn))

    with ThreadPoolExecutor(2) as threads:
        one = threads.submit(run, 0)
        while not shown:
            time.sleep(0.001)
        other = threads.submit(run, 100)
        assert [row for row, _ in one.result()] == [*range(40)]
        assert other.result() == [(row, 2 * row) for row in range(100, 140)]
    assert shown == [*range(40), *range(100, 140)]


@pytest.mark.parametrize("where", ["prepare", "model", "finish", "reader"])
def test_an_error_gives_the_turn_to_the_next(where: str) -> None:
    turn = threading.Lock()

    def fail(at: str, row: int) -> None:
        if where == at and row == 9:
            raise OSError("it broke")

    def prepare(row: int) -> int:
        fail("prepare", row)
        return row

    def model(batch: list[int]) -> Callable[[], Iterable[int]]:
        fail("model", max(batch))
        return lambda: [fail("finish", row) or row for row in batch]

    with (
        pytest.raises(OSError, match="it broke"),
        closing(in_batches(prepare, range(30), model, threads=2, size=1, turn=turn)) as found,
    ):
        for row, _ in found:
            fail("reader", row)
    assert not turn.locked()
    assert len(list(in_batches(lambda row: row, range(30), doubled, threads=2, size=4, turn=turn))) == 30
    assert not turn.locked()


def test_rows_that_no_model_sees_take_no_turn() -> None:
    turn = threading.Lock()
    with turn:
        found = in_batches(lambda _: None, range(10), doubled, threads=1, size=2, turn=turn)
        assert list(found) == [(None, None)] * 10
