"""LAION's head against its reference scores, and the job with a tiny CLIP and a tiny head of the real layout."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import save_file

from curation.ingest.ingest import encode_proxy
from curation.scores import aesthetic
from curation.scores.laion import find_head, load_head
from models.clip import Clip
from schemas.pixels import open_rgb
from schemas.recipe import DataRecipe
from schemas.tables import schema_of
from tests.building import build, recipe, rows, table_of, write_pictures
from tests.photos import photo
from tests.tiny_models import SIDE_PX, save_aesthetic_head, save_clip

REFERENCE = Path(os.environ.get("SIGMA_FIXTURES", "../shared/fixtures")) / "aesthetic"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    head = save_aesthetic_head(folder / "heads" / "tiny-head.pth")
    return {"scorer": "laion", "clip": str(save_clip(folder / "tiny-clip")), "head": str(head), "device": "cpu"}


# ------------------------------------------------------------------------------------------------ the head


@pytest.mark.skipif(not REFERENCE.is_dir(), reason=f"no reference numbers at {REFERENCE}")
def test_the_published_head_gives_its_reference_scores() -> None:
    reference = np.load(REFERENCE / "embeddings.npz")
    scores = load_head(REFERENCE / "sac+logos+ava1-l14-linearMSE.pth")(reference["embeddings"])
    assert scores.shape == (64,)
    assert np.abs(scores - reference["scores"]).max() < 1e-4


def test_a_head_is_its_layers_one_after_the_other_on_the_normalised_embedding(models: dict[str, str]) -> None:
    embeddings = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32) * 10
    state = torch.load(models["head"], weights_only=True)
    values = torch.from_numpy(embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True))
    for number in (0, 2, 4):
        values = torch.nn.functional.linear(values, state[f"layers.{number}.weight"], state[f"layers.{number}.bias"])
    head = load_head(models["head"])
    assert head(embeddings) == pytest.approx(values[:, 0].numpy(), abs=1e-5)
    assert head(embeddings * 7) == pytest.approx(head(embeddings), abs=1e-5)
    assert np.isfinite(head(np.zeros((1, 8)))).all()
    assert head(np.zeros((0, 8))).shape == (0,)


def test_a_head_may_be_safetensors_or_a_folder_with_one(
    models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embeddings = np.random.default_rng(0).normal(size=(5, 8))
    expected = load_head(models["head"])(embeddings)
    save_file(torch.load(models["head"], weights_only=True), tmp_path / "model.safetensors")
    assert (load_head(tmp_path)(embeddings) == expected).all()
    assert (load_head(tmp_path / "model.safetensors")(embeddings) == expected).all()
    assert (load_head(Path(models["head"]).parent)(embeddings) == expected).all()
    assert find_head(str(tmp_path)).name == tmp_path.name
    assert find_head(models["head"]).name == "tiny-head"
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("~", "~/model.safetensors"):
        assert (find_head(name)(embeddings) == expected).all()


def refused(path: Path) -> str:
    with pytest.raises(ValueError) as error:
        load_head(path)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_file_that_is_no_head_is_refused_in_a_line(models: dict[str, str], tmp_path: Path) -> None:
    assert "no aesthetic head here" in refused(tmp_path)
    assert "no aesthetic head here" in refused(tmp_path / "nowhere.pth")
    for name, content in {"text.pth": b"hello", "empty.pth": b"", "text.safetensors": b"hello"}.items():
        (tmp_path / name).write_bytes(content)
        assert "cannot be read as an aesthetic head" in refused(tmp_path / name)

    def saved(state: Any) -> Path:
        torch.save(state, tmp_path / "saved.pth")
        return tmp_path / "saved.pth"

    state = torch.load(models["head"], weights_only=True)
    assert "something other than tensors" in refused(saved([1, 2]))
    assert "conv belongs to no linear layer" in refused(saved(state | {"conv": torch.zeros(3)}))
    short = {name: tensor for name, tensor in state.items() if not name.startswith("layers.4")}
    assert "does not give one number" in refused(saved(short))
    gap = {name: tensor for name, tensor in state.items() if not name.startswith("layers.2")}
    assert "layer 4 does not follow the one before it" in refused(saved(gap))
    assert "does not give one number" in refused(saved({}))


def test_a_pickle_that_runs_code_is_not_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "ran",)

    torch.save({"layers.0.weight": Trap()}, tmp_path / "trap.pth")
    assert "cannot be read as an aesthetic head" in refused(tmp_path / "trap.pth")
    assert not (tmp_path / "ran").exists()


def test_missing_weights_name_the_model_and_the_command(
    models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        ValueError, match=r"ttj/sac-logos-ava1-l14-linearMSE .*0.004 GB.*hf download .*aesthetic\.head="
    ):
        worker(**models | {"head": None})
    with pytest.raises(ValueError, match=r"openai/clip-vit-large-patch14 .*hf download .*set aesthetic\.clip="):
        worker(**models | {"clip": None})


def test_a_head_of_another_clip_is_refused(models: dict[str, str], tmp_path: Path) -> None:
    head = save_aesthetic_head(tmp_path / "head.pth", dim=12)
    with pytest.raises(ValueError, match=r"reads 12 numbers and aesthetic\.clip \(tiny-clip\) gives 8"):
        worker(**models | {"head": str(head)})


# ------------------------------------------------------------------------------------------------ the job


def made(**section: Any) -> DataRecipe:
    return DataRecipe.from_mapping({"images": "a", "out": "b", "run": {"threads": 2}, "aesthetic": section})


def worker(**section: Any) -> Any:
    return aesthetic.map_job(made(**section)).build()


def proxies() -> pa.Table:
    names = ("coffee.png", "chelsea.png", None, "astronaut.png", "moon.png")
    jpegs = [encode_proxy(photo(name), 90) if name else None for name in names]
    return table_of("proxies", ({"row_id": n, "image_id": f"id{n}", "jpeg": jpeg} for n, jpeg in enumerate(jpegs)))


def test_each_picture_gets_the_score_of_its_own_embedding(models: dict[str, str]) -> None:
    given = proxies()
    done: list[int] = []
    found = worker(**models, store_embeddings=True, batch_size=2)({"proxies": given}, done.append)
    assert sum(done) == 5
    assert found["scores"].schema == schema_of("scores") and found["embeddings"].schema == schema_of("embeddings")
    clip, head = Clip.load(models["clip"], "x", "cpu"), load_head(models["head"])
    for row, stored in zip(found["scores"].to_pylist(), found["embeddings"].to_pylist(), strict=True):
        jpeg = given["jpeg"][row["row_id"]].as_py()
        if jpeg is None:
            assert row["aesthetic"] is row["aesthetic_scorer"] is stored["embedding"] is stored["model"] is None
            continue
        embedding = clip.embed_images([open_rgb(jpeg, cover_px=(SIDE_PX, SIDE_PX))])
        assert row["aesthetic"] == pytest.approx(float(head(embedding)[0]), abs=1e-5)
        assert row["aesthetic_scorer"] == "tiny-head on tiny-clip"
        assert stored["embedding"] == pytest.approx(embedding[0], rel=2e-3, abs=1e-3)
        assert (stored["image_id"], stored["model"]) == (row["image_id"], "tiny-clip")
    assert len({row["aesthetic"] for row in found["scores"].to_pylist()}) == 5


def test_batches_and_threads_change_no_score(models: dict[str, str]) -> None:
    given = {"proxies": proxies()}
    one = worker(**models, batch_size=1)(given, lambda _: None)
    all_at_once = worker(**models, batch_size=64)(given, lambda _: None)
    assert set(one) == {"scores"}
    first, second = (found["scores"]["aesthetic"].drop_null().to_pylist() for found in (one, all_at_once))
    assert first == pytest.approx(second, abs=1e-5)


def test_a_part_without_a_picture_has_nulls(models: dict[str, str]) -> None:
    found = worker(**models, store_embeddings=True)({"proxies": proxies().slice(2, 1)}, lambda _: None)
    assert found["scores"]["aesthetic"].to_pylist() == found["embeddings"]["embedding"].to_pylist() == [None]


def test_embeddings_are_stored_in_16_bits_and_duckdb_reads_them(models: dict[str, str], tmp_path: Path) -> None:
    from engine import catalog

    write_pictures(tmp_path / "photos", [(96, 64)] * 4)
    section = models | {"store_embeddings": True}
    dataset, _ = build(recipe(tmp_path / "photos", tmp_path / "out", aesthetic=section), upto="aesthetic")
    assert dataset.read_part("embeddings", 0)["embedding"].type.value_type == pa.float16()
    stored = [row["embedding"] for row in rows(dataset, "embeddings")]
    with catalog.connect(dataset) as connection:
        query = "SELECT embedding, list_cosine_similarity(embedding, embedding) FROM embeddings ORDER BY row_id"
        assert connection.sql(query).fetchall() == [(each, pytest.approx(1, abs=1e-5)) for each in stored]


def test_the_jobs_knobs_are_those_that_decide_a_score() -> None:
    assert aesthetic.map_job(made()).knobs == {"aesthetic.scorer": "photographic"}
    laion = aesthetic.map_job(made(scorer="laion", batch_size=3, device="cuda:1", workers=2, gpus_per_worker=0.5))
    assert laion.knobs == {
        "aesthetic.scorer": "laion", "aesthetic.clip": None, "aesthetic.head": None,
        "aesthetic.store_embeddings": False,
    }  # fmt: skip
    assert (laion.workers, laion.num_gpus, laion.outputs) == (2, 0.5, ("scores",))
    assert made().sample_fingerprint() == made(batch_size=3).sample_fingerprint()
    assert made().sample_fingerprint() != made(scorer="laion").sample_fingerprint()


@pytest.mark.parametrize(
    ("section", "gpus", "device"),
    [
        ({"gpus_per_worker": 1}, 0, "cuda"),  # photographic has no use for one
        ({"scorer": "laion"}, None, "auto"),
        ({"scorer": "laion", "device": "cpu"}, 0, "cpu"),
        ({"scorer": "laion", "device": "cuda:0"}, None, "cuda:0"),
        ({"scorer": "laion", "gpus_per_worker": 0}, 0, "cpu"),
        ({"scorer": "laion", "gpus_per_worker": 2}, 2, "cuda"),
    ],
)
def test_gpus(section: dict[str, Any], gpus: float | None, device: str) -> None:
    found = made(**section).aesthetic
    assert (found.num_gpus(), found.chosen_device()) == (gpus, device)


@pytest.mark.parametrize(
    ("section", "why"),
    [
        ({"store_embeddings": True}, "aesthetic: store_embeddings needs scorer: laion"),
        ({"gpus_per_worker": 1.5}, "aesthetic.gpus_per_worker: above 1 it is a whole number"),
        ({"scorer": "lion"}, "aesthetic.scorer: "),
    ],
)
def test_impossible_recipes_are_refused(section: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError) as refused:
        made(**section)
    assert why in str(refused.value)
