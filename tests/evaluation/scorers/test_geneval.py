"""GenEval from pictures to a number: detections are kept and judged, and a detector that is missing is a row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.runner import PartFailed
from evaluation.scorers import detectors, geneval
from evaluation.scorers.detectors import Detection, classes_of, is_original_network, load_detector
from evaluation.scorers.geneval import Colours, judged
from models.clip import Clip
from schemas.evaluation import EvaluationRecipe
from tests.evaluation.scorers.conftest import only, recipe_of, run

LEFT, RIGHT = (0.0, 0.0, 10.0, 10.0), (25.0, 0.0, 35.0, 10.0)


def wanted(name: str, count: int = 1, **more: Any) -> dict[str, Any]:
    return {"class": name, "count": count, **more}


PROMPTS: dict[str, dict[str, Any]] = {
    "a cat": {"tag": "single_object", "include": [wanted("cat")]},
    "a cat and a dog": {"tag": "two_object", "include": [wanted("cat"), wanted("dog")]},
    "two cats": {"tag": "counting", "include": [wanted("cat", 2)], "exclude": [wanted("cat", 3)]},
    "a red cat": {"tag": "colors", "include": [wanted("cat", color="red")]},
    "a dog right of a cat": {"tag": "position", "include": [wanted("cat"), wanted("dog", position=["right of", 0])]},
    "a red cat and a blue dog": {
        "tag": "color_attr",
        "include": [wanted("cat", color="red"), wanted("dog", color="blue")],
    },
}


def seen(name: str, score: float, box: tuple[float, float, float, float], mask: np.ndarray | None = None) -> Detection:
    return Detection(name, score, box, np.ones((30, 40), bool) if mask is None else mask)


SEEN = {
    0: [],
    20: [seen("cat", 0.95, LEFT), seen("cat", 0.92, RIGHT)],
    40: [seen("cat", 0.8, LEFT), seen("dog", 0.7, RIGHT)],
    60: [seen("cat", 0.8, RIGHT), seen("dog", 0.7, LEFT), seen("dog", 0.2, RIGHT)],
}
"""Red of a picture -> what is in it."""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    rows = [{"prompt": text, **metadata} for text, metadata in PROMPTS.items()]
    path = tmp_path / "evaluation_metadata.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A detector that sees what `SEEN` says, and colours by the side: red on the left, blue on the right."""

    def detect(picture: Image.Image) -> list[Detection]:
        pixel = picture.getpixel((0, 0))
        assert isinstance(pixel, tuple)
        return SEEN[pixel[0]]

    monkeypatch.setattr(geneval, "load_detector", lambda folder, device: detect)
    monkeypatch.setattr(
        Colours, "__call__", lambda self, picture, some: ["red" if each.box == LEFT else "blue" for each in some]
    )


def metrics_of(models: Path, **more: Any) -> dict[str, Any]:
    return {"clip": str(models / "clip"), "geneval": {"detector": str(models / "detector")}, **more}


REDS = {
    "a cat": [20, 0],
    "a cat and a dog": [40, 20],
    "two cats": [20, 40],
    "a red cat": [40, 60],
    "a dog right of a cat": [40, 60],
    "a red cat and a blue dog": [40, 60],
}


@pytest.mark.slow
def test_the_score_is_that_of_the_rules_over_what_the_detector_saw(
    tmp_path: Path, source: Path, models: Path, fixed: None
) -> None:
    values = recipe_of(tmp_path, source, REDS | {"a cat": [20, 40]}, metrics_of(models))
    done = run(values)
    row = only(done)
    assert (row["metric"], row["protocol"], row["num_generated"]) == ("geneval", "geneval/published", 12)
    assert row["value"] == pytest.approx((1 + 5 * 0.5) / 6) and row["low"] == row["high"] == row["value"]
    assert row["network"].startswith("detector@")
    assert row["flags"][0] == "pictures: 2 a prompt, where 4 are published"
    assert row["flags"][1].startswith("detector: not the original's network")
    assert {each["metadata"]["tag"]: only(done, each["metadata"]["tag"])["value"] for each in
            ({"metadata": metadata} for metadata in PROMPTS.values())} == {
        "single_object": 1, "two_object": 0.5, "counting": 0.5, "colors": 0.5, "position": 0.5, "color_attr": 0.5
    }  # fmt: skip
    rows = done.dataset.read_table("answers/theirs/geneval-detector").to_pylist()
    assert [row["share"] for row in rows] == [1, 1, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0]
    assert rows[5]["missing"] == "expected cat>=2, found 0", "a count needs a score of 0.9"
    assert rows[7]["missing"] == "expected red cat>=1, found 0 red; and 1 blue"
    assert rows[9]["missing"] == "expected dog right of target, found left of target"
    facts = json.loads(rows[9]["facts"])
    assert [each["score"] for each in facts] == [0.8, 0.7, 0.2], "those that the rules do not count are kept too"
    again = run(values)
    assert not again.has_run and again.results == done.results


def test_a_task_without_pictures_leaves_the_tasks_and_no_score(
    tmp_path: Path, source: Path, models: Path, fixed: None
) -> None:
    source.write_text("".join(source.read_text().splitlines(keepends=True)[:2]))
    done = run(recipe_of(tmp_path, source, REDS, metrics_of(models)))
    assert only(done, "single_object")["value"] == 0.5
    assert only(done)["value"] is None and "a score needs pictures of the six tasks" in only(done)["reason"]


def test_missing_pictures_are_named_and_left_out_where_that_is_allowed(
    tmp_path: Path, source: Path, models: Path, fixed: None
) -> None:
    values = recipe_of(tmp_path, source, REDS | {"two cats": [20], "a cat": []}, metrics_of(models))
    assert only(run(values))["reason"].startswith("3 of 12 pictures are missing: ")
    values["metrics"]["allow_missing"] = True
    row = only(run(values), "counting")
    assert (row["value"], row["num_generated"], "missing" in row["flags"]) == (1, 1, True)


def test_a_detector_that_is_missing_or_knows_other_things_is_a_row_that_says_what_to_type(
    tmp_path: Path, source: Path, models: Path
) -> None:
    values = recipe_of(tmp_path, source, REDS, {"clip": str(models / "clip")})
    reason = only(run(values))["reason"]
    assert "sigma weights get mask2former`, then set metrics.geneval.detector=facebook/mask2former-swin" in reason
    (tmp_path / "buses").mkdir()
    (tmp_path / "buses" / "config.json").write_text(
        '{"model_type": "mask2former", "id2label": {"0": "bus", "1": "dog"}}'
    )
    (tmp_path / "buses" / "model.safetensors").write_bytes(b"")
    for given, why in (
        (str(tmp_path / "nowhere"), r"weights missing: "),
        (str(models / "vqa"), "is no Mask2Former that names its classes"),
        (str(tmp_path / "buses"), "knows no cat; name a detector that was trained on COCO"),
    ):
        values["metrics"]["geneval"] = {"detector": given}
        done = run(values)
        assert why in only(done)["reason"] and not done.dataset.held().listed("answers/theirs/geneval-detector")
    values["metrics"] |= {"geneval": {"detector": str(models / "detector")}, "clip": None}
    assert "openai/clip-vit-large-patch14" in only(run(values))["reason"]


def test_a_prompt_that_does_not_say_what_it_asks_for_is_a_row_with_the_reason(
    tmp_path: Path, source: Path, models: Path
) -> None:
    source.write_text('{"prompt": "a cat", "tag": "single_object", "include": [{"class": "cat"}]}\n')
    reason = only(run(recipe_of(tmp_path, source, REDS, metrics_of(models))))["reason"]
    assert "does not say what it asks for" in reason and "count" in reason


@pytest.mark.slow
def test_a_mask2former_sees_instances_and_the_kept_ones_are_judged_alike(
    tmp_path: Path, source: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detectors, "SIZE", {"shortest_edge": 64, "longest_edge": 96})  # the test is quicker
    done = run(recipe_of(tmp_path, source, REDS, metrics_of(models)))
    rows = done.dataset.read_table("answers/theirs/geneval-detector").to_pylist()
    facts = [json.loads(row["facts"]) for row in rows]
    assert all(each["class"] in classes_of(models / "detector") for some in facts for each in some)
    assert any(facts)
    for row, some in zip(rows, facts, strict=True):
        assert [each["score"] for each in some] == sorted((each["score"] for each in some), reverse=True)
        metadata = [*PROMPTS.values()][row["row_id"]]
        assert judged(some, metadata) == (bool(row["share"]), row["missing"] or "")
        for left, top, right, bottom in (each["box"] for each in some):
            assert 0 <= left < right <= 40 and 0 <= top < bottom <= 30


def test_a_box_is_drawn_around_the_mask_and_a_score_is_of_class_and_mask(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from transformers import Mask2FormerForUniversalSegmentation

    masks = torch.full((1, 2, 6, 8), -8.0)
    masks[0, 0, 2:4, 1:5] = 8.0
    classes = torch.tensor([[[0.0, 9.0, 0.0, 0.0, 0.0], [0.0, 0.0, 9.0, 0.0, 0.0]]])

    class Output:
        class_queries_logits, masks_queries_logits = classes, masks

    def forward(self: Any, pixel_values: torch.Tensor) -> type[Output]:
        assert pixel_values.shape == (1, 3, 800, 1088), "as mmdet has it, and not 384 x 384 as the folder says"
        return Output

    monkeypatch.setattr(Mask2FormerForUniversalSegmentation, "forward", forward)
    (cat,) = load_detector(models / "detector", "cpu")(Image.new("RGB", (80, 60)))
    assert cat.name == "cat" and cat.box == (10, 20, 50, 40), "the mask of the dog is empty"
    assert cat.mask.shape == (60, 80) and 0.9 < cat.score < 0.9995


def test_the_names_of_classes_are_those_of_geneval_and_the_network_is_known_by_its_shape(
    models: Path, tmp_path: Path
) -> None:
    assert classes_of(models / "detector") == ["person", "cat", "dog", "motorcycle"]
    assert not is_original_network(models / "detector")
    backbone = {"embed_dim": 96, "depths": [2, 2, 18, 2]}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mask2former", "backbone_config": backbone}))
    assert is_original_network(tmp_path)
    with pytest.raises(ValueError, match="is no Mask2Former that names its classes"):
        classes_of(tmp_path)


def test_a_colour_is_that_of_the_object_on_grey(models: Path) -> None:
    picture = Image.new("RGB", (40, 30), (255, 0, 0))
    mask = np.zeros((30, 40), bool)
    mask[5:10, 5:10] = True
    shown = list[Image.Image]()

    class Watched:
        def __init__(self, clip: Clip) -> None:
            self.embed_texts = clip.embed_texts
            self._clip = clip

        def embed_images(self, images: list[Image.Image]) -> np.ndarray:
            shown.extend(images)
            return self._clip.embed_images(images)

    clip = Clip.load(str(models / "clip"), "metrics.clip", "cpu")
    colours = Colours(Watched(clip))  # type: ignore[arg-type]
    objects = [seen("cat", 0.9, (5, 5, 15, 10), mask), seen("cat", 0.8, (0, 0, 4, 4))]
    named = colours(picture, objects)
    assert [image.size for image in shown] == [(10, 5), (4, 4)]
    assert [shown[0].getpixel((x, 0)) for x in (0, 7)] == [(255, 0, 0), (0x99, 0x99, 0x99)]
    assert len(named) == 2 and named == [colours(picture, [each])[0] for each in objects]
    assert colours(picture, []) == []


def test_a_detector_that_gives_nan_is_an_error_that_names_the_picture(
    tmp_path: Path, source: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from transformers import Mask2FormerForUniversalSegmentation

    class Output:
        class_queries_logits, masks_queries_logits = torch.full((1, 2, 5), torch.nan), torch.zeros(1, 2, 6, 8)

    monkeypatch.setattr(Mask2FormerForUniversalSegmentation, "forward", lambda self, **inputs: Output)
    with pytest.raises((ValueError, PartFailed), match="the detector gives NaN or infinity"):
        run(recipe_of(tmp_path, source, REDS, metrics_of(models)))


def test_every_missing_picture_of_a_prompt_counts(tmp_path: Path, models: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a cat\na dog\n")
    reds = {"a cat": [20, 40], "a dog": []}
    values = recipe_of(tmp_path, tmp_path / "prompts.txt", reds, metrics_of(models, clip_score=True))
    assert only(run(values))["reason"].startswith("2 of 4 pictures are missing: ")


def test_other_prompts_have_no_row_of_a_benchmark(tmp_path: Path, models: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a cat\n")
    done = run(recipe_of(tmp_path, tmp_path / "prompts.txt", {"a cat": [20]}, metrics_of(models)))
    assert done.results == []
    recipe = EvaluationRecipe.from_mapping({"out": "o", "prompts": {"source": "p"}, "models": {"a": {"pictures": "x"}}})
    assert recipe.metrics.geneval.detector is None
