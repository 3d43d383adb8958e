"""ExecuTorch against torch, for one size and any caption; `make test-executorch` runs it."""

from __future__ import annotations

import pytest
import torch

from tests.training.runtimes.conftest import check_nothing_is_left, tiny
from training.export.weights import StoredModel, write_weights
from training.runtimes.denoiser import eager, load_runtime
from training.runtimes.export import export_model

pytest.importorskip("executorch", reason="make test-executorch")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    model = tiny()
    write_weights(StoredModel(path, model.state_dict(), model.config, ()), path, "sigma")
    return path


@pytest.mark.parametrize(("recipe", "bound"), [("fp32", 2e-5), ("int4-g128", 0.1)])
def test_executorch_draws_one_size_and_any_caption_as_torch_does(recipe, bound, source, tmp_path):
    exported = export_model(source, tmp_path / "out", "executorch", recipe, size=(64, 96))
    assert exported.manifest.runtime_version == "1.5.1"
    denoise, expected = load_runtime(tmp_path / "out"), eager(tiny())
    for timestep, tokens in ((1.0, 1), (500.0, 40), (999.0, 300)):
        given = torch.randn(1, 4, 8, 12), torch.tensor([timestep]), torch.randn(1, tokens, 128)
        noise = expected(*given)
        assert (denoise(*given) - noise).norm() / noise.norm() < bound
    with pytest.raises(ValueError, match=r"64x64 px .* draws 64x96 alone; export it again with --size 64x64"):
        denoise(torch.zeros(1, 4, 8, 8), torch.zeros(1), torch.zeros(1, 3, 128))


def test_a_size_is_needed(source, tmp_path):
    with pytest.raises(ValueError, match=r"executorch draws one size alone, .*std::bad_alloc.* --size 512x512"):
        export_model(source, tmp_path / "out", "executorch", "fp32")
    assert not (tmp_path / "out").exists()


def test_an_export_leaves_nothing_outside_of_its_folder(tmp_path, monkeypatch):
    check_nothing_is_left("executorch", "int4-g128", tmp_path, monkeypatch)
