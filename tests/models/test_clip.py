from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.clip import Clip, cosine
from tests.tiny_models import save_clip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip") / "tiny-clip")


@pytest.fixture(scope="module")
def clip(folder: Path) -> Clip:
    return Clip.load(str(folder), "ground.clip", "cpu")


def test_embeddings_are_the_model_s_own_not_normalised(clip: Clip, folder: Path) -> None:
    import torch
    from transformers import CLIPModel, CLIPProcessor

    image = Image.radial_gradient("L").convert("RGB")
    inputs = CLIPProcessor.from_pretrained(folder)(text=["a ring"], images=[image], return_tensors="pt", padding=True)
    with torch.inference_mode():
        expected = CLIPModel.from_pretrained(folder)(**inputs)
    images, texts = clip.embed_images([image]), clip.embed_texts(["a ring"])
    assert images.shape == texts.shape == (1, 8) and images.dtype == np.float32
    assert cosine(texts, images)[0, 0] == pytest.approx(
        (expected.image_embeds @ expected.text_embeds.T).item(), abs=1e-5
    )
    assert abs(np.linalg.norm(images) - 1) > 1e-3
    assert clip.name == "tiny-clip"


def test_a_batch_gives_the_embeddings_of_single_inputs(clip: Clip) -> None:
    pictures = [Image.new("RGB", (40 + 9 * n, 30), (60 * n, 90, 255 - 60 * n)) for n in range(4)]
    words = ["a", "a much longer text than the first", "boat"]
    together = clip.embed_images(pictures), clip.embed_texts(words)
    assert np.allclose(together[0], np.concatenate([clip.embed_images([p]) for p in pictures]), atol=1e-5)
    assert np.allclose(together[1], np.concatenate([clip.embed_texts([w]) for w in words]), atol=1e-5)
    assert clip.embed_texts([]).shape == (0, 8)


def test_a_text_beyond_the_limit_is_cut_and_its_tokens_are_counted(clip: Clip) -> None:
    long = "boats " * 40
    assert clip.num_tokens(long) > clip.max_tokens == 77
    assert np.isfinite(clip.embed_texts([long])).all()


def test_missing_weights_name_the_model_its_size_and_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match=r"openai/clip-vit-large-patch14 .*1\.7 GB.*hf download .*set ground\.clip="):
        Clip.load(None, "ground.clip")
    with pytest.raises(ValueError, match="no/such-model"):
        Clip.load("no/such-model", "ground.clip")


def test_a_folder_that_is_no_clip_is_refused_in_a_line(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"clip-vit-large-patch14 .*; {tmp_path} holds none, .*set ground.clip="):
        Clip.load(str(tmp_path), "ground.clip")
    cut = shutil.copytree(folder, tmp_path / "cut")
    weights = cut / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-500])
    with pytest.raises(ValueError, match="cut: the weights cannot be loaded"):
        Clip.load(str(cut), "ground.clip")
    bare = shutil.copytree(folder, tmp_path / "bare")
    (bare / "preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match="bare: has no CLIP preprocessing"):
        Clip.load(str(bare), "ground.clip")


@pytest.mark.parametrize("half, dtype", [(True, "float16"), (False, "float32")])
def test_a_gpu_computes_in_half_precision_where_that_is_wanted(
    folder: Path, monkeypatch: pytest.MonkeyPatch, half: bool, dtype: str
) -> None:
    import torch
    from transformers import CLIPModel

    monkeypatch.setattr("models.clip.choose_device", lambda *_: torch.device("cuda"))
    monkeypatch.setattr(CLIPModel, "to", lambda self, _: self)
    clip = Clip.load(str(folder), "x", half_on_gpu=half)
    assert str(clip._model.dtype) == f"torch.{dtype}"


def test_a_cpu_never_computes_in_half_precision(folder: Path) -> None:
    clip = Clip.load(str(folder), "x", "cpu", half_on_gpu=True)
    assert str(clip._model.dtype) == "torch.float32"
