"""An evaluation set is a dataset, in MJHQ's layout too, that readers of prompts and of training data take."""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
from pathlib import Path

import pytest

from engine.dataset import Dataset
from evaluation.build_set import Made, build_set, set_digest
from evaluation.prompts import read_prompts
from schemas.evaluation_set import EvaluationSet
from schemas.recipe import DataRecipe, Run
from schemas.scores import LATER
from schemas.shard_index import read_index
from tests.building import build, recipe, rows, steps
from tests.dying import Died, dying_at

KNOBS = EvaluationSet(
    categories={"animals": ("cat", "horse", "snake"), "things": ("coin", "cup")},
    per_category=2,
    min_short_side_px=200,
    aesthetic_share=1,
    run=Run(runner="local", threads=1),
)


def light(made: DataRecipe) -> list[object]:
    return steps(made)


@pytest.fixture(scope="module")
def made(demo: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return build_set(demo, tmp_path_factory.mktemp("sets") / "set", KNOBS, light)


def everything(root: Path) -> dict[str, bytes]:
    """All files of a set but for logs, caches and what names its place."""
    left_out = (".lock", ".ledger", "catalog.duckdb", "recipe.yaml", "runs", "tables")
    paths = [path for path in root.rglob("*") if path.is_file() and path.relative_to(root).parts[0] not in left_out]
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}


@pytest.mark.slow
def test_a_set_is_read_as_prompts_as_mjhq_and_as_a_dataset(made: Made) -> None:
    prompts = read_prompts(made.folder)
    assert [prompt.category for prompt in prompts] == ["animals"] * 2 + ["things"] * 2
    assert read_prompts(made.folder, "mjhq") == prompts == read_prompts(made.folder, "set")
    captions = {prompt.prompt_id: prompt.prompt for prompt in read_prompts(made.folder, "dataset")}
    assert captions == {prompt.prompt_id: prompt.prompt for prompt in prompts}


@pytest.mark.slow
def test_the_choices_on_record_leave_out_a_later_limit_that_is_null(made: Made) -> None:
    text = (made.folder / "evaluation_set.yaml").read_text(encoding="utf-8")
    assert "max_border:" in text and not any(f"{knob}:" in text for knob in LATER)


@pytest.mark.slow
def test_pictures_are_the_originals_bytes_in_mjhqs_layout_and_in_the_shards(made: Made, demo: Dataset) -> None:
    originals = {row["image_id"]: Path(row["source"], row["member"]) for row in rows(demo, "images") if row["image_id"]}
    index = {row["image_id"]: row for row in read_index(Dataset(made.folder).shards).to_pylist()}
    for prompt in read_prompts(made.folder):
        [copy] = (made.folder / "imgs" / str(prompt.category)).glob(f"{prompt.prompt_id}.*")
        data = originals[prompt.prompt_id].read_bytes()
        assert copy.read_bytes() == data
        row = index[prompt.prompt_id]
        with tarfile.open(made.folder / "shards" / row["shard"]) as tar:
            member, text = (tar.extractfile(f"{prompt.prompt_id}.{end}") for end in (row["image_ext"], "txt"))
            assert member is not None and text is not None
            assert (member.read(), text.read().decode()) == (data, prompt.prompt)


@pytest.mark.slow
def test_the_digest_names_prompts_and_pictures_whatever_their_order(made: Made) -> None:
    found = [json.loads(line) for line in (made.folder / "prompts.jsonl").read_text(encoding="utf-8").splitlines()]
    assert set_digest(found) == set_digest(found[::-1]) == made.digest
    assert set_digest([found[0] | {"prompt": "another"}, *found[1:]]) != made.digest
    for row in found:
        assert hashlib.sha256((made.folder / row["picture"]).read_bytes()).hexdigest() == row["sha256"]
    card = (made.folder / "README.md").read_text(encoding="utf-8")
    assert made.digest in card and "| animals | cat, horse, snake | 2 |" in card and "per_category: 2" in card


@pytest.mark.slow
def test_dedup_against_the_set_keeps_its_pictures_out_of_training(made: Made, demo: Dataset, tmp_path: Path) -> None:
    photos = rows(demo, "images")[0]["source"]
    training, _ = build(recipe(Path(photos), tmp_path / "training", dedup={"against": [str(made.folder)]}), "select")
    refused = {row["image_id"] for row in rows(training, "selection") if row["rejected_by"] == "in_other_dataset"}
    assert refused >= {prompt.prompt_id for prompt in read_prompts(made.folder)}


@pytest.mark.slow
def test_a_set_that_was_killed_is_taken_up_and_has_the_same_bytes(made: Made, demo: Dataset, tmp_path: Path) -> None:
    out, change = tmp_path / "set", 0
    for change in (0, 1, 3, 12, 40):
        with pytest.raises(Died), dying_at(change):
            build_set(demo, out, KNOBS, light)
        assert not (out / "prompts.jsonl").exists()
        with pytest.raises(ValueError, match=r"set|holds no prompt|no such|index"):
            read_prompts(out)
    with pytest.raises(Died), dying_at(0, only="prompts.jsonl"):
        build_set(demo, out, KNOBS, light)
    assert not (out / "prompts.jsonl").exists()
    assert build_set(demo, out, KNOBS, light).digest == made.digest
    assert everything(out) == everything(made.folder)
    assert build_set(demo, out, KNOBS, light).digest == made.digest
    assert everything(out) == everything(made.folder)


@pytest.mark.slow
def test_another_set_or_other_files_are_left_alone(made: Made, demo: Dataset, tmp_path: Path) -> None:
    before = everything(made.folder)
    other = KNOBS.model_copy(update={"per_category": 1})
    with pytest.raises(ValueError, match=r"other choices \('per_category: 2' there, 'per_category: 1' now\)"):
        build_set(demo, made.folder, other, light)
    with pytest.raises(ValueError, match="holds other files and no evaluation set"):
        build_set(demo, demo.root, KNOBS, light)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a file"):
        build_set(demo, tmp_path / "file", KNOBS, light)
    assert everything(made.folder) == before


def test_nothing_is_written_where_there_are_too_few_pictures(demo: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="too few pictures"):
        build_set(demo, tmp_path / "set", KNOBS.model_copy(update={"per_category": 9}), light)
    assert not (tmp_path / "set").exists()


@pytest.mark.slow
def test_an_original_is_read_where_the_shards_hold_it_resized(tmp_path: Path, demo: Dataset) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("chelsea.png", "chelsea.json", "coins.png", "captions.jsonl"):
        shutil.copy(Path(rows(demo, "images")[0]["source"], name), photos)
    of_two = recipe(photos, tmp_path / "resized", shard={"resize_longest_px": 64})
    resized, _ = build(of_two, without=["statistics"])
    few = KNOBS.model_copy(update={"per_category": 1})
    build_set(resized, tmp_path / "set", few, light)
    copies = {path.read_bytes() for path in (tmp_path / "set" / "imgs").rglob("*.png")}
    assert copies == {path.read_bytes() for path in photos.glob("*.png")}
    (photos / "coins.png").unlink()
    with pytest.raises(ValueError, match=r"coins.png: cannot be read"):
        build_set(resized, tmp_path / "another", few, light)
