"""A build as a whole: what it refuses before it writes, in which order it tells, and that it ends where it is done."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from curation import build as pipeline
from curation.build import conserve
from curation.ingest.listing import Listed
from curation.upkeep.doctor import check_dataset
from engine import catalog
from engine.dataset import Dataset
from engine.ledger import COUNTS, counts_of
from engine.preflight import NeedsMissing
from engine.run_log import JobResult, read_runs
from schemas.recipe import DataRecipe
from schemas.tables import schema_of
from tests.building import Told, build, put, recipe, rows, steps, write_pictures
from tests.tiny_models import save_aesthetic_head, save_clip
from tests.trees import content

pytestmark = pytest.mark.slow

MISSING = {"scorer": "laion", "clip": "/no/such/clip", "head": "/no/such/head"}


class InOrder(Told):
    """Keeps the calls as they come."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, object]] = []

    def listed(self, found: Listed) -> None:
        self.calls.append(("listed", found.num_inputs))

    def begin(self, job: str, rows: int) -> None:
        self.calls.append(("begin", (job, rows)))

    def advance(self, job: str, rows: int, counts: Mapping[str, float] = {}, /) -> None:
        if rows and self.calls[-1][0] != "advance":
            self.calls.append(("advance", None))

    def end(self, job: str, result: JobResult | None) -> None:
        self.calls.append(("end", (job, result is not None)))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipeline") / "photos"
    write_pictures(folder, [(48, 32)] * 5)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    head = save_aesthetic_head(folder / "tiny-head.pth")
    return {"scorer": "laion", "clip": str(save_clip(folder / "tiny-clip")), "head": str(head), "device": "cpu"}


# ------------------------------------------------------------------------------------------------ refusals


def test_what_a_new_dataset_needs_is_refused_before_a_folder_is_made(photos: Path, tmp_path: Path) -> None:
    told = InOrder()
    made = recipe(photos, tmp_path / "not" / "yet" / "out", aesthetic=MISSING)
    with pytest.raises(NeedsMissing, match=r"set aesthetic\.head=") as refused:
        pipeline.build(made, steps(made), told)
    assert len(refused.value.lines) == 2
    assert told.calls == []
    assert list(tmp_path.iterdir()) == []


def test_of_a_dataset_that_is_there_a_refusal_changes_nothing(photos: Path, tmp_path: Path) -> None:
    dataset, _ = build(recipe(photos, tmp_path / "out"), upto="fingerprint")
    before = content(dataset.root)
    with pytest.raises(NeedsMissing, match=r"set aesthetic\.clip="):
        build(recipe(photos, tmp_path / "out", aesthetic=MISSING))
    with pytest.raises(ValueError, match=r"ingest\.proxy_px was 1024 and is now 64"):
        build(recipe(photos, tmp_path / "out", ingest={"proxy_px": 64}))
    assert content(dataset.root) == before


def test_only_the_jobs_asked_for_and_not_done_need_anything(
    photos: Path, models: dict[str, str], tmp_path: Path
) -> None:
    own = save_clip(tmp_path / "own-clip")
    made = recipe(photos, tmp_path / "out", aesthetic=models | {"clip": str(own)})
    build(recipe(photos, tmp_path / "early", aesthetic=MISSING), upto="fingerprint")
    build(made, upto="select")
    (own / "model.safetensors").rename(tmp_path / "aside")
    _, told = build(made)  # the scores are there: nobody asks for what made them
    assert next(job for job, result in told.results if result) == "caption"
    with pytest.raises(NeedsMissing, match=r"set aesthetic\.clip="):
        build(made, redo=["aesthetic"])
    with pytest.raises(NeedsMissing, match=r"set aesthetic\.clip="):  # it will be outdated when its turn comes
        build(recipe(photos, tmp_path / "out", aesthetic=made.aesthetic, ingest={"proxy_px": 64}), redo=["ingest"])


def test_inputs_that_are_added_need_everything(photos: Path, models: dict[str, str], tmp_path: Path) -> None:
    own = save_clip(tmp_path / "own-clip")
    write_pictures(tmp_path / "more", [(48, 32)] * 2, first_seed=50)
    sources = [{"path": str(photos)}, {"path": str(tmp_path / "more")}]
    section = models | {"clip": str(own)}
    dataset, _ = build(recipe(None, tmp_path / "out", sources=sources[:1], aesthetic=section), upto="aesthetic")
    (own / "model.safetensors").unlink()
    with pytest.raises(NeedsMissing, match=r"set aesthetic\.clip="):
        build(recipe(None, tmp_path / "out", sources=sources, aesthetic=section), upto="aesthetic")
    assert len(rows(dataset, "listing")) == 5


@pytest.mark.parametrize("is_file", [True, False])
def test_what_is_no_dataset_is_left_alone(photos: Path, tmp_path: Path, is_file: bool) -> None:
    out = tmp_path / "out"
    if is_file:
        out.write_text("mine")
    else:
        out.mkdir()
        (out / "letter.txt").write_text("mine")
        (out / ".lock").touch()  # as in the folder of a training run
    why = "is a file" if is_file else "holds other files and no dataset"
    with pytest.raises(ValueError, match=re.escape(f"out={out}: {why}")):
        build(recipe(photos, out))
    assert (out if is_file else out / "letter.txt").read_text() == "mine"
    assert {path.name for path in tmp_path.rglob("*")} == ({"out"} if is_file else {"out", "letter.txt", ".lock"})


def test_inputs_that_are_not_there_leave_no_dataset(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty"):
        build(recipe(tmp_path / "empty", tmp_path / "out"))
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


# ------------------------------------------------------------------------------------------------ the course of it


def test_the_observer_is_told_in_order_and_a_second_build_does_nothing(photos: Path, tmp_path: Path) -> None:
    made = recipe(photos, tmp_path / "out")
    told = InOrder()
    pipeline.build(made, steps(made, "dedup"), told)
    jobs = [("ingest", 5), ("fingerprint", 5), ("aesthetic", 5)]
    wanted: list[tuple[str, object]] = [("listed", 5)]
    for job in jobs:
        wanted += [("begin", job), ("advance", None), ("end", (job[0], True))]
    assert told.calls == [*wanted, ("begin", ("dedup", 0)), ("end", ("dedup", True))]

    dataset = Dataset(made.out_path())
    before, num_runs = content(dataset.root), len(read_runs(dataset))
    again = InOrder()
    built = pipeline.build(made, steps(made, "dedup"), again)
    assert built.results == []
    ends: list[tuple[str, object]] = [("end", (job, False)) for job in ("ingest", "fingerprint", "aesthetic", "dedup")]
    assert again.calls == [("listed", 5), *ends]
    assert content(dataset.root) == before and len(read_runs(dataset)) == num_runs
    assert built.num_inputs == 5 and sum(count for *_, count in built.counts) == 5


def test_a_ledger_that_does_not_add_up_is_said(photos: Path, tmp_path: Path) -> None:
    dataset, _ = build(recipe(photos, tmp_path / "out"), upto="ingest")
    assert conserve(dataset.held())[1] == 5
    put(dataset, "images", 0, pa.concat_tables([dataset.read_part("images", 0)] * 2))  # three inputs are in it twice
    with pytest.raises(RuntimeError, match=rf"{dataset.root}: the ledger has 8 rows for 5 inputs; run sigma doctor"):
        conserve(dataset.held())


# ------------------------------------------------------------------------------------------------ embeddings


def test_embeddings_that_are_no_longer_stored_are_deleted(photos: Path, models: dict[str, str], tmp_path: Path) -> None:
    stored = recipe(photos, tmp_path / "out", aesthetic=models | {"store_embeddings": True})
    dataset, _ = build(stored, upto="aesthetic")
    assert len(rows(dataset, "embeddings")) == 5
    left_out = recipe(photos, tmp_path / "out", aesthetic=models)
    with pytest.raises(ValueError, match=r"aesthetic\.store_embeddings was True and is now False"):
        build(left_out, upto="aesthetic")
    assert len(rows(dataset, "embeddings")) == 5  # a refused recipe deletes nothing
    build(left_out, upto="aesthetic", redo=["aesthetic"])
    assert dataset.parts("embeddings") == [] and dataset.record("embeddings") is None
    with catalog.connect(dataset) as connection:
        assert connection.sql("FROM embeddings").fetchall() == []
    assert len(rows(dataset, "scores")) == 5


def test_embeddings_without_a_record_go_too(photos: Path, tmp_path: Path) -> None:
    made = recipe(photos, tmp_path / "out")
    dataset, _ = build(made, upto="aesthetic")
    put(dataset, "embeddings", 0, schema_of("embeddings").empty_table())
    dataset.record_path("embeddings").unlink()
    assert isinstance(dataset.read_part("embeddings", 0), pa.Table)
    build(made, upto="aesthetic")
    assert dataset.parts("embeddings") == []


def test_to_compare_embeddings_that_are_not_stored_is_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"dedup\.semantic_threshold: no embeddings are stored; set aesthetic\.store_"):
        DataRecipe.from_mapping({"images": str(photos), "out": str(tmp_path), "dedup": {"semantic_threshold": 0.9}})


# ------------------------------------------------------------------------------------------------ memory


def test_every_connection_of_a_build_takes_the_memory_of_the_recipe(
    small: Dataset, copy_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a build with something to do, of one that only counts, and of a doctor of what they made."""
    limits: list[tuple[str]] = []
    connect = catalog.connect

    def noting(*given: Any, **named: Any) -> duckdb.DuckDBPyConnection:
        connection = connect(*given, **named)
        limits.extend(connection.sql("SELECT current_setting('memory_limit')").fetchall())
        return connection

    monkeypatch.setattr(catalog, "connect", noting)
    dataset = copy_of(small)
    run = {"runner": "local", "threads": 1, "duckdb_memory": "512MB"}
    made = recipe(small.root.parent / "photos", dataset.root, shard={"max_samples": 3}, run=run)
    (dataset.root / COUNTS).unlink()  # the same parts are not counted twice
    build(made, redo=["dedup", "select", "shard"])
    num_building = len(limits)
    assert num_building > 3
    (dataset.root / COUNTS).unlink()
    build(made)
    check_dataset(dataset.root)
    assert len(limits) == num_building + 2
    assert set(limits) == {("488.2 MiB",)}


def test_memory_that_does_not_suffice_for_counting_is_named(small: Dataset, copy_of: Any) -> None:
    dataset = copy_of(small)
    (dataset.root / COUNTS).unlink()  # what was counted before is not counted again
    with pytest.raises(ValueError, match=r"^counting the ledger: run\.duckdb_memory=1MB does not suffice"):
        conserve(dataset.held(), "1MB")


def test_what_was_counted_is_counted_again_once_a_part_is_another_and_where_the_counts_are_damaged(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, _ = build(recipe(photos, tmp_path / "out"), upto="select")
    counts, connected = conserve(dataset.held())[0], list[object]()
    connect = catalog.connect

    def noting(*given: Any, **named: Any) -> duckdb.DuckDBPyConnection:
        connected.append(given)
        return connect(*given, **named)

    monkeypatch.setattr(catalog, "connect", noting)
    assert conserve(dataset.held()) == (counts, 5) and connected == []
    path = dataset.root / COUNTS
    path.write_bytes(path.read_bytes().replace(b"pending", b"pendinq"))
    assert conserve(dataset.held()) == (counts, 5) and len(connected) == 1
    put(dataset, "images", 0, dataset.read_part("images", 0).slice(1))
    assert counts_of(dataset.held()) != counts and len(connected) == 2
    dataset.part("images", 0).unlink()
    assert {count.outcome for count in counts_of(dataset.held())} == {"pending"} and len(connected) == 3


def test_a_record_that_a_copy_lacks_is_written_anew_and_every_byte_stays(photos: Path, tmp_path: Path) -> None:
    made = recipe(photos, tmp_path / "dataset")
    dataset, _ = build(made)
    before = content(dataset.root)
    for path in sorted(dataset.record_path("images").parent.glob("*.json")):
        if path.stem == "listing":  # says what the numbers of the parts mean
            continue
        path.unlink()
        build(made)
        assert content(dataset.root) == before, path.stem
