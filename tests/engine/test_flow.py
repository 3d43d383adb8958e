"""Part n of a job starts when part n of its inputs is committed, and the result is that of job after job."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from engine import names
from engine.counts import Counts
from engine.dataset import Dataset
from engine.flow import Flow
from engine.map_job import MapJob
from engine.run_log import JobResult
from engine.runner import LocalRunner, PartFailed, Queue, Runner, once
from tests.building import Told
from tests.engine.flowing import CHAIN, jobs, listed
from tests.trees import content

PARTS = 3
Ended = Callable[[MapJob, JobResult | None], None]


class LaterFirst(Runner):
    """Takes parts as the actors of a cluster do, one at a time."""

    def run_queues(self, dataset: Dataset, queues: Sequence[Queue]) -> None:
        workers = {queue: once(queue.job.build) for queue in queues}
        while waiting := [queue for queue in queues if queue.waiting]:
            queue = waiting[-1]
            task = queue.take()
            try:
                part = queue.job.run_part(dataset, workers[queue], task, queue.progress)
            except Exception as error:
                raise PartFailed(queue.job.job, task.number, error) from error
            queue.committed(task, part)

    def close(self) -> None:
        """Nothing is held."""


class Results(Told):
    """What a flow told, and how its jobs ended."""

    def __init__(self, refuses: str = "") -> None:
        super().__init__()
        self.refuses = refuses
        self.ended: dict[str, JobResult | None] = {}

    def take(self, job: MapJob, result: JobResult | None) -> None:
        self.ended[job.job] = result
        if job.job == self.refuses:
            raise ValueError(f"{job.job}: too many failures")


def flow(
    dataset: Dataset, steps: Sequence[MapJob], runner: Callable[[], Runner] = LaterFirst, refuses: str = ""
) -> Results:
    """Bring jobs up to date as a build does."""
    results, todo = Results(refuses), list[tuple[MapJob, bool]]()
    for step in steps:
        before = dataset.record(step.outputs[0])
        is_other = before is not None and before.knobs != step.knobs
        step.prepare(dataset, step.state(dataset.held(), redo=True), redo=is_other)
        todo.append((step, dataset.record(step.outputs[0]) != before))
    Flow(dataset, todo, results, results.take).run(runner)
    return results


def begun(log: Path) -> list[str]:
    return log.read_text().splitlines()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What job after job gives."""
    folder = tmp_path_factory.mktemp("whole")
    dataset = listed(folder / "ds", PARTS)
    for step in jobs(folder / "log"):
        flow(dataset, [step], LocalRunner)
    return content(dataset.root)


def test_a_part_starts_when_its_inputs_are_there_and_later_jobs_come_first(
    tmp_path: Path, log: Path, whole: dict[str, str]
) -> None:
    dataset = listed(tmp_path / "ds", PARTS)
    told = flow(dataset, jobs(log))
    assert begun(log) == [f"{job} {number}" for number in range(PARTS) for job in CHAIN]
    assert told.began == list(CHAIN) and told.rows == dict.fromkeys(CHAIN, 2 * PARTS)
    assert list(told.ended) == list(CHAIN)
    for result in told.ended.values():
        assert result is not None and (result.parts, result.computed, result.rows) == (PARTS, PARTS, 2 * PARTS)
    assert content(dataset.root) == whole


def test_in_one_process_the_jobs_run_one_after_the_other(tmp_path: Path, log: Path, whole: dict[str, str]) -> None:
    dataset = listed(tmp_path / "ds", PARTS)
    flow(dataset, jobs(log), LocalRunner)
    assert begun(log) == [f"{job} {number}" for job in CHAIN for number in range(PARTS)]
    assert content(dataset.root) == whole


@pytest.mark.parametrize("runner", [LaterFirst, LocalRunner])
def test_a_part_that_fails_is_named_and_what_is_committed_is_not_computed_again(
    tmp_path: Path, log: Path, whole: dict[str, str], runner: type[Runner]
) -> None:
    dataset = listed(tmp_path / "ds", PARTS)
    with pytest.raises(PartFailed, match=r"^aesthetic stopped at part 1: not today$"):
        flow(dataset, jobs(log, aesthetic={"fails_at": 1}), runner)
    kept = {job: list(dataset.held().parts(table)) for job, (_, table) in CHAIN.items()}
    assert kept == {"clean": [0, 1] if runner is LaterFirst else [0, 1, 2], "aesthetic": [0]} | {
        "mix": [0] if runner is LaterFirst else []
    }
    log.unlink()
    flow(dataset, jobs(log), runner)
    again = [f"{job} {number}" for number in range(PARTS) for job in CHAIN if number not in kept[job]]
    assert sorted(begun(log)) == sorted(again)
    assert content(dataset.root) == whole


def test_only_parts_whose_inputs_came_out_otherwise_are_computed_again(tmp_path: Path, log: Path) -> None:
    dataset = listed(tmp_path / "ds", PARTS)
    flow(dataset, jobs(log))
    log.unlink()
    told = flow(dataset, jobs(log, knobs={"clean.x": 1}, clean={"adds": "!"}))  # changes part 0
    assert begun(log) == ["clean 0", "aesthetic 0", "mix 0", "clean 1", "clean 2"]
    assert [result and result.computed for result in told.ended.values()] == [3, 1, 1]
    assert told.rows == dict.fromkeys(CHAIN, 2 * PARTS), "the parts that stay are not waited for"
    fresh = listed(tmp_path / "fresh", PARTS)
    flow(fresh, jobs(tmp_path / "other", knobs={"clean.x": 1}, clean={"adds": "!"}))
    assert content(dataset.root) == content(fresh.root)


def test_jobs_whose_inputs_came_out_the_same_were_done_already(tmp_path: Path, log: Path) -> None:
    dataset = listed(tmp_path / "ds", PARTS)
    flow(dataset, jobs(log))
    told = flow(dataset, jobs(log, knobs={"clean.x": 1}))
    assert told.began == ["clean"] and told.ended["aesthetic"] is told.ended["mix"] is None


def test_a_job_that_is_refused_at_its_end_stops_the_flow_and_later_parts_stay(tmp_path: Path, log: Path) -> None:
    dataset = listed(tmp_path / "ds", PARTS)
    with pytest.raises(ValueError, match="aesthetic: too many failures"):
        flow(dataset, jobs(log), refuses="aesthetic")
    assert begun(log)[-1] == "aesthetic 2"
    assert list(dataset.held().parts("mix")) == [0, 1]


@pytest.mark.parametrize("runner", [LaterFirst, LocalRunner])
def test_a_job_whose_inputs_do_not_come_is_no_silent_end(tmp_path: Path, log: Path, runner: type[Runner]) -> None:
    dataset = listed(tmp_path / "ds", PARTS)
    flow(dataset, jobs(log)[:1])
    dataset.part("raw_captions", 1).unlink()
    with pytest.raises(ValueError, match=r"^aesthetic: parts of raw_captions are missing; run sigma build again$"):
        flow(dataset, jobs(log)[1:], runner)
    assert list(dataset.held().parts("mix")) == [0, 2], "what can be computed is"


def test_no_folder_is_listed_for_a_part(tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, names_in = list[Path](), names.names_in

    def counted(folder: Path) -> list[names.PartName]:
        calls.append(folder)
        return names_in(folder)

    monkeypatch.setattr(names, "names_in", counted)
    num_calls = []
    for num_parts in (2, 9):
        dataset = listed(tmp_path / f"{num_parts}", num_parts)
        calls.clear()
        flow(dataset, jobs(log))
        num_calls.append(len(calls))
    assert num_calls[0] == num_calls[1]


def test_a_job_takes_from_its_first_part_to_its_last(
    tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]

    def tick() -> float:
        clock[0] += 1
        return clock[0]

    monkeypatch.setattr("engine.flow.time.perf_counter", tick)
    told = flow(listed(tmp_path / "ds", 1), jobs(log))
    seconds = [result.seconds for result in told.ended.values() if result]
    assert seconds == [1.0, 1.0, 1.0], "each job asks the clock when it begins and when it ends"


def test_the_files_that_a_worker_names_are_those_it_has_committed(tmp_path: Path, log: Path) -> None:
    dataset, (step, *_) = listed(tmp_path / "ds", 1), jobs(log)
    flow(dataset, [step])
    step.delete(dataset)
    (task,) = step.tasks(dataset.held(), [0])
    part = step.run_part(dataset, step.build, task, lambda *_: None)
    (file,) = part.files
    assert pq.read_metadata(dataset.tables / file).num_rows == part.rows == 2


def test_rows_and_reasons_are_those_of_all_parts_whoever_computed_them(tmp_path: Path, log: Path) -> None:
    dataset = listed(tmp_path / "ds", PARTS)
    flow(dataset, jobs(log, clean={"refuses": True})[:1])
    dataset.part("raw_captions", 1).unlink()
    told = flow(dataset, jobs(log, clean={"refuses": True})[:1])
    result = told.ended["clean"]
    assert result is not None and (result.computed, result.rows, result.reasons) == (1, 6, {"junk": 3})


def test_no_file_is_opened_for_a_part_that_a_worker_has_committed(
    tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = listed(tmp_path / "ds", PARTS)
    opened = list[str]()
    monkeypatch.setattr("engine.counts._count", lambda table, _: opened.append(table) or Counts(2, {}))
    assert all(result and result.rows == 2 * PARTS for result in flow(dataset, jobs(log)).ended.values())
    assert {*opened} == {"listing"}, "which was not listed here"
