"""A real Ray cluster of several nodes: the same bytes as the local runner, also when a node is taken away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

import sigma
from curation import pipeline
from curation.job import JobResult
from curation.listing import Listed
from curation.runner import PartFailed
from curation.sources.demo_photos import write_demo_photos
from schemas.recipe import DataRecipe
from tests.trees import content


class Watcher:
    """An observer that does something once a number of rows of a job is through."""

    def __init__(self, job: str = "", rows: int = 0, action: object = None) -> None:
        self.job, self.rows, self.action, self.current, self.seen = job, rows, action, "", 0

    def listed(self, found: Listed) -> None:
        pass

    def retried(self, rows: int) -> None: ...

    def begin(self, job: str, rows: int) -> None:
        self.current, self.seen = job, 0

    def advance(self, rows: int) -> None:
        self.seen += rows
        if self.current == self.job and self.seen >= self.rows and callable(self.action):
            action, self.action = self.action, None
            action()

    def end(self, job: str, result: JobResult | None) -> None:
        pass


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
    pipeline.build(wanted, sigma.pipeline(wanted), Watcher())
    return wanted.out_path()


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A head without CPUs, and two nodes of one each."""
    quick = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 300, "health_check_failure_threshold": 3}
    memory = {"object_store_memory": 80_000_000}
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "_system_config": quick, **memory})
    monkeypatch.setenv("RAY_ADDRESS", made.address)
    yield made
    ray.shutdown()
    made.shutdown()


def test_two_nodes_write_what_one_process_writes_and_one_may_vanish(
    photos: Path, local: Path, cluster: Cluster, tmp_path: Path
) -> None:
    memory = {"object_store_memory": 80_000_000}
    doomed = cluster.add_node(num_cpus=1, **memory)
    cluster.add_node(num_cpus=1, **memory)
    cluster.wait_for_nodes()
    wanted = recipe(photos, tmp_path / "dataset", "ray")
    watcher = Watcher("ingest", 6, lambda: cluster.remove_node(doomed, allow_graceful=False))
    built = pipeline.build(wanted, sigma.pipeline(wanted), watcher)
    assert watcher.action is None, "the node must have been taken away in the middle of ingest"
    assert len([node for node in ray.nodes() if node["Alive"]]) == 2 if ray.is_initialized() else True
    assert sum(count for *_, count in built.counts) == built.num_inputs
    assert content(wanted.out_path()) == content(local)


def test_an_error_names_part_and_image_and_keeps_finished_parts(photos: Path, tmp_path: Path) -> None:
    wanted = recipe(photos, tmp_path / "dataset", "local")
    steps = sigma.pipeline(wanted)
    pipeline.build(wanted, steps[:1], Watcher())
    broken = wanted.out_path() / "tables" / "images" / "part-00003.parquet"
    broken.write_bytes(b"not parquet")
    with pytest.raises(PartFailed, match=r"fingerprint stopped at part 3.*images/part-00003\.parquet: damaged"):
        pipeline.build(wanted, steps, Watcher())
    done = sorted(path.name for path in (wanted.out_path() / "tables" / "fingerprints").glob("part-*"))
    assert done == ["part-00000.parquet", "part-00001.parquet", "part-00002.parquet"]


def test_an_address_without_a_cluster_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from curation.ray_runner import connect

    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(ValueError, match=r"RAY_ADDRESS=127\.0\.0\.1:1: no Ray cluster answers there"):
        connect()
