"""The job: every column is what its own function gives, and what is off, or has no picture, is null."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image, ImageFilter

from curation.ingest import ingest
from curation.scores import screen
from curation.scores.classifier import ImageClassifier
from curation.scores.sharpness import sharpness
from curation.scores.upscale import upscale
from models.clip import Clip, cosine
from schemas.pixels import open_rgb
from schemas.recipe import DataRecipe
from schemas.tables import schema_of, with_added
from tests.building import build, recipe, rows, table_of, write_pictures
from tests.photos import encode, listing_table, photo, write_files
from tests.tiny_models import SIDE_PX, save_classifier, save_clip
from tests.tiny_onnx import take_for_published

pytestmark = pytest.mark.slow

CAPTIONS = ("A cup of coffee.", None, "An astronaut.", "A cat.", None)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "clip": save_clip(folder / "tiny-clip"),
        "nsfw": save_classifier(folder / "tiny-nsfw", ("normal", "nsfw")),
        "style": save_classifier(folder / "tiny-style", ("photo", "cartoon", "3d"), seed=1),
    }


@pytest.fixture
def tables(tmp_path: Path) -> dict[str, pa.Table]:
    """Coffee in a frame, a file that is none, a soft astronaut, a cat that is larger than its proxy, coffee again."""
    framed = Image.new("RGB", (600, 500))
    framed.paste(photo("coffee.png"), (0, 50))
    cat = photo("chelsea.png").resize((1804, 1200), Image.Resampling.BICUBIC)
    soft = photo("astronaut.png").filter(ImageFilter.GaussianBlur(2))
    files = {
        "a.png": encode(framed, "PNG"),
        "b.jpg": b"<html>",
        "c.png": encode(soft, "PNG"),
        "d.png": encode(cat, "PNG"),
        "e.png": encode(photo("coffee.png"), "PNG"),
    }
    listing = listing_table(write_files(tmp_path / "photos", files))
    section = {"images": str(tmp_path / "photos"), "out": str(tmp_path / "out"), "ingest": {"proxy_px": 600}}
    found = ingest.map_job(DataRecipe.from_mapping(section)).build()({"listing": listing}, lambda _: None)
    captions = ({"row_id": n, "caption": caption, "removed": []} for n, caption in enumerate(CAPTIONS))
    return dict(found) | {"raw_captions": table_of("raw_captions", captions)}


def made(**section: Any) -> DataRecipe:
    return DataRecipe.from_mapping({"images": "a", "out": "b", "run": {"threads": 2}, "screen": section})


def screened(tables: dict[str, pa.Table], **section: Any) -> list[dict[str, Any]]:
    stage = screen.map_job(made(device="cpu", **section))
    done: list[int] = []
    found = stage.build()({name: tables[name] for name in stage.inputs}, done.append)["screens"]
    assert sum(done) == found.num_rows == 5
    assert found.schema == schema_of("screens") and found["row_id"].to_pylist() == list(range(5))
    filled = {name for name in found.column_names if found[name].null_count < 5} - {"row_id", "image_id"}
    assert filled - {"border_box", "models"} == made(**section).screen.columns()
    assert {name for name, value in found.to_pylist()[1].items() if value is not None} == {"row_id", "image_id"}
    result: list[dict[str, Any]] = found.to_pylist()
    return result


def test_the_measured_screens(tables: dict[str, pa.Table]) -> None:
    framed, _, soft, enlarged, whole = screened(tables, sharpness=True, upscale=True, border=True)
    assert framed["border"] == pytest.approx(0.2, abs=0.01)
    assert framed["border_box"] == pytest.approx([0, 50, 600, 450], abs=4)
    assert (whole["border"], whole["border_box"]) == (0, [0, 0, 600, 400])
    assert enlarged["border_box"] == [0, 0, 1804, 1200]  # px of the original, not of the proxy
    assert soft["sharpness"] < 6 < 30 < whole["sharpness"]
    assert whole["sharpness"] == pytest.approx(sharpness(open_rgb(tables["proxies"]["jpeg"][4].as_py())))
    assert whole["upscale"] < 1.2 and soft["upscale"] > 2 and enlarged["upscale"] > 2.4


def test_enlarging_is_measured_on_the_original_where_the_proxy_is_smaller(tables: dict[str, pa.Table]) -> None:
    proxy = open_rgb(tables["proxies"]["jpeg"][3].as_py())
    hidden = upscale(proxy)
    assert proxy.size == (600, 399) and hidden is not None and hidden < 1.6
    assert screened(tables, upscale=True)[3]["upscale"] > 2.4


def test_a_changed_original_has_no_upscale_value(tables: dict[str, pa.Table], caplog: pytest.LogCaptureFixture) -> None:
    folder = Path(tables["images"]["source"][0].as_py())
    (folder / "d.png").write_bytes(encode(photo("chelsea.png"), "PNG"))
    with caplog.at_level(logging.WARNING):
        assert screened(tables, upscale=True)[3]["upscale"] is None
    (folder / "d.png").unlink()
    with caplog.at_level(logging.WARNING):
        assert screened(tables, upscale=True)[3]["upscale"] is None
    assert "has other bytes than were ingested" in caplog.text and "No such file" in caplog.text


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_the_models_screens(tables: dict[str, pa.Table], models: dict[str, Path], batch_size: int) -> None:
    classifiers = {
        "nsfw": {"model": str(models["nsfw"])},
        "style": {"model": str(models["style"]), "label": "cartoon"},
    }
    found = screened(
        tables, classifiers=classifiers, clip_similarity=True, clip=str(models["clip"]), batch_size=batch_size
    )
    section = made(classifiers=classifiers).screen
    loaded = {name: ImageClassifier.load(name, section.classifiers[name], "cpu") for name in classifiers}
    clip = Clip.load(str(models["clip"]), "x", "cpu")
    for row, caption, jpeg in zip(found, CAPTIONS, tables["proxies"]["jpeg"].to_pylist(), strict=True):
        if jpeg is None:
            continue
        picture = open_rgb(jpeg, cover_px=(SIDE_PX, SIDE_PX))
        expected = {name: model.scores([model.pixels(picture)])[0] for name, model in loaded.items()}
        assert row["nsfw"] == pytest.approx(expected["nsfw"], abs=1e-5)
        assert row["classes"] == [("style", pytest.approx(expected["style"], abs=1e-5))]
        names = {"nsfw": "tiny-nsfw", "style": "tiny-style"}
        if caption is None:
            assert row["clip_similarity"] is None
        else:
            similarity = cosine(clip.embed_images([picture]), clip.embed_texts([caption]))[0, 0]
            assert row["clip_similarity"] == pytest.approx(similarity, abs=1e-5)
            names["clip_similarity"] = "tiny-clip"
        assert dict(row["models"]) == names
        assert row["watermark"] is row["sharpness"] is row["border"] is None


def test_a_build_screens_then_refuses_by_the_limits_and_moving_one_screens_nothing(
    models: dict[str, Path], tmp_path: Path
) -> None:
    write_pictures(tmp_path / "photos", [(96, 64)] * 3 + [(90, 60)])
    barred = Image.new("RGB", (96, 96))
    barred.paste(Image.open(tmp_path / "photos" / "000.jpg"), (0, 16))
    barred.save(tmp_path / "photos" / "000.jpg", quality=95)
    screens = {
        "border": True,
        "device": "cpu",
        "classifiers": {"style": {"model": str(models["style"]), "label": "cartoon"}},
    }

    def building(limit: float) -> tuple[Any, Any]:
        select = {"max_border": limit, "subsets": {"any": "classes['style'] >= 0", "framed": "border > 0.2"}}
        made = recipe(tmp_path / "photos", tmp_path / "out", screen=screens, select=select)
        return build(made, upto="select", redo=["select"])

    dataset, told = building(0.1)
    assert [result.job for _, result in told.results if result][-2:] == ["screen", "select"]
    first = rows(dataset, "selection")
    assert [row["rejected_by"] for row in first] == ["bordered", None, None, None]
    assert first[0]["value"] == pytest.approx(1 / 3, abs=0.03) and first[0]["threshold"] == 0.1
    assert [row["subsets"] for row in first] == [[], ["any"], ["any"], ["any"]]
    dataset, told = building(0.5)
    assert [result.job for _, result in told.results if result] == ["select"]
    assert [row["subsets"] for row in rows(dataset, "selection")][:2] == [["any", "framed"], ["any"]]


def signs(folder: Path) -> None:
    """Three pictures: a cyan bar on black, a red spot that the tiny network calls a large face, and nothing."""
    bar, face = Image.new("RGB", (736, 736)), Image.new("RGB", (128, 128))
    bar.paste("cyan", (100, 300, 600, 340))
    face.paste((255, 160, 160), (60, 60, 64, 64))
    for number, picture in enumerate((bar, face, Image.new("RGB", (128, 128)))):
        picture.save(folder / f"{number}.png")


def test_a_build_measures_writing_and_faces_and_refuses_by_their_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_for_published(tmp_path / "cache", monkeypatch)
    (tmp_path / "photos").mkdir()
    signs(tmp_path / "photos")
    screens, ingest = {"text_area": True, "faces": True}, {"proxy_px": 1024, "proxy_quality": 100}
    select = {"max_text_area": 0.05, "max_face_area": 0.1, "subsets": {"nobody": "faces = 0", "alone": "faces = 1"}}
    made = recipe(tmp_path / "photos", tmp_path / "out", screen=screens, select=select, ingest=ingest)
    dataset, _ = build(made, upto="select")
    bar, face, nothing = rows(dataset, "screens")
    assert bar["text_area"] == pytest.approx(0.104, abs=0.005) and bar["faces"] == 0 == bar["face_area"]
    assert face["faces"] == 1 and face["face_area"] > 0.1
    assert (nothing["text_area"], nothing["faces"], nothing["face_area"]) == (0, 0, 0)
    assert [name for name, _ in bar["models"]] == ["text_area", "faces"]
    assert dict(bar["models"])["faces"].startswith("centerface@")
    chosen = rows(dataset, "selection")
    assert [row["rejected_by"] for row in chosen] == ["text", "large_face", None]
    assert chosen[2]["subsets"] == ["nobody"]


def test_screens_written_before_writing_and_faces_read_as_null() -> None:
    old = pa.Table.from_pylist([{"row_id": 0, "border": 0.5}], schema=schema_of("screens")).drop_columns(
        ["text_area", "faces", "face_area"]
    )
    assert with_added("screens", old).to_pylist()[0] == dict.fromkeys(schema_of("screens").names) | {
        "row_id": 0, "border": 0.5
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------ the recipe


def test_it_is_off_by_default_and_reads_captions_where_it_compares_them() -> None:
    from commands import order

    assert "screen" not in [step.job for step in order.pipeline(made())]
    assert "screen" in [step.job for step in order.pipeline(made(border=True))]
    assert screen.map_job(made(border=True)).inputs == ("proxies", "images")
    assert screen.map_job(made(clip_similarity=True)).inputs == ("proxies", "images", "raw_captions")


def test_knobs_of_speed_do_not_change_the_content() -> None:
    slow, fast = made(border=True), made(border=True, batch_size=8, device="cuda", workers=3, gpus_per_worker=1)
    assert screen.map_job(slow).knobs == screen.map_job(fast).knobs
    assert set(screen.map_job(slow).knobs) == {
        f"screen.{name}" for name in ("sharpness", "upscale", "border", "classifiers", "clip_similarity")
    }
    assert (screen.map_job(fast).num_gpus, screen.map_job(fast).workers) == (0, 3)  # arithmetic needs none
    seeing = screen.map_job(made(text_area=True, faces=True, gpus_per_worker=1))
    assert seeing.knobs.keys() - screen.map_job(slow).knobs.keys() == {"screen.text_area", "screen.faces"}
    assert seeing.num_gpus == 0  # OpenCV's networks run on the CPU
    assert screen.map_job(made(classifiers={"nsfw": {}}, gpus_per_worker=1)).num_gpus == 1


@pytest.mark.parametrize(
    ("sections", "why"),
    [
        ({"select": {"max_nsfw": 0.5}}, "the screen nsfw is not computed; set screen.classifiers.nsfw={}"),
        ({"select": {"min_sharpness": 9}}, "the screen sharpness is not computed; set screen.sharpness=true"),
        ({"select": {"max_text_area": 0.2}}, "the screen text_area is not computed; set screen.text_area=true"),
        ({"select": {"max_face_area": 0.2}}, "the screen face_area is not computed; set screen.faces=true"),
        (
            {"select": {"min_clip_similarity": 0.2}, "screen": {"border": True}},
            "select.min_clip_similarity: the screen clip_similarity is not computed; set screen.clip_similarity=true",
        ),
        (
            {"select": {"subsets": {"plain": "format = 'PNG' AND Border < 0.1"}}},
            "select.subsets.plain: the screen border is not computed; set screen.border=true",
        ),
        (
            {"select": {"subsets": {"drawn": "classes['cartoon'] > 0.5"}}, "screen": {"classifiers": {"nsfw": {}}}},
            "select.subsets.drawn: the screen classes is not computed; set a classifier in screen.classifiers",
        ),
        ({"screen": {"classifiers": {"cartoon": {"model": "a/b"}}}}, "cartoon needs a model and a label"),
        ({"screen": {"classifiers": {"Not a word": {}}}}, "'Not a word': the name of a column is lower-case letters"),
        ({"select": {"max_upscale": 0.5}, "screen": {"upscale": True}}, "select.max_upscale: "),
    ],
)  # fmt: skip
def test_impossible_recipes_are_refused(sections: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError) as refused:
        DataRecipe.from_mapping({"images": "a", "out": "b"} | sections)
    assert why in str(refused.value)


def test_a_limit_is_allowed_where_its_screen_is_computed() -> None:
    made = DataRecipe.from_mapping(
        {
            "images": "a",
            "out": "b",
            "screen": {"classifiers": {"nsfw": {}}, "upscale": True},
            "select": {"max_nsfw": 0.5, "max_upscale": 2, "subsets": {"mine": "nsfw < 0.1 AND format <> 'border'"}},
        }
    )
    assert (made.select.max_nsfw, made.screen.columns()) == (0.5, {"nsfw", "upscale"})
