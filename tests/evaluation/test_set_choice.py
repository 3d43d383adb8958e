"""Which pictures and prompts an evaluation set takes, and what a dataset that has too few gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from captioning.clean import cleaned_text
from engine.dataset import Dataset
from evaluation.set_choice import Choice, choose, prompt_of
from models.clip_tokens import Letters
from schemas.evaluation_set import EvaluationSet
from schemas.ids import unit_interval
from tests.building import build, recipe, rows

CATEGORIES = {"animals": ("cat", "horse", "snake"), "things": ("coin", "cup", "motorcycle", "brick", "wheel")}


def chosen(dataset: Dataset, **knobs: Any) -> Choice:
    values = {"categories": CATEGORIES, "per_category": 2, "min_short_side_px": 200, "aesthetic_share": 1.0}
    return choose(dataset, EvaluationSet.from_mapping(values | knobs), Letters())


def names(choice: Choice) -> list[str]:
    return [picture["member"] for picture in choice.pictures]


def test_every_category_is_full_and_has_its_nouns(demo: Dataset) -> None:
    choice = chosen(demo)
    assert [picture["category"] for picture in choice.pictures] == ["animals"] * 2 + ["things"] * 2
    nouns = {row["image_id"]: row["nouns"] for row in rows(demo, "nouns") if row["caption_source"] == "raw"}
    for picture in choice.pictures:
        assert set(nouns[picture["image_id"]]) & set(CATEGORIES[picture["category"]])
        assert picture["prompt"] == picture["raw"] and picture["prompt_from"] == "raw"


def test_the_coin_of_the_image_decides_between_candidates(demo: Dataset) -> None:
    every = chosen(demo, per_category=3, salt="x").pictures
    coins = [unit_interval(picture["image_id"], "x") for picture in every]
    assert coins[:3] == sorted(coins[:3]) and coins[3:] == sorted(coins[3:])
    assert names(chosen(demo, per_category=2, salt="x"))[:2] == [picture["member"] for picture in every[:2]]


def test_without_categories_the_most_common_head_nouns_are_taken(demo: Dataset) -> None:
    choice = chosen(demo, categories={}, num_categories=3, per_category=1, ignored_nouns=["close-up"])
    assert len(choice.nouns) == 3 and all(listed == [name] for name, listed in choice.nouns.items())
    assert "close-up" not in choice.nouns


@pytest.mark.parametrize(
    ("knobs", "named"),
    [
        (
            {"per_category": 3, "min_short_side_px": 400},
            "animals has 1 of 3.*min_short_side_px 2.*min_short_side_px=400",
        ),
        ({"per_category": 3, "max_tokens": 20}, "min_tokens to max_tokens .* costs most: loosen it"),
        ({"per_category": 3, "aesthetic_share": 0.3}, "aesthetic_share costs most .aesthetic_share=0.3."),
        ({"per_category": 50}, "animals has 3 of 50, things has 5 of 50; no limit alone costs any: ask for fewer"),
        ({"categories": {}, "num_categories": 40, "per_category": 1}, "of 40 categories have no picture at all"),
    ],
)
def test_too_few_candidates_name_the_limit_that_costs_most(demo: Dataset, knobs: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=f"too few pictures: .*{named}"):
        chosen(demo, **knobs)


def test_a_dataset_that_lacks_a_job_is_refused(small: Dataset) -> None:
    with pytest.raises(ValueError, match="no dataset with nouns; build it with sigma build first"):
        chosen(small)


@pytest.mark.parametrize(
    ("against", "named"), [("itself", "is the dataset that the set"), ("empty", "no dataset with")]
)
def test_against_must_be_another_dataset(demo: Dataset, tmp_path: Path, against: str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        chosen(demo, against=[str(demo.root if against == "itself" else tmp_path)])


@pytest.mark.slow
def test_what_a_training_dataset_has_too_is_left_out_and_counted_by_evidence(demo: Dataset, tmp_path: Path) -> None:
    whole = chosen(demo, per_category=3)
    bytes_, pixels, near, text = whole.pictures[0], whole.pictures[1], whole.pictures[3], whole.pictures[4]
    theirs = tmp_path / "photos"
    theirs.mkdir()

    def opened(picture: dict[str, Any]) -> Path:
        return Path(picture["source"]) / picture["member"]

    (theirs / "bytes.png").write_bytes(opened(bytes_).read_bytes())
    with Image.open(opened(pixels)) as image:
        image.save(theirs / "pixels.png", compress_level=1)
    with Image.open(opened(near)) as image:
        image.convert("RGB").resize((image.width // 2, image.height // 2)).save(theirs / "near.jpg", quality=80)
    Image.new("RGB", (64, 64), "teal").save(theirs / "text.png")
    (theirs / "text.txt").write_text(f"  {text['prompt'].upper().replace(',', ' --')} \n", encoding="utf-8")
    training, _ = build(recipe(theirs, tmp_path / "training"), upto="clean")
    with pytest.raises(
        ValueError, match=r"animals has 1 of 5.*against 3, against \(text\) 1\. against costs most: loosen"
    ):
        chosen(demo, per_category=5, against=[str(training.root)])
    choice = chosen(demo, per_category=1, against=[str(training.root)])
    assert {name: choice.excluded[name] for name in ("bytes", "pixels", "phash")} == {
        "bytes": 1,
        "pixels": 1,
        "phash": 1,
    }
    gone = {picture["image_id"] for picture in (bytes_, pixels, near, text)}
    assert not gone & {picture["image_id"] for picture in choice.pictures}


@pytest.fixture(scope="module")
def of_two_sources(demo: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Three photographs of one source; two others and the half of a third, which stays too, of another; a screen."""
    root, photos = tmp_path_factory.mktemp("two"), Path(rows(demo, "images")[0]["source"])
    words = {
        "coins": "Old coins on a cloth.",
        "coffee": "A cup of coffee.",
        "brick": "Bricks of a wall seen from close by.",
    }
    for folder, kept in (("one", ("coins", "coffee", "brick")), ("two", ("horse", "camera", "coins"))):
        (root / folder).mkdir()
        for name in kept:
            with Image.open(photos / f"{name}.png") as image:
                image.reduce(1 if folder == "one" else 2).save(root / folder / f"{name}.png")
            (root / folder / f"{name}.txt").write_text(
                words.get(name, f"A {name} in the open field."), encoding="utf-8"
            )
    made = recipe(
        None,
        root / "dataset",
        sources=[{"path": str(root / "one")}, {"path": str(root / "two")}],
        select={"drop_duplicates": False},
        screen={"sharpness": True},
    )
    return build(made, without=["statistics"])[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("knobs", "named"),
    [
        ({"categories": {"all": ["coin"]}, "per_category": 2}, "all has 1 of 2.* one picture per group 1"),
        (
            {"max_source_share": 0.3},
            "all has 4 of 5.* max_source_share 1.* max_source_share costs most .max_source_share=0.3",
        ),
        ({"min_sharpness": 1e6, "per_category": 1}, "all has 0 of 1.* min_sharpness 6. .*min_sharpness=1000000.0"),
        ({"min_sharpness": 0, "min_short_side_px": 250}, "min_short_side_px [1-6]"),
    ],
)
def test_doubles_sources_and_screens_are_limits_too(of_two_sources: Dataset, knobs: dict[str, Any], named: str) -> None:
    every = {"all": ("coin", "cup", "brick", "horse", "camera")}
    values = {"categories": every, "per_category": 5, "min_short_side_px": 1, "max_source_share": 1.0, "min_tokens": 3}
    with pytest.raises(ValueError, match=named):
        chosen(of_two_sources, **values | knobs)
    choice = chosen(of_two_sources, **values)
    assert len({picture["image_id"] for picture in choice.pictures}) == 5


@given(st.lists(st.sampled_from([*"Aab.!? ", "cat ", "The dog runs. ", "Über", "#x"]), max_size=40).map("".join))
def test_any_prompt_is_a_beginning_of_its_caption_and_fits(caption: str) -> None:
    knobs, clean = EvaluationSet(max_tokens=20), cleaned_text(caption)[0]
    found = prompt_of(clean, clean, Letters(), knobs)
    if found is not None:
        assert clean is not None and clean.startswith(found.prompt)
        assert Letters().count(found.prompt).least >= knobs.min_tokens and found.clip_tokens <= knobs.max_tokens
        assert cleaned_text(found.prompt)[0] == found.prompt


LONG = "A cat sits on a wall. " + "It looks at the birds in the garden below, which do not see it. " * 4


@pytest.mark.parametrize(
    ("raw", "synthetic", "expected"),
    [
        ("A cat on a wall.", LONG, ("A cat on a wall.", "raw")),
        ("Cat", LONG, (LONG[:86].strip(), "synthetic")),
        (LONG, LONG, (LONG[:86].strip(), "synthetic")),
        (None, "A cat sits on a wall.", ("A cat sits on a wall.", "synthetic")),
        ("A cat on a wall, see http://x.org", None, None),
        (None, LONG.replace(".", ","), None),
        (None, "Yes.", None),
        (None, None, None),
    ],
)
def test_a_prompt_is_the_raw_caption_or_whole_sentences_of_the_synthetic_one(
    raw: str | None, synthetic: str | None, expected: tuple[str, str] | None
) -> None:
    found = prompt_of(raw, synthetic, Letters(), EvaluationSet(max_tokens=60))
    assert (found and found[:2]) == expected
