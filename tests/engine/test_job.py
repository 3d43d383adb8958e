from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from captioning.captioners.attributes import AttributesCaptioner
from captioning.captioners.base import Generated
from captioning.captioners.make import CAPTIONERS
from engine import catalog
from engine.dataset import Dataset
from engine.job import State, _changed_knob
from engine.run_log import read_runs
from engine.runner import LazyRunner, PartFailed
from schemas.recipe import DataRecipe
from tests.building import build, computed, recipe, rows, steps, write_pictures
from tests.trees import content

pytestmark = pytest.mark.slow

SIZES = [(96, 64)] * 4 + [(80, 60)] * 2 + [(64, 96)] * 2
"""Two of them fall to a short side of 62 px."""


class CountingCaptioner(AttributesCaptioner):
    """Says how large a picture is, and counts how often it was asked."""

    name, batch_size = "counting", 2
    asked = 0

    def caption(self, images: Sequence[Image.Image], seeds: Sequence[int]) -> list[Generated]:
        CountingCaptioner.asked += len(images)
        return [Generated(f"A picture {image.width} px wide.") for image in images]


@pytest.fixture(autouse=True)
def captioner(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[CountingCaptioner]]:
    monkeypatch.setitem(CAPTIONERS, "attributes", lambda section: CountingCaptioner())
    CountingCaptioner.asked = 0
    yield CountingCaptioner


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("job") / "photos"
    write_pictures(folder, SIZES)
    return folder


def made(photos: Path, out: Path, **sections: Any) -> DataRecipe:
    return recipe(photos, out, **({"shard": {"max_samples": 2}} | sections))


def states(made: DataRecipe, redo: Sequence[str] = ()) -> dict[str, State]:
    held = Dataset(made.out_path()).held()
    return {step.outputs[-1]: step.state(held, step.job in redo) for step in steps(made)}


def stamps(dataset: Dataset, *tables: str) -> dict[Path, tuple[int, int]]:
    """Inode and time of every file of some tables: a file that is written again has others."""
    paths = [path for table in tables for path in dataset.parts(table)]
    assert paths
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}


# ------------------------------------------------------------------------------------------------ states


def test_a_job_is_new_begun_done_or_outdated(photos: Path, tmp_path: Path, built: Dataset, copy_of: Any) -> None:
    assert set(states(made(photos, tmp_path / "ds")).values()) == {State.NEW}
    dataset = copy_of(built)
    first = made(photos, dataset.root)
    assert set(states(first).values()) == {State.DONE}
    dataset.part("scores", 1).unlink()
    dataset.part("shard_plan", 0).unlink()
    found = states(first)
    assert [table for table, state in found.items() if state is State.BEGUN] == ["scores", "shard_plan"]
    other = made(photos, dataset.root, select={"min_short_side_px": 62})
    build(other, upto="select", redo=["select"])
    found = states(other)
    assert [table for table, state in found.items() if state is State.OUTDATED] == ["captions", "mix"]
    assert found["shard_plan"] is State.BEGUN, "what is not there was made from nothing"
    assert found["selection"] is found["scores"] is State.DONE


def test_a_finished_dataset_starts_no_runner(
    photos: Path, built: Dataset, copy_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = copy_of(built)
    before = content(dataset.root)
    num_runs = len(read_runs(dataset))
    monkeypatch.setattr(LazyRunner, "get", lambda *_: pytest.fail("a runner was started"))
    _, told = build(made(photos, dataset.root))
    assert all(result is None for _, result in told.results)
    assert len(told.results) == 10
    assert told.began == []
    assert content(dataset.root) == before
    assert len(read_runs(dataset)) == num_runs


def test_a_part_that_was_lost_is_all_that_is_computed(photos: Path, built: Dataset, copy_of: Any) -> None:
    dataset = copy_of(built)
    for table in ("images", "scores", "captions"):
        dataset.part(table, 1).unlink()
    _, told = build(made(photos, dataset.root))
    assert computed(told) == {"images": 1, "scores": 1, "captions": 1}
    assert content(dataset.root) == content(built.root)


def test_a_job_that_wrote_nothing_may_be_told_another_way_to_run(photos: Path, built: Dataset, tmp_path: Path) -> None:
    server = {"url": "http://127.0.0.1:1/v1", "model": "m", "retries": 0}
    with pytest.raises(PartFailed, match=r"caption stopped at part 0: .* no server answers there"):
        build(made(photos, tmp_path / "ds", caption={"captioner": "endpoint", "endpoint": server}))
    dataset, _ = build(made(photos, tmp_path / "ds"))
    assert content(dataset.root) == content(built.root)


def test_a_lost_record_takes_the_parts_over(photos: Path, built: Dataset, copy_of: Any) -> None:
    dataset = copy_of(built)
    dataset.record_path("scores").unlink()
    _, told = build(made(photos, dataset.root))
    assert computed(told) == {"scores": 0}
    assert content(dataset.root) == content(built.root)


# ------------------------------------------------------------------------------------------------ other knobs


@pytest.mark.parametrize(
    ("sections", "knob", "job", "back"),
    [
        ({"ingest": {"proxy_px": 64}}, "ingest.proxy_px was 1024 and is now 64", "ingest", "ingest.proxy_px=1024"),
        (
            {"dedup": {"max_distance": None}},
            "dedup.max_distance was 3 and is now None",
            "dedup",
            "dedup.max_distance=3",
        ),
        (
            {"select": {"max_aspect": 2.5}},
            "select.max_aspect was 4.0 and is now 2.5",
            "select",
            "select.max_aspect=4.0",
        ),
        ({"mix": {"salt": "again"}}, "mix.salt was 'mix' and is now 'again'", "mix", "mix.salt=mix"),
        ({"seed": 3}, "seed was 0 and is now 3", "shard", "seed=0"),
        (
            {"mix": {"synthetic_share": 0.5, "salt": "b"}},
            "mix.salt was 'mix' and is now 'b', mix.synthetic_share was 0.6 and is now 0.5",
            "mix",
            "mix.salt=mix mix.synthetic_share=0.6",
        ),
    ],
)
def test_a_changed_knob_is_refused_by_name_with_what_sets_it_back(
    photos: Path, built: Dataset, sections: dict[str, Any], knob: str, job: str, back: str
) -> None:
    before = content(built.root)
    with pytest.raises(ValueError) as refused:
        build(made(photos, built.root, **sections))
    assert str(refused.value) == (
        f"{built.root}: made by another recipe: {knob}; add --redo {job} to compute {job} and what depends on it anew, "
        f"set it back with {back}, or name another out"
    )
    assert content(built.root) == before


def test_what_sets_a_knob_back_is_given_where_one_can_type_it() -> None:
    was, now = {"select.max_aspect": None, "mix.salt": "a"}, {"select.max_aspect": 2.0, "mix.salt": "a"}
    assert "set it back with select.max_aspect=null, or" in _changed_knob(Dataset(Path("/d")), "select", was, now)
    for value in ([1, 2], {"a": 1}, "two words", "", "null"):
        was, now = {"select.subsets": value}, {"select.subsets": 3}
        assert "anew, set it back, or" in _changed_knob(Dataset(Path("/d")), "select", was, now)


def test_a_knob_that_came_or_went_with_a_version_is_named_although_it_is_null() -> None:
    was = {"select.max_aspect": 4.0, "select.old": None}
    now = {"select.max_aspect": 4.0, "select.max_nsfw": None}
    assert _changed_knob(Dataset(Path("/d")), "select", was, now) == (
        "/d: made by another recipe or version of sigma: select.max_nsfw did not count and is now None, select.old was "
        "None and does not count now; add --redo select to compute select and what depends on it anew, set it back, or "
        "name another out"
    )


@pytest.fixture(scope="module")
def built(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A finished dataset that no test changes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(CAPTIONERS, "attributes", lambda section: CountingCaptioner())
        return build(made(photos, tmp_path_factory.mktemp("built") / "ds"))[0]


def test_a_second_changed_knob_is_found_before_anything_is_touched(photos: Path, built: Dataset) -> None:
    before = content(built.root)
    with pytest.raises(ValueError, match="seed was 0 and is now 9; add --redo shard"):
        build(made(photos, built.root, mix={"salt": "b"}, seed=9), redo=["mix"])
    assert content(built.root) == before


def test_how_the_jobs_run_is_no_knob(photos: Path, built: Dataset) -> None:
    _, told = build(made(photos, built.root, run={"runner": "local", "threads": 3, "workers": 7}))
    assert computed(told) == {}


@pytest.mark.parametrize(
    ("sections", "job", "expected"),
    [
        ({"mix": {"salt": "b"}}, "mix", ["mix", "shard_plan", "samples"]),
        ({"seed": 5}, "shard", ["shard_plan", "samples"]),
        ({"select": {"min_short_side_px": 62}}, "select", ["selection", "captions", "mix", "shard_plan", "samples"]),
        (
            {"dedup": {"max_distance": 1}},  # groups the same pictures: nothing is made from anything else
            "dedup",
            ["duplicates"],
        ),
        ({"shard": {"max_samples": 2, "resize_longest_px": 80}}, "shard", ["shard_plan", "samples"]),
    ],
)
def test_redo_computes_what_depends_on_the_knob(
    photos: Path, built: Dataset, tmp_path: Path, copy_of: Any, sections: dict[str, Any], job: str, expected: list[str]
) -> None:
    dataset = copy_of(built)
    every = [step.outputs[-1] for step in steps(made(photos, dataset.root))]
    before = stamps(dataset, *(table for table in every if table not in expected))
    _, told = build(made(photos, dataset.root, **sections), redo=[job])
    assert list(computed(told)) == expected
    assert stamps(dataset, *(table for table in every if table not in expected)) == before
    fresh, _ = build(made(photos, tmp_path / "fresh", **sections))
    assert content(dataset.root) == content(fresh.root)


def test_setting_a_knob_back_gives_the_first_dataset_back(photos: Path, built: Dataset, copy_of: Any) -> None:
    dataset = copy_of(built)
    build(made(photos, dataset.root, mix={"salt": "b"}), redo=["mix"])
    assert content(dataset.root) != content(built.root)
    build(made(photos, dataset.root), redo=["mix"])
    assert content(dataset.root) == content(built.root)


def test_redo_of_an_unchanged_job_gives_the_same_bytes(photos: Path, built: Dataset, copy_of: Any) -> None:
    dataset = copy_of(built)
    before = stamps(dataset, "scores")
    _, told = build(made(photos, dataset.root), redo=["aesthetic"])
    assert computed(told)["scores"] == 3
    assert stamps(dataset, "scores") != before
    assert content(dataset.root) == content(built.root)


def test_redo_after_an_original_changed_renews_all_that_was_made_from_it(photos: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos", SIZES)
    first = made(tmp_path / "photos", tmp_path / "ds")
    dataset, _ = build(first)
    CountingCaptioner.asked = 0
    data = (tmp_path / "photos" / "007.jpg").read_bytes()
    (tmp_path / "photos" / "000.jpg").write_bytes(data + b"\0")  # listed, and now the double of another
    before = stamps(dataset, "listing")
    _, told = build(first, redo=["ingest"])
    assert stamps(dataset, "listing") == before
    assert computed(told)["fingerprints"] == computed(told)["scores"] == 1  # two of three parts are as they were
    samples, images = rows(dataset, "samples"), rows(dataset, "images")
    falls = max((0, 7), key=lambda row: images[row]["image_id"])  # of equals the lowest id stays
    assert CountingCaptioner.asked == (1 if falls == 7 else 0)
    verdicts = [row["rejected_by"] for row in rows(dataset, "selection")]
    assert verdicts == ["duplicate" if row == falls else None for row in range(8)]
    assert {row["key"] for row in samples} == {row["image_id"] for row in images} - {images[falls]["image_id"]}
    assert all(row["reason"] is None for row in samples)


def test_a_redo_that_was_stopped_leaves_no_table_that_outlives_its_input(
    photos: Path, built: Dataset, copy_of: Any, stop_at: Any
) -> None:
    dataset = copy_of(built)
    for renames in (1, 3, 5, 7):
        stop_at(renames)
        with pytest.raises(Stopped):
            build(made(photos, dataset.root), redo=["ingest"])
        stop_at(-1)
    assert {state for table, state in states(made(photos, dataset.root)).items()} >= {State.OUTDATED}
    build(made(photos, dataset.root))
    assert content(dataset.root) == content(built.root)


def test_redo_writes_a_shard_again_that_was_damaged(photos: Path, built: Dataset, copy_of: Any) -> None:
    dataset = copy_of(built)
    tar = sorted(dataset.shards.glob("*/*.tar"))[0]
    tar.write_bytes(bytes(tar.stat().st_size))
    build(made(photos, dataset.root), redo=["shard"])
    assert content(dataset.root) == content(built.root)


def test_redo_of_the_captions_asks_the_captioner_again(photos: Path, built: Dataset, copy_of: Any) -> None:
    dataset = copy_of(built)
    build(made(photos, dataset.root), redo=["caption"])
    assert CountingCaptioner.asked == len(SIZES)
    assert content(dataset.root) == content(built.root)


# ------------------------------------------------------------------------------------------------ nothing twice

EXPENSIVE = ("images", "proxies", "fingerprints", "scores", "duplicates")


def test_a_moved_threshold_scores_nothing_again(photos: Path, built: Dataset, copy_of: Any) -> None:
    dataset = copy_of(built)
    before = stamps(dataset, *EXPENSIVE)
    build(made(photos, dataset.root, select={"min_short_side_px": 62, "min_aesthetic": 1.5}), redo=["select"])
    assert [row["rejected_by"] for row in rows(dataset, "selection")].count("too_small") == 2
    assert stamps(dataset, *EXPENSIVE) == before


def test_captions_that_were_paid_for_are_taken_over(photos: Path, tmp_path: Path) -> None:
    strict = made(photos, tmp_path / "ds", select={"min_short_side_px": 62})
    build(strict)
    assert CountingCaptioner.asked == 6
    build(made(photos, tmp_path / "ds"), redo=["select"])  # looser: the two that come back are asked for
    assert CountingCaptioner.asked == 8
    build(strict, redo=["select"])
    assert CountingCaptioner.asked == 8
    build(made(photos, tmp_path / "ds", mix={"salt": "b"}, select={"min_short_side_px": 62}), redo=["mix"])
    assert CountingCaptioner.asked == 8


def test_a_caption_outlives_the_threshold_that_rejects_its_picture(photos: Path, built: Dataset, copy_of: Any) -> None:
    dataset = copy_of(built)
    build(made(photos, dataset.root, select={"min_short_side_px": 62}), redo=["select"])
    build(made(photos, dataset.root), redo=["select"])
    assert CountingCaptioner.asked == 0, "all are in the dataset's journal"


def test_unchanged_shards_are_taken_over(photos: Path, built: Dataset, copy_of: Any) -> None:
    dataset = copy_of(built)
    tall = sorted(dataset.shards.glob("1.46/*.tar"))
    wide = sorted(dataset.shards.glob("0.68/*.tar")) + sorted(dataset.shards.glob("0.7*/*.tar"))
    assert (len(tall), len(wide)) == (1, 3)
    before = {path: (path.stat().st_ino, path.read_bytes()) for path in tall + wide}
    limits = {"min_short_side_px": 1, "subsets": {"tall": "aspect > 1"}}  # changes what the tall ones carry
    _, told = build(made(photos, dataset.root, select=limits), redo=["select"])
    assert computed(told)["samples"] == 1
    after = {path: (path.stat().st_ino, path.read_bytes()) for path in tall + wide}
    assert [path for path in after if after[path] != before[path]] == tall


def test_a_smaller_plan_leaves_no_shard_behind(photos: Path, tmp_path: Path, built: Dataset, copy_of: Any) -> None:
    dataset = copy_of(built)
    assert len(dataset.held().shards or ()) == 4
    build(made(photos, dataset.root, shard={}), redo=["shard"])
    assert len(dataset.held().shards or ()) == 3
    assert len(dataset.parts("samples")) == len(list(dataset.shards.glob("*/*.tar"))) == 3
    fresh, _ = build(made(photos, tmp_path / "fresh", shard={}))
    assert content(dataset.root) == content(fresh.root)


def test_shards_are_counted_without_opening_the_plan(built: Dataset, copy_of: Any) -> None:
    dataset = copy_of(built)
    dataset.part("shard_plan", 0).write_bytes(b"no Parquet")
    held = dataset.held()
    assert len(held.shards or ()) == len(held.parts("samples")) == 4


def test_a_bucket_that_empties_leaves_no_folder_of_tars(photos: Path, built: Dataset, copy_of: Any) -> None:
    dataset = copy_of(built)
    build(made(photos, dataset.root, select={"min_short_side_px": 62}), redo=["select"])
    assert len(dataset.parts("samples")) == len(list(dataset.shards.rglob("*.tar"))) == 3


# ------------------------------------------------------------------------------------------------ interruptions


class Stopped(BaseException):
    """As if the process had been killed."""


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make the n-th renaming fail, which is how files are committed, put aside and taken over; -1 lets all pass."""
    rename, left = Path.rename, [-1]

    def counted(path: Path, target: Path) -> Path:
        if left[0] == 0:
            raise Stopped
        left[0] -= 1
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", counted)
    return lambda number: left.__setitem__(0, number)


@pytest.mark.parametrize("renames", [0, 4, 9, 17, 25, 30])
def test_a_redo_that_was_stopped_anywhere_ends_as_an_undisturbed_build(
    photos: Path, built: Dataset, redone: dict[str, str], copy_of: Any, stop_at: Any, renames: int
) -> None:
    dataset = copy_of(built)
    changed = made(photos, dataset.root, select={"min_short_side_px": 62}, shard={"max_samples": 3})
    stop_at(renames)
    with pytest.raises(Stopped):
        build(changed, redo=["select", "shard"])
    stop_at(-1)
    with catalog.connect(dataset) as connection:  # what is there can be asked, and every input is one row
        assert connection.execute("SELECT count(*) FROM ledger").fetchone() == (len(SIZES),)
    try:
        build(changed)
    except ValueError as error:
        assert "--redo" in str(error)
        build(changed, redo=["select", "shard"])
    assert content(dataset.root) == redone


@pytest.fixture(scope="module")
def redone(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(CAPTIONERS, "attributes", lambda section: CountingCaptioner())
        out = tmp_path_factory.mktemp("redone") / "ds"
        changed = made(photos, out, select={"min_short_side_px": 62}, shard={"max_samples": 3})
        return content(build(changed)[0].root)


def test_a_redo_that_was_stopped_and_then_taken_back_gives_the_first_dataset_back(
    photos: Path, built: Dataset, copy_of: Any, stop_at: Any
) -> None:
    dataset = copy_of(built)
    for renames in (4, 12, 15, 18):
        stop_at(renames)
        with pytest.raises(Stopped):
            build(made(photos, dataset.root, mix={"salt": "b"}), redo=["mix"])
        stop_at(-1)
        build(made(photos, dataset.root), redo=["mix"])
        assert content(dataset.root) == content(built.root)


# ------------------------------------------------------------------------------------------------ what ran, errors


def test_every_run_is_written_down(photos: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos", SIZES)
    (tmp_path / "photos" / "bad.jpg").write_bytes(b"")
    dataset, _ = build(made(tmp_path / "photos", tmp_path / "ds", select={"min_short_side_px": 62}))
    runs = {tuple(run["tables"]): run for run in read_runs(dataset)}
    assert [run["job"] for run in read_runs(dataset)][:3] == ["ingest", "fingerprint", "aesthetic"]
    ingest = runs["proxies", "images"]
    assert (ingest["rows"], ingest["rows_by_reason"]) == (9, {"empty": 1})
    assert (ingest["parts"], ingest["parts_computed"]) == (3, 3)
    assert runs[("selection",)]["rows_by_reason"] == {"too_small": 2}
    assert runs[("captions",)]["rows_by_reason"] == {"not_selected": 3}
    assert ingest["versions"]["pillow"]
    assert ingest["seconds"] >= 0


def test_a_damaged_table_is_named_with_what_to_do(photos: Path, built: Dataset, copy_of: Any) -> None:
    dataset = copy_of(built)
    path = dataset.part("scores", 1)
    path.write_bytes(dataset.part("mix", 1).read_bytes())
    with pytest.raises(ValueError, match=rf"select: .*sigma doctor {dataset.root} names it"):
        build(made(photos, dataset.root, select={"max_aspect": 2}), redo=["select"])
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(ValueError, match=f"{path}: damaged .*; delete it and run sigma build again"):
        build(made(photos, dataset.root, select={"max_aspect": 2}), redo=["select"])


def test_a_condition_that_fails_on_a_row_is_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"select: Conversion Error: .*JPEG"):
        build(made(photos, tmp_path / "ds", select={"subsets": {"x": "format::INTEGER > 3"}}))
