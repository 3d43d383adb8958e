"""The forecast of a folder of a known mix, against the dataset that a full build makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from captioning.nouns import shared_extractor
from commands import order
from curation.forecast.estimate import Estimate
from curation.forecast.facts import facts_of, gpu_workers
from curation.forecast.forecast import (
    MEASURED,
    REFERENCED,
    UNKNOWN,
    Facts,
    Forecast,
    JobFacts,
    forecast,
    shards_of,
    size_of,
    with_remarks,
)
from curation.forecast.sample import build_sample, sampled
from engine.dataset import Dataset
from schemas.recipe import DataRecipe
from tests.building import Told, build, recipe, write_pictures

pytestmark = pytest.mark.slow

NUM_TALL, NUM_WIDE, NUM_SMALL, NUM_BAD = 30, 60, 40, 20
SHARD = {"max_samples": 20}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mix")
    write_pictures(folder, [(64, 96)] * NUM_TALL + [(96, 64)] * NUM_WIDE + [(40, 30)] * NUM_SMALL)
    for number in range(NUM_BAD):
        (folder / f"bad{number:02d}.jpg").write_bytes(b"<html>" + bytes([number]))
    return folder


def made(photos: Path, out: Path) -> DataRecipe:
    return recipe(photos, out, part_rows=50, select={"min_short_side_px": 50}, shard=SHARD)


@pytest.fixture(scope="module")
def built(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return build(made(photos, tmp_path_factory.mktemp("full") / "dataset"), without=())[0]


def forecast_of(data: DataRecipe, size: int) -> Forecast:
    with sampled(data, size) as sample:
        steps = order.pipeline(sample.recipe)
        build_sample(sample, steps, Told())
        facts = facts_of(sample, steps)
    found = forecast(facts, data.shard.megabytes, data.shard.max_samples, [1, 4])
    return with_remarks(found, facts, 10**12, 0, data.out)


@pytest.fixture(scope="module")
def of_60(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Forecast:
    shared_extractor.cache_clear()  # that it is loaded is measured
    return forecast_of(made(photos, tmp_path_factory.mktemp("plan") / "dataset"), 60)


def holds(estimate: Estimate, truth: float) -> bool:
    return estimate.low <= truth <= estimate.high and estimate.low < estimate.high


def bytes_under(folder: Path, pattern: str) -> int:
    return sum(path.stat().st_size for path in folder.rglob(pattern))


def test_the_intervals_hold_what_a_full_build_gives(of_60: Forecast, built: Dataset) -> None:
    assert (of_60.num_inputs, of_60.num_sampled) == (150, 60)
    assert holds(of_60.survivors, NUM_TALL + NUM_WIDE)
    by_reason = {row.reason: row.inputs for row in of_60.outcomes}
    assert by_reason.keys() == {"too_small", "not_an_image"}
    assert holds(by_reason["too_small"], NUM_SMALL)
    assert holds(by_reason["not_an_image"], NUM_BAD)
    assert sum(row.in_sample for row in of_60.outcomes) < 60


def test_disk_is_what_a_full_build_takes(of_60: Forecast, built: Dataset) -> None:
    proxies = bytes_under(built.tables / "proxies", "*.parquet")
    tables = bytes_under(built.tables, "*.parquet") + (built.shards / "index.parquet").stat().st_size - proxies
    assert holds(of_60.disk["shards"], bytes_under(built.shards, "*.tar"))
    assert of_60.disk["proxies"].value == pytest.approx(proxies, rel=0.2)
    assert of_60.disk["tables"].value == pytest.approx(tables, rel=0.2)
    whole = of_60.disk["all"]
    assert whole.value == pytest.approx(sum(of_60.disk[name].value for name in ("tables", "proxies", "shards")))
    assert holds(whole, tables + proxies + bytes_under(built.shards, "*.tar"))


def test_the_buckets_add_up_to_the_survivors(of_60: Forecast, built: Dataset) -> None:
    assert sum(bucket.images.value for bucket in of_60.buckets) == pytest.approx(of_60.survivors.value)
    for bucket in of_60.buckets:
        assert bucket.shards.low <= len(list((built.shards / bucket.bucket).glob("*.tar"))) <= bucket.shards.high
        assert holds(bucket.images, {"0.68": NUM_WIDE, "1.46": NUM_TALL}[bucket.bucket])


def test_every_job_is_measured_scaled_or_said_to_be_unknown(of_60: Forecast) -> None:
    basis = {job.table: job.basis for job in of_60.jobs}
    assert {basis[name] for name in ("listing", "images", "captions", "nouns", "samples")} == {MEASURED}
    assert {basis[name] for name in ("duplicates", "selection", "statistics")} == {REFERENCED}
    assert basis["shard_plan"] == UNKNOWN
    jobs = {job.table: job for job in of_60.jobs}
    assert jobs["nouns"].start_s > 0  # the extractor loads a word list
    ingest = jobs["images"]
    assert ingest.cpu_hours is not None
    assert ingest.cpu_hours > 0
    assert ingest.wall_s[1] - ingest.start_s == pytest.approx(4 * (ingest.wall_s[4] - ingest.start_s))  # it has 5 parts
    assert any("shard_plan: not forecast" in note for note in of_60.notes)
    assert any("benchmarks.md" in note for note in of_60.notes)


@pytest.mark.parametrize("all_synthetic", [True, False])
def test_inputs_without_captions_are_said_to_make_an_all_synthetic_mix(all_synthetic: bool) -> None:
    facts = Facts(10, 10, 1, [], 0, {}, [1.0] * 10, [0.0] * 10, {}, [], all_synthetic=all_synthetic)
    notes = with_remarks(forecast(facts, 512, 100, [1]), facts, 10**12, 0, "there").notes
    assert ("no input has a caption of its own: the mix will be all synthetic" in notes) == all_synthetic


@pytest.mark.parametrize(("gpu_workers", "at_once"), [(None, 8), (2, 2), (100, 8)])
def test_a_job_that_holds_gpus_gets_no_more_workers_than_they_have_room_for(
    gpu_workers: int | None, at_once: int
) -> None:
    job = JobFacts("caption", "captions", False, 12.0, busy_s=10.0, gpu_s=10.0, start_s=3.0, gpu_workers=gpu_workers)
    facts = Facts(1000, 10, 50, [], 0, {}, [1.0] * 10, [0.0] * 10, {}, [job])
    found = forecast(facts, 512, 100, [1, 8])
    assert found.jobs[0].wall_s == {1: 3 + 1000, 8: 3 + 1000 / at_once}
    assert found.jobs[0].gpu_hours == pytest.approx(1000 / 3600)
    notes = with_remarks(found, facts, 10**12, 0, "there").notes
    told = [note for note in notes if "have room for" in note]
    assert [f"captions {gpu_workers}" in note for note in told] == ([True] if gpu_workers else [])
    alone = "sigma build --only caption 0.28 GPU-hours; sigma build for the rest 0.00 CPU-hours"
    assert f"in allocations of their own: {alone}" in notes


@pytest.mark.parametrize(
    ("num_gpus", "entry", "wanted"),
    [
        (None, {}, None),  # nothing ran on a GPU
        (None, {"timed_parts": 4, "visible_gpus": 0, "busy_gpu_s": 0.0}, None),
        (None, {"timed_parts": 4, "visible_gpus": 8, "busy_gpu_s": 3.0}, 2),
        (0.25, {"timed_parts": 4, "visible_gpus": 8, "busy_gpu_s": 3.0}, 8),
        (4, {"timed_parts": 4, "visible_gpus": 8, "busy_gpu_s": 3.0}, 1),
        (1, {"timed_parts": 4, "visible_gpus": 4, "busy_gpu_s": 3.0, "gpu_workers": 6.0}, 6),  # of a cluster
    ],
)
def test_how_many_workers_gpus_have_room_for(
    num_gpus: float | None, entry: dict[str, float], wanted: int | None
) -> None:
    assert gpu_workers(num_gpus, entry) == wanted


def test_a_sample_of_everything_is_the_whole_and_has_no_interval(photos: Path, built: Dataset, tmp_path: Path) -> None:
    found = forecast_of(made(photos, tmp_path / "dataset"), 10_000)
    assert found.is_whole()
    assert found.survivors == Estimate(90, 90, 90)
    assert {row.reason: row.inputs for row in found.outcomes} == {
        "too_small": Estimate(40, 40, 40),
        "not_an_image": Estimate(20, 20, 20),
    }
    tars = bytes_under(built.shards, "*.tar")
    num_shards = len(list(built.shards.rglob("*.tar")))
    assert found.disk["shards"].value == tars - 1024 * num_shards  # but for the end mark of each tar
    assert found.disk["proxies"].value == pytest.approx(bytes_under(built.tables / "proxies", "*.parquet"))
    assert found.disk["all"].low == found.disk["all"].high
    assert sum(bucket.shards.value for bucket in found.buckets) == num_shards
    assert not any("duplicates:" in note for note in found.notes)


def test_copies_are_counted_in_the_survivors_and_spoken_of(tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos", [(96, 64)] * 40)
    for number in range(20):
        (tmp_path / "photos" / f"copy{number}.jpg").write_bytes(
            (tmp_path / "photos" / f"{number:03d}.jpg").read_bytes()
        )
    data = recipe(tmp_path / "photos", tmp_path / "dataset", part_rows=50)
    found = forecast_of(data, 50)
    assert found.survivors.value == 60
    assert found.duplicate_pairs_in_sample > 5
    assert found.duplicate_pairs is not None
    assert holds(found.duplicate_pairs, 20)
    assert "duplicate" not in {row.reason for row in found.outcomes}
    whole = forecast_of(data, 60)
    assert whole.survivors.value == 40
    assert {row.reason: row.in_sample for row in whole.outcomes} == {"duplicate": 20}


def test_too_little_room_is_a_warning(photos: Path, tmp_path: Path, of_60: Forecast) -> None:
    with sampled(made(photos, tmp_path / "dataset"), 20) as sample:
        steps = order.pipeline(sample.recipe)
        build_sample(sample, steps, Told())
        facts = facts_of(sample, steps)
    found = forecast(facts, 512, 20, [1])
    short = with_remarks(found, facts, 1000, 0, "there")
    assert short.warnings[0].startswith("disk: there needs ")
    assert "1 kB are free" in short.warnings[0]
    assert not any("disk" in line for line in with_remarks(found, facts, 10**12, 0, "there").warnings)
    assert not any("disk" in line for line in with_remarks(found, facts, 0, 10**12, "there").warnings)


def test_shards_are_cut_as_the_plan_cuts_them() -> None:
    assert shards_of(0, 0, 1e6, 10) == 0
    assert shards_of(10, 1000, 1e6, 10) == 1
    assert shards_of(11, 1000, 1e6, 10) == 2
    assert shards_of(100, 2_500_000, 1e6, 1000) == 3


def test_sizes_are_short() -> None:
    assert [size_of(size) for size in (950, 1234, 34.5e9, 2e15)] == ["950 B", "1.23 kB", "34.5 GB", "2,000.0 TB"]


def test_nothing_in_it_is_infinite_in_json(of_60: Forecast) -> None:
    from commands.planning import as_json

    assert "Infinity" not in json.dumps(as_json(of_60))
