"""A real Ray cluster of several nodes: the same bytes as the local runner, also when a node is taken away."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from ray.cluster_utils import Cluster

from commands import order
from curation import build as pipeline
from curation.build import Observer
from curation.sources.demo_photos import write_demo_photos
from engine.dataset import Dataset
from engine.flow import Flow
from engine.job import State
from engine.map_job import MapJob
from engine.ray_cluster import connect, gpu_slots
from engine.ray_runner import RayRunner
from engine.runner import LocalRunner, PartFailed, Progress
from schemas import tables
from schemas.recipe import DataRecipe
from tests.building import Told, put, table_of
from tests.engine.flowing import jobs, listed
from tests.ray_head import LEAN, ON_DEMAND, small
from tests.trees import content

pytestmark = pytest.mark.slow


class Watcher(Observer):
    """An observer that does something once a number of rows of a job is through."""

    def __init__(self, job: str = "", rows: int = 0, action: object = None) -> None:
        self.job, self.rows, self.action, self.seen = job, rows, action, 0

    def advance(self, job: str, rows: int, counts: Mapping[str, float] = {}, /) -> None:
        self.seen += rows if job == self.job else 0
        if job == self.job and self.seen >= self.rows and callable(self.action):
            action, self.action = self.action, None
            action()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    write_demo_photos(folder)
    return folder


def recipe(photos: Path, out: Path, runner: str) -> DataRecipe:
    return DataRecipe.from_mapping(
        {
            "images": str(photos),
            "out": str(out),
            "part_rows": 2,
            "select": {"min_short_side_px": 160},
            "shard": {"megabytes": 1},
            "run": {"runner": runner, "workers": 2},
        }
    )


@pytest.fixture(scope="module")
def local(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    wanted = recipe(photos, tmp_path_factory.mktemp("local") / "dataset", "local")
    pipeline.build(wanted, order.pipeline(wanted), Watcher())
    return wanted.out_path()


@pytest.fixture(scope="module")
def head() -> Iterator[Cluster]:
    """A head without CPUs, and a node of one."""
    quick = {
        "health_check_initial_delay_ms": 0,
        "health_check_period_ms": 300,
        "health_check_failure_threshold": 3,
        **ON_DEMAND,
    }
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "_system_config": quick, **LEAN, **small()})
    made.add_node(num_cpus=1, **small())
    made.wait_for_nodes()
    yield made
    made.shutdown()


@pytest.fixture
def cluster(head: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """The cluster that RAY_ADDRESS names, as it was, with nobody joined; nodes that a test adds go with it."""
    monkeypatch.setenv("RAY_ADDRESS", head.address)
    before = head.list_all_nodes()
    yield head
    ray.shutdown()
    for node in head.list_all_nodes():
        if node not in before:
            head.remove_node(node)
    head.wait_for_nodes()


@pytest.fixture(scope="module")
def gpus(head: Cluster) -> None:
    """A node of two GPUs beside those of `head`, from the first test on that asks for it."""
    head.add_node(num_cpus=0, num_gpus=2, **small())
    head.wait_for_nodes()


def test_two_nodes_write_what_one_process_writes_and_one_may_vanish(
    photos: Path, local: Path, cluster: Cluster, tmp_path: Path
) -> None:
    doomed = cluster.add_node(num_cpus=1, **small())
    cluster.wait_for_nodes()
    wanted = recipe(photos, tmp_path / "dataset", "ray")
    watcher = Watcher("ingest", 6, lambda: cluster.remove_node(doomed, allow_graceful=False))
    built = pipeline.build(wanted, order.pipeline(wanted), watcher)
    assert watcher.action is None, "the node must have been taken away in the middle of ingest"
    assert len([node for node in ray.nodes() if node["Alive"]]) == 2 if ray.is_initialized() else True
    assert sum(count for *_, count in built.counts) == built.num_inputs
    assert content(wanted.out_path()) == content(local)


def test_an_error_names_part_and_image_and_keeps_finished_parts(photos: Path, tmp_path: Path) -> None:
    wanted = recipe(photos, tmp_path / "dataset", "local")
    steps = order.pipeline(wanted)
    pipeline.build(wanted, steps[:1], Watcher())
    dataset = Dataset(wanted.out_path())
    broken = dataset.part("images", 3)
    broken.write_bytes(b"not parquet")
    with pytest.raises(PartFailed, match=r"fingerprint stopped at part 3.*images/part-00003\.\S+: damaged"):
        pipeline.build(wanted, steps, Watcher())
    assert list(dataset.held().parts("fingerprints")) == [0, 1, 2]


def worker_of_nothing() -> None:
    raise AssertionError("no worker may be built")


def stage_on(num_gpus: float | None) -> MapJob:
    return MapJob(
        job="caption", outputs=("captions",), inputs=("proxies",), build=worker_of_nothing, knobs={}, num_gpus=num_gpus
    )  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("num_gpus", "nodes", "slots"),
    [
        (0, [8, 8], (0, 0)),
        (1, [0, 8, 8], (1, 16)),
        (2, [3, 3], (2, 2)),
        (0.5, [1, 2], (0.5, 6)),
        (0.1, [1], (0.1, 10)),
        (None, [0, 4], (1, 4)),
        (None, [0, 0], (0, 0)),
    ],
)
def test_gpus_are_shared_out_node_by_node(num_gpus: float | None, nodes: list[float], slots: tuple[float, int]) -> None:
    found = gpu_slots(stage_on(num_gpus), nodes)
    assert (found.num_gpus, found.count) == slots


def test_a_stage_that_needs_more_gpus_than_there_are_is_refused_at_once(cluster: Cluster, tmp_path: Path) -> None:
    runner = RayRunner(None, 0)
    with pytest.raises(ValueError, match=r"caption: gpus_per_worker=1: the largest node of the cluster has 0 GPUs"):
        runner.run(Dataset(tmp_path), stage_on(1), [0], lambda rows: None)
    runner.close()


def captions_of(rows: pa.Table, captioner: str) -> pa.Table:
    return table_of("captions", [{"row_id": row, "captioner": captioner} for row in rows["row_id"].to_pylist()])


class Placed:
    """A worker that writes down which GPU it was given."""

    def __call__(self, inputs: dict[str, pa.Table], progress: object) -> dict[str, pa.Table]:
        where = f"{os.environ.get('CUDA_VISIBLE_DEVICES')} {os.getpid()}"
        return {"captions": captions_of(inputs["listing"], where)}


def test_each_worker_holds_a_gpu_of_its_own(gpus: None, cluster: Cluster, tmp_path: Path) -> None:
    dataset = Dataset(tmp_path)
    schema = tables.schema_of("listing")
    for number in range(6):
        row = [{"row_id": number, "source": "a", "source_name": "a", "member": "b"}]
        put(dataset, "listing", number, pa.Table.from_pylist(row, schema=schema))
    runner = RayRunner(None, 0)
    counts = Counter[str]()
    stage = MapJob(job="caption", outputs=("captions",), inputs=("listing",), build=Placed, knobs={}, num_gpus=1)
    stage.prepare(dataset, State.NEW, redo=False)
    runner.run(dataset, stage, stage.tasks(dataset.held(), range(6)), lambda rows, more={}: counts.update(more))
    runner.close()
    assert counts == {"gpu_workers": 2}, "what the forecast reckons with"
    seen = {pq.read_table(path)["captioner"][0].as_py() for path in dataset.parts("captions")}
    assert {place.split()[0] for place in seen} <= {"0", "1"}
    assert len(seen) <= 2, "as many workers as GPUs"


@pytest.mark.quick
def test_workers_come_up_while_parts_are_expected_and_compute_them(cluster: Cluster, tmp_path: Path) -> None:
    dataset = listed(tmp_path / "ds", 4)
    (step, *_) = jobs(tmp_path / "log")
    step.prepare(dataset, State.NEW, redo=False)
    runner = RayRunner(None, 0)
    runner.expect(dataset, 16)
    early = set(runner._pools[0].actors)
    runner.expect(dataset, 16)
    runner.run(dataset, step, step.tasks(dataset.held(), range(4)), lambda *_: None)
    assert len(early) == 1, "the cluster has room for one"
    assert set(runner._pools[0].actors) == early
    runner.close()
    assert len(dataset.parts(step.outputs[0])) == 4


class InPairs:
    """A worker whose parts each wait until another one is there, or has been."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / f"built by {os.getpid()}").touch()

    def __call__(self, inputs: dict[str, pa.Table], progress: Progress) -> dict[str, pa.Table]:
        rows = inputs["listing"]
        (self._folder / f"begun {rows['row_id'][0]}").touch()
        until = time.monotonic() + 30
        while len(list(self._folder.glob("begun *"))) < 2 and time.monotonic() < until:
            time.sleep(0.01)
        progress(rows.num_rows)
        return {"captions": captions_of(rows, f"{time.monotonic() < until}")}


def test_an_actor_with_a_gpu_has_a_second_part_ready(gpus: None, cluster: Cluster, tmp_path: Path) -> None:
    dataset, told = listed(tmp_path / "ds", 4), Told()
    job = MapJob(
        job="caption",
        outputs=("captions",),
        inputs=("listing",),
        build=partial(InPairs, tmp_path),
        knobs={},
        num_gpus=1,
        overlaps=True,
    )
    job.prepare(dataset, State.NEW, redo=False)
    runner = RayRunner(1, 0)
    runner.run(dataset, job, job.tasks(dataset.held(), range(4)), partial(told.advance, "caption"))
    runner.close()
    assert {pq.read_table(path)["captioner"][0].as_py() for path in dataset.parts("captions")} == {"True"}
    assert len(list(tmp_path.glob("built by *"))) == 1, "both parts have the same worker"
    assert told.rows["caption"] == 4 * 2


class Pools(Told):
    """Looks at the actors there are whenever rows are counted."""

    def __init__(self) -> None:
        super().__init__()
        self.runner: RayRunner | None = None
        self.up: list[tuple[str, int, int]] = []

    def get(self) -> RayRunner:
        self.runner = RayRunner(workers=1, retries=1)
        return self.runner

    def advance(self, job: str, rows: int, counts: Mapping[str, float] = {}, /) -> None:
        super().advance(job, rows, counts)
        assert self.runner is not None
        self.up.append((job, *(len(pool.actors) if pool else 0 for pool in map(self.runner._pools.get, (0, 1)))))


def test_parts_flow_through_pools_that_are_held_from_their_first_part_to_their_last(
    gpus: None, cluster: Cluster, tmp_path: Path
) -> None:
    log, told = tmp_path / "log", Pools()
    steps = jobs(
        log,
        clean={"awaits": (3, "aesthetic 0")},  # a job that is not done lets the next one begin
        aesthetic={"own": {"num_gpus": 1}, "dies_at": 2},
    )
    dataset, fresh = listed(tmp_path / "ds", 4), listed(tmp_path / "fresh", 4)
    for step in steps:
        step.prepare(dataset, State.NEW, redo=False)
        step.prepare(fresh, State.NEW, redo=False)
    Flow(dataset, [(step, True) for step in steps], told, lambda *_: None).run(told.get)
    assert told.runner is not None
    left = {num_gpus: len(pool.actors) for num_gpus, pool in told.runner._pools.items()}
    told.runner.close()
    begun = log.read_text().splitlines()
    assert begun.count("aesthetic 2") == 2, "the worker was lost, and the part handed out again"
    assert sorted({*begun}) == sorted(f"{step.job} {number}" for step in steps for number in range(4))
    assert told.up[0] == ("clean", 1, 0), "no GPU is held before there is a part for it"
    assert left == {0: 1, 1: 0}, "nor after the last one"
    Flow(fresh, [(step, True) for step in jobs(tmp_path / "other")], Told(), lambda *_: None).run(LocalRunner)
    assert content(dataset.root) == content(fresh.root)


def test_an_address_without_a_cluster_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(ValueError, match=r"RAY_ADDRESS=127\.0\.0\.1:1: no Ray cluster answers there"):
        connect()
