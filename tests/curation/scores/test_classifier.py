from __future__ import annotations

from pathlib import Path

import pytest
import torch

from curation.scores.classifier import ImageClassifier
from schemas.scores import Classifier
from tests.photos import photo
from tests.tiny_models import save_classifier, save_clip

PICTURES = [photo(name) for name in ("coffee.png", "chelsea.png", "moon.png")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_classifier(tmp_path_factory.mktemp("models") / "tiny", ("normal", "NSFW"))


def scores(column: str, folder: Path, label: str | None = None) -> list[float]:
    model = ImageClassifier.load(column, Classifier(model=str(folder), label=label), "cpu")
    assert model.name == folder.name
    return model.scores([model.pixels(picture) for picture in PICTURES]).tolist()


def expected(folder: Path) -> torch.Tensor:
    from transformers import AutoImageProcessor, ViTForImageClassification

    inputs = AutoImageProcessor.from_pretrained(folder, backend="pil")(images=PICTURES, return_tensors="pt")
    with torch.inference_mode():
        found: torch.Tensor = ViTForImageClassification.from_pretrained(folder)(**inputs).logits
    return found


def test_the_score_is_the_probability_of_the_label(folder: Path) -> None:
    probabilities = expected(folder).softmax(dim=1)
    assert scores("nsfw", folder) == pytest.approx(probabilities[:, 1].tolist(), abs=1e-5)  # by its own label
    assert scores("nsfw", folder, "Normal") == pytest.approx(probabilities[:, 0].tolist(), abs=1e-5)
    assert len({round(score, 4) for score in scores("nsfw", folder)}) == 3


def test_labels_that_do_not_exclude_each_other_are_read_alone(tmp_path: Path) -> None:
    many = save_classifier(tmp_path / "many", ("sky", "sea", "logo"), problem_type="multi_label_classification")
    assert scores("logo", many, "logo") == pytest.approx(expected(many).sigmoid()[:, 2].tolist(), abs=1e-5)
    one = save_classifier(tmp_path / "one", ("logo",))
    assert scores("logo", one, "logo") == pytest.approx(expected(one).sigmoid()[:, 0].tolist(), abs=1e-5)


def test_an_unknown_label_is_refused_with_those_there_are(folder: Path) -> None:
    with pytest.raises(
        ValueError, match=r"classifiers\.watermark\.label=watermark: the labels of tiny are normal, NSFW"
    ):
        scores("watermark", folder)


def test_missing_weights_name_the_model_and_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    for column, hub_id in {
        "nsfw": "Falconsai/nsfw_image_detection",
        "watermark": "amrul-hzz/watermark_detector",
    }.items():
        with pytest.raises(ValueError, match=rf"{hub_id}.*hf download .*set screen\.classifiers\.{column}\.model="):
            ImageClassifier.load(column, Classifier(), "cpu")
    with pytest.raises(ValueError, match=r"some/model .*set screen\.classifiers\.cartoon\.model="):
        ImageClassifier.load("cartoon", Classifier(model="some/model", label="cartoon"), "cpu")
    with pytest.raises(ValueError, match=r"set screen\.classifiers\.cartoon\.model="):
        ImageClassifier.load("cartoon", Classifier(model="/no/such/folder", label="cartoon"), "cpu")


def test_a_folder_that_is_no_classifier_is_refused_in_a_line(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"{tmp_path} holds none, .*set screen\.classifiers\.nsfw\.model="):
        ImageClassifier.load("nsfw", Classifier(model=str(tmp_path)), "cpu")
    clip = save_clip(tmp_path / "clip")
    with pytest.raises(ValueError, match=r"clip: lacks classifier"):
        ImageClassifier.load("nsfw", Classifier(model=str(clip)), "cpu")
    (folder / "preprocessor_config.json").rename(folder / "aside")
    with pytest.raises(ValueError, match="tiny: has no image preprocessing"):
        ImageClassifier.load("nsfw", Classifier(model=str(folder)), "cpu")
    (folder / "aside").rename(folder / "preprocessor_config.json")
