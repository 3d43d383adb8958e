from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from captioning.detector import NounDetector
from captioning.ground import Grounder, map_job
from models.clip import Clip, cosine
from schemas import tables
from schemas.recipe import DataRecipe, Ground
from tests.tiny_models import save_clip, save_owlv2

CAPTIONS = [
    "A boat lies on the lake. The sky is red.",
    None,
    "One sentence only",
    "x" * 200 + ". Short.",
    "Never seen.",
]
NOUNS = [["boat", "lake", "sky", "boat"], None, ["sentence"], [], ["x"]]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return {"clip": str(save_clip(folder / "clip")), "detector": str(save_owlv2(folder / "owl"))}


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    return [Image.new("RGB", (48, 32), (50 * n, 120, 255 - 50 * n)) for n in range(4)]


@pytest.fixture(scope="module")
def inputs(
    part: Callable[..., pa.Table], jpeg: Callable[[Image.Image], bytes], image_ids: Callable[[int], list[str]],
    pictures: list[Image.Image],
) -> dict[str, pa.Table]:  # fmt: skip
    """Five rows: the second has no caption, the last no picture."""
    jpegs = [*map(jpeg, pictures), b"no picture"]
    both = [value for nouns in NOUNS for value in (["raw"], nouns)]
    return {
        "proxies": part("proxies", image_id=image_ids(5), jpeg=jpegs),
        "captions": part("captions", image_id=image_ids(5), caption=CAPTIONS),
        "nouns": part("nouns", row_id=[n // 2 for n in range(10)], caption_source=["raw", "synthetic"] * 5, nouns=both),
    }


def run(inputs: dict[str, pa.Table], **knobs: Any) -> list[dict[str, Any]]:
    progress: list[int] = []
    table = Grounder(Ground.from_mapping({"enabled": True, "device": "cpu", **knobs}), 2)(inputs, progress.append)[
        "grounding"
    ]
    assert table.schema == tables.schema_of("grounding") and sum(progress) == 5
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def test_each_sentence_has_its_cosine_and_the_lowest_is_named(
    inputs: dict[str, pa.Table], models: dict[str, str]
) -> None:
    rows = run(inputs, clip=models["clip"])
    clip = Clip.load(models["clip"], "ground.clip", "cpu")
    from schemas.pixels import open_rgb

    picture = open_rgb(inputs["proxies"]["jpeg"][0].as_py())
    expected = cosine(clip.embed_texts(["A boat lies on the lake.", "The sky is red."]), clip.embed_images([picture]))[
        :, 0
    ]
    assert rows[0]["sentences"] == ["A boat lies on the lake.", "The sky is red."]
    assert np.allclose(rows[0]["sentence_scores"], expected, atol=1e-5)
    assert rows[0]["lowest_score"] == min(rows[0]["sentence_scores"])
    assert rows[0]["lowest_sentence"] == rows[0]["sentences"][int(np.argmin(expected))]
    assert rows[0]["mean_score"] == pytest.approx(expected.mean(), abs=1e-5)
    assert rows[0]["scorer"] == "clip" and rows[0]["detector"] is None and rows[0]["ungrounded_share"] is None


def test_rows_without_caption_or_picture_keep_their_place_with_nulls(
    inputs: dict[str, pa.Table], models: dict[str, str]
) -> None:
    rows = run(inputs, clip=models["clip"])
    assert [row["row_id"] for row in rows] == [0, 1, 2, 3, 4]
    assert [row["scorer"] is None for row in rows] == [False, True, False, False, True]
    assert [row["num_cut"] for row in rows] == [0, None, 0, 1, None]  # 200 letters are more than 77 tokens


def test_the_batch_size_changes_no_score(inputs: dict[str, pa.Table], models: dict[str, str]) -> None:
    one, all_ = (run(inputs, clip=models["clip"], batch_size=size) for size in (1, 16))
    for first, second in zip(one, all_, strict=True):
        assert first["sentences"] == second["sentences"]
        assert np.allclose(first["sentence_scores"] or [], second["sentence_scores"] or [], atol=1e-5)


@pytest.mark.slow
def test_nouns_are_looked_for_and_those_under_the_threshold_listed(
    inputs: dict[str, pa.Table], models: dict[str, str]
) -> None:
    found = run(inputs, **models, nouns=True, min_noun_score=0)[0]
    assert found["nouns"] == ["boat", "lake", "sky"] and found["ungrounded"] == [] and found["ungrounded_share"] == 0
    assert all(0 < score < 1 for score in found["noun_scores"])
    middle = sorted(found["noun_scores"])[1]
    again = run(inputs, **models, nouns=True, min_noun_score=middle)[0]
    assert again["ungrounded"] == [
        noun for noun, score in zip(found["nouns"], found["noun_scores"], strict=True) if score < middle
    ]
    assert again["ungrounded_share"] == pytest.approx(len(again["ungrounded"]) / 3)
    assert run(inputs, **models, nouns=True)[3]["ungrounded_share"] is None  # no noun to look for


def test_the_detector_s_scores_are_the_published_post_processing_s(
    models: dict[str, str], pictures: list[Image.Image]
) -> None:
    import torch
    from transformers import Owlv2ForObjectDetection, Owlv2Processor

    nouns = ["boat", "lake"]
    processor = Owlv2Processor.from_pretrained(models["detector"])
    model = Owlv2ForObjectDetection.from_pretrained(models["detector"]).eval()
    inputs = processor(text=[[f"a photo of a {noun}" for noun in nouns]], images=pictures[0], return_tensors="pt")
    with torch.inference_mode():
        boxes = processor.post_process_grounded_object_detection(model(**inputs), threshold=0.0)[0]
    detector = NounDetector.load(models["detector"], "ground.detector", "cpu")
    scores = detector.scores(pictures[0], nouns)
    # A box is published under the noun that fits it best, so the best of all boxes is the best of all nouns.
    assert max(scores) == pytest.approx(boxes["scores"].max().item(), abs=1e-5)
    assert detector.scores(pictures[0], []) == []


def test_each_caption_source_has_a_row_of_its_own(
    inputs: dict[str, pa.Table], models: dict[str, str], part: Callable[..., pa.Table],
    image_ids: Callable[[int], list[str]],
) -> None:  # fmt: skip
    """Raw ones of kept rows only, those that lie beside from their own table, nouns by the source's name."""
    given = dict(inputs)
    given["raw_captions"] = part("raw_captions", caption=["A red boat.", "A hill.", "Not kept.", None, None])
    given["selection"] = part("selection", kept=[True, True, False, True, True])
    given["captions_beside/vlm"] = part("captions", caption=["A boat lies on the lake. The sky is red.", *[None] * 4])
    vlm = part("nouns", row_id=[0], caption_source=["vlm"], nouns=[["heron"]])
    given["nouns"] = pa.concat_tables([inputs["nouns"], vlm])
    names = ["synthetic", "raw", "vlm"]
    rows = run(given, **models, nouns=True, sources=names)
    assert [(row["row_id"], row["caption_source"]) for row in rows] == [(n, name) for n in range(5) for name in names]
    scored = {(row["row_id"], row["caption_source"]) for row in rows if row["scorer"] is not None}
    assert scored == {(0, "synthetic"), (0, "raw"), (0, "vlm"), (1, "raw"), (2, "synthetic"), (3, "synthetic")}
    synthetic, raw, vlm_row = rows[:3]
    assert np.allclose(synthetic["sentence_scores"], vlm_row["sentence_scores"], atol=1e-5)
    alone = run(inputs, **models, nouns=True)[0]
    assert [synthetic[name] for name in ("sentences", "nouns")] == [alone[name] for name in ("sentences", "nouns")]
    assert np.allclose(synthetic["noun_scores"], alone["noun_scores"], atol=1e-5)
    assert (raw["sentences"], raw["nouns"], vlm_row["nouns"]) == (["A red boat."], ["raw"], ["heron"])


def test_the_stage_reads_the_tables_of_its_sources() -> None:
    def made(**ground: Any) -> Any:
        return map_job(DataRecipe.from_mapping({"images": "a", "out": "b", "ground": ground}))

    assert made().inputs == ("proxies", "captions", "nouns") and made().rows_per_input == 1
    three = made(sources=["synthetic", "raw", "vlm"])
    assert three.inputs == ("proxies", "captions", "raw_captions", "selection", "captions_beside/vlm", "nouns")
    assert three.rows_per_input == 3
    for sources, said in (([], "at least one"), (["raw", "raw"], "each once"), (["mix"], "name those")):
        with pytest.raises(ValueError, match=f"ground.sources.*{said}"):
            made(sources=sources)


def test_missing_models_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, models: dict[str, str]) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match=r"openai/clip-vit-large-patch14.*ground\.clip"):
        Grounder(Ground(enabled=True), 1)
    with pytest.raises(ValueError, match=r"google/owlv2-base-patch16-ensemble.*ground\.detector"):
        Grounder(Ground(enabled=True, clip=models["clip"], nouns=True), 1)


def test_the_table_does_not_depend_on_speed_knobs() -> None:
    def knobs(**ground: Any) -> Any:
        return map_job(DataRecipe.from_mapping({"images": "a", "out": "b", "ground": ground})).knobs

    assert knobs(batch_size=2, device="cpu", enabled=True) == knobs()
    assert knobs(min_noun_score=0.5) != knobs()
