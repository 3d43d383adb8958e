from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import paid
from engine.dataset import Dataset, JobRecord, content_digest
from engine.flow import Flow
from engine.job import State
from engine.map_job import MapJob, check_rows, naming
from engine.run_log import JobResult
from engine.runner import LocalRunner, PartFailed, Progress
from schemas.tables import schema_of
from schemas.unread import StoreError
from tests.building import Told, put, table_of

Change = Callable[[pa.Table], pa.Table]


class Scorer:
    """Scores a row by its id; what it does to the rows besides is up to the test."""

    calls: list[tuple[int, ...]] = []
    seen: list[dict[str, pa.Table]] = []
    earlier: list[list[int]] = []

    def __init__(self, change: Change | None = None) -> None:
        self.change = change

    def __call__(
        self, inputs: Mapping[str, pa.Table], progress: Progress, paid: paid.Paid | None = None
    ) -> Mapping[str, pa.Table]:
        row_ids = inputs["listing"]["row_id"].to_pylist()
        self.calls.append(tuple(row_ids))
        self.seen.append(dict(inputs))
        if paid is not None:
            self.earlier.append(paid.earlier()["row_id"].to_pylist())
            paid.note(table_of("scores", ({"row_id": row} for row in row_ids)))
        scores = table_of("scores", ({"row_id": row, "aesthetic": float(row)} for row in row_ids))
        progress(len(row_ids))
        return {"scores": self.change(scores) if self.change else scores}


@pytest.fixture(autouse=True)
def forget_calls() -> None:
    Scorer.calls.clear()
    Scorer.seen.clear()
    Scorer.earlier.clear()


def scoring(change: Change | None = None, **more: object) -> MapJob:
    values: dict[str, object] = {
        "job": "aesthetic",
        "outputs": ("scores",),
        "inputs": ("listing",),
        "build": partial(Scorer, change),
        "knobs": {"aesthetic.scorer": "test"},
    }
    return MapJob(**(values | more))  # type: ignore[arg-type]


def write_listing(dataset: Dataset, part: int, row_ids: range, source: str = "/photos") -> None:
    listing = table_of(
        "listing",
        ({"row_id": row, "source": source, "source_name": "photos", "member": f"{row}.jpg"} for row in row_ids),
    )
    put(dataset, "listing", part, listing)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    made = Dataset(tmp_path / "ds")
    write_listing(made, 0, range(3))
    write_listing(made, 1, range(3, 5))
    return made


def run(dataset: Dataset, stage: MapJob) -> list[int]:
    """Compute what is missing; the numbers of the parts that were computed."""
    stage.prepare(dataset, State.NEW, redo=False)
    held = dataset.held()
    missing = stage.missing(held)
    return [done.number for done in LocalRunner().run(dataset, stage, stage.tasks(held, missing), lambda *_: None)]


def test_part_n_of_the_input_becomes_part_n_of_the_output(dataset: Dataset) -> None:
    assert run(dataset, scoring()) == [0, 1]
    assert dataset.read_part("scores", 0)["row_id"].to_pylist() == [0, 1, 2]
    assert dataset.read_part("scores", 1)["aesthetic"].to_pylist() == [3.0, 4.0]
    assert Scorer.calls == [(0, 1, 2), (3, 4)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.slice(1), "it has 2 rows where 3 belong, and at position 0 row 1 where row 0 belongs"),
        (lambda t: t.slice(0, 2), "it has 2 rows where 3 belong"),
        (lambda t: pa.concat_tables([t, t.slice(2)]), "it has 4 rows where 3 belong"),
        (lambda t: t.take([0, 2, 1]), "it has 3 rows where 3 belong, and at position 1 row 2 where row 1 belongs"),
        (lambda t: t.take([0, 1, 1]), "it has 3 rows where 3 belong, and at position 2 row 1 where row 2 belongs"),
        (lambda t: t.slice(0, 0), "it has 0 rows where 3 belong"),
    ],
    ids=["drops the first", "drops the last", "adds", "reorders", "repeats", "drops all"],
)
def test_a_stage_that_does_not_keep_the_rows_is_refused(dataset: Dataset, change: Change, message: str) -> None:
    with pytest.raises(PartFailed) as failed:
        run(dataset, scoring(change))
    expected = "aesthetic: scores must hold the rows of listing in their order; "
    assert str(failed.value) == f"aesthetic stopped at part 0: RuntimeError: {expected}{message}"
    assert not dataset.parts("scores")


def test_a_stage_that_writes_another_table_than_it_declared_is_refused(dataset: Dataset) -> None:
    stage = scoring(outputs=("scores", "mix"))
    with pytest.raises(PartFailed, match=r"aesthetic: wrote \['scores'\], declared \['mix', 'scores'\]"):
        run(dataset, stage)


def test_rows_per_input_counts_each_input_row_that_often() -> None:
    two = scoring(job="nouns", outputs=("nouns",), rows_per_input=2)
    listing = table_of("listing", ({"row_id": n, "source": "s", "source_name": "s", "member": "m"} for n in (7, 8)))

    def nouns(*row_ids: int) -> pa.Table:
        columns = {"row_id": list(row_ids), "caption_source": ["raw"] * len(row_ids)}
        return pa.table(
            {f.name: pa.array(columns.get(f.name, [None] * len(row_ids)), f.type) for f in schema_of("nouns")}
        )

    check_rows(two, listing, {"nouns": nouns(7, 7, 8, 8)})
    with pytest.raises(RuntimeError, match="it has 4 rows where 4 belong, and at position 1 row 8 where row 7"):
        check_rows(two, listing, {"nouns": nouns(7, 8, 7, 8)})
    with pytest.raises(RuntimeError, match="it has 2 rows where 4 belong"):
        check_rows(two, listing, {"nouns": nouns(7, 8)})


def test_a_column_of_another_type_is_refused_and_nothing_is_written(dataset: Dataset) -> None:
    def as_text(scores: pa.Table) -> pa.Table:
        return scores.set_column(2, "aesthetic", pa.array(["good"] * scores.num_rows))

    with pytest.raises(PartFailed, match="part 0"):
        run(dataset, scoring(as_text))
    assert not dataset.parts("scores")


def test_a_part_is_named_by_what_it_was_made_from_and_no_file_is_opened_to_know_it(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(dataset, "selection", 0, table_of("selection", [{"row_id": 0, "kept": True, "subsets": []}]))
    put(dataset, "selection", 1, table_of("selection", [{"row_id": 3, "kept": True, "subsets": []}]))
    job = scoring(inputs=("listing", "selection"))
    run(dataset, job)
    monkeypatch.setattr("engine.dataset.check_footer", lambda _: pytest.fail("a file was opened"))
    assert job.missing(dataset.held()) == []


def test_only_the_part_whose_input_changed_is_computed_and_the_old_one_goes(dataset: Dataset) -> None:
    run(dataset, scoring())
    first = dataset.parts("scores")
    write_listing(dataset, 0, range(3), source="/elsewhere")
    assert run(dataset, scoring()) == [0]
    now = dataset.parts("scores")
    assert now[0].name != first[0].name and now[1] == first[1]
    assert sorted(dataset.folder("scores").iterdir()) == sorted(now)


def test_of_two_parts_of_a_number_the_one_that_its_inputs_make_holds(dataset: Dataset) -> None:
    run(dataset, scoring())
    right = dataset.part("scores", 0)
    for digest in ("1" * 12, "f" * 12):
        dataset.commit_part("scores", 0, digest, dataset.read_part("scores", 1))
    held = dataset.held()
    assert held.path("scores", 0) == right
    assert {name.made_from for name in held.outdated("scores")} == {"1" * 12, "f" * 12}
    scoring().delete_outdated(held)
    assert len(list(dataset.folder("scores").iterdir())) == 2


def test_a_part_whose_input_is_missing_is_shown_and_nothing_is_computed_from_it(dataset: Dataset) -> None:
    run(dataset, scoring())
    nouns = scoring(job="mix", inputs=("scores",), outputs=("mix",))
    dataset.part("scores", 1).unlink()
    dataset.write_record("mix", JobRecord("mix", dict(nouns.knobs), ["scores"]))
    dataset.commit_part("mix", 1, "1" * 12, table_of("mix", [{"row_id": 3}]))
    held = dataset.held()
    assert list(held.parts("mix")) == [1] and held.holding("mix") == {}
    assert nouns.state(held) is State.OUTDATED
    with pytest.raises(ValueError, match="part-00001: missing; run sigma build again"):
        nouns.tasks(held, [1])


def test_counts_of_workers_add_up_beside_the_rows(dataset: Dataset) -> None:
    class Counting(Scorer):
        def __call__(self, inputs: Mapping[str, pa.Table], progress: Progress) -> Mapping[str, pa.Table]:  # type: ignore[override]
            progress(0, {"images": inputs["listing"].num_rows, "model_s": 0.5})
            return super().__call__(inputs, progress)

    told, results = Told(), list[JobResult | None]()
    job = scoring(build=Counting)
    job.prepare(dataset, job.state(dataset.held()), redo=False)
    Flow(dataset, [(job, False)], told, lambda _, result: results.append(result)).run(LocalRunner)
    (result,) = results
    assert result is not None and result.counts == {"images": 5, "model_s": 1.0}
    assert told.rows["aesthetic"] == result.rows == 5


def test_another_knob_or_job_is_another_digest(dataset: Dataset) -> None:
    run(dataset, scoring())
    first = dataset.part("scores", 0).name
    assert run(dataset, scoring(knobs={"aesthetic.scorer": "other"})) == [0, 1]
    assert dataset.part("scores", 0).name != first


def test_what_was_paid_for_is_handed_over_whatever_the_part_is_made_from_until_it_is_redone(dataset: Dataset) -> None:
    run(dataset, scoring(pays=True))
    changed = scoring(knobs={"aesthetic.scorer": "other"}, pays=True)
    Scorer.earlier.clear()
    run(dataset, changed)
    assert Scorer.earlier == [[0, 1, 2], [3, 4]]
    changed.prepare(dataset, State.DONE, redo=True)
    run(dataset, changed)
    assert Scorer.earlier[2:] == [[], []]


def test_what_was_paid_for_is_listed_once_for_all_parts(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    run(dataset, scoring(pays=True))
    listed, find = list[Path](), paid.find_files
    monkeypatch.setattr(paid, "find_files", lambda folder, pattern: (listed.append(folder), find(folder, pattern))[1])
    run(dataset, scoring(knobs={"aesthetic.scorer": "other"}, pays=True))
    assert listed.count(dataset.root / "paid" / "scores") == 1
    assert Scorer.earlier[2:] == [[0, 1, 2], [3, 4]]


def test_a_part_that_was_paid_for_before_its_answer_was_lost_is_handed_out_with_what_it_paid(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle, lost = paid.Paid.settle, list[int]()

    def settle_and_be_lost(self: paid.Paid) -> None:
        settle(self)
        lost.append(self.number)
        if len(lost) == 1:
            raise StoreError("no answer")

    monkeypatch.setattr(paid.Paid, "settle", settle_and_be_lost)
    stage = scoring(pays=True)
    stage.prepare(dataset, State.NEW, redo=False)
    LocalRunner(retries=1).run(dataset, stage, stage.tasks(dataset.held(), [0, 1]), lambda *_: None)
    assert lost == [0, 1, 0] and Scorer.earlier == [[], [], [0, 1, 2]]


def test_the_error_names_the_image_and_finished_parts_stay(dataset: Dataset) -> None:
    def broken(scores: pa.Table) -> pa.Table:
        for row in scores["row_id"].to_pylist():
            with naming(f"part of {row}"), naming(f"{row}.jpg"):
                if row == 4:
                    raise ValueError("the scorer\n  gave up")
        return scores

    with pytest.raises(PartFailed) as failed:
        run(dataset, scoring(broken))
    assert str(failed.value) == "aesthetic stopped at part 1 (image 4.jpg): the scorer gave up"
    assert failed.value.part == 1
    assert 0 in dataset.held().parts("scores")
    assert 1 not in dataset.held().parts("scores")


def test_a_full_disk_says_what_to_do(dataset: Dataset) -> None:
    def full(scores: pa.Table) -> pa.Table:
        raise OSError(28, "No space left on device")

    with pytest.raises(PartFailed, match="no space left on the disk; free some and run the same command again"):
        run(dataset, scoring(full))


ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "row_id": st.integers(0, 1000),
            "image_id": st.none() | st.text(max_size=5),
            "value": st.none() | st.floats(allow_nan=False),
            "kept": st.booleans(),
            "subsets": st.lists(st.text(max_size=3), max_size=3),
        }
    ),
    min_size=1,
    max_size=20,
)


@pytest.mark.slow
@given(values=ROWS, cuts=st.lists(st.integers(0, 20), max_size=4), before=ROWS)
def test_the_digest_of_rows_does_not_depend_on_how_they_lie_in_memory(
    values: list[dict[str, object]], cuts: list[int], before: list[dict[str, object]]
) -> None:
    whole = table_of("selection", values)
    longer = table_of("selection", before + values + before)
    edges = sorted({0, len(values), *(min(cut, len(values)) for cut in cuts)})
    pieces = [longer.slice(len(before) + begin, end - begin) for begin, end in itertools.pairwise(edges)]
    cut = pa.concat_tables(pieces) if pieces else whole
    assert cut.equals(whole)
    assert content_digest(cut) == content_digest(whole)
    assert content_digest(whole.replace_schema_metadata({"a": "b"})) == content_digest(whole)


@pytest.mark.slow
@given(values=ROWS, change=st.data())
def test_the_digest_changes_with_any_value(values: list[dict[str, object]], change: st.DataObject) -> None:
    row = change.draw(st.integers(0, len(values) - 1))
    changed = [dict(value) for value in values]
    changed[row]["image_id"] = f"not {values[row]['image_id']}"
    assert content_digest(table_of("selection", values)) != content_digest(table_of("selection", changed))
