"""OpenVINO and ONNX against torch: any size and caption, the last timestep, and blocks with KV compression."""

from __future__ import annotations

import math
import signal
import time
from importlib import import_module
from threading import Timer, main_thread

import pytest
import torch

from training.runtimes.denoiser import Denoiser, eager
from training.runtimes.export import quietly

pytestmark = pytest.mark.slow  # a graph is converted in two or three seconds
CELLS = ((8, 8), (8, 20), (22, 14))
"""Latents: the smallest, and both sides on their own; an odd number of tokens loses a row to the compression."""


@pytest.fixture(scope="module")
def in_openvino(program):
    pytest.importorskip("openvino")
    from training.runtimes.openvino_runtime import converted

    with quietly():
        return converted(program)


def worst_error(run, model) -> float:
    """The largest relative error at three timesteps, each with another size and length of caption."""
    ours, theirs = eager(model), Denoiser(run, model.config, eager(model).sizes, None)
    found = []
    for timestep, cells, tokens in zip((1.0, 500.0, 999.0), CELLS, (1, 40, 300), strict=True):
        given = torch.randn(2, 4, *cells), torch.full((2,), timestep), torch.randn(1, tokens, 128)
        expected, noise = ours(*given), theirs(*given)
        assert noise.shape == expected.shape
        found.append(float((noise - expected).norm() / expected.norm()))
    return max(found)


@pytest.mark.parametrize(
    ("recipe", "bound"), [("fp32", 2e-5), ("bf16", 1e-2), ("int8-dynamic", 1.2e-2), ("int4-g128", 0.1)]
)
def test_openvino_draws_any_size_and_caption_as_torch_does(recipe, bound, in_openvino, model, tmp_path, monkeypatch):
    from training.runtimes import openvino_runtime

    with quietly():
        openvino_runtime.save(in_openvino.clone(), tmp_path, recipe)
    error = worst_error(openvino_runtime.load(tmp_path, recipe, 1), model)
    assert (1e-3 if recipe != "fp32" else 0) < error < bound
    monkeypatch.setattr(openvino_runtime, "LARGE_CELLS", 100)  # two of the sizes have a graph of their own then
    assert worst_error(openvino_runtime.load(tmp_path, recipe, 1), model) < 1.5 * bound


@pytest.mark.parametrize(("recipe", "bound"), [("fp32", 2e-5), ("int8-dynamic", 1.2e-2), ("int4-g128", 0.1)])
def test_onnx_draws_any_size_and_caption_as_torch_does(recipe, bound, program, model, tmp_path):
    pytest.importorskip("onnxruntime")
    from training.runtimes.onnx_runtime import converted, load, save

    with quietly():
        save(converted(program), tmp_path, recipe)
    assert (1e-3 if recipe != "fp32" else 0) < worst_error(load(tmp_path, recipe, 1), model) < bound
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    whole = 4 * sum(parameter.numel() for parameter in model.parameters())
    assert size < whole * {"fp32": 1.1, "int8-dynamic": 0.4, "int4-g128": 0.27}[recipe]


@pytest.mark.parametrize("runtime", ["openvino", "onnx"])
def test_a_pass_is_left_when_it_is_interrupted(runtime, program, model, tmp_path):
    """A large picture takes minutes a pass, and nobody waits for them after Ctrl-C."""
    pytest.importorskip({"onnx": "onnxruntime"}.get(runtime, runtime))
    written = import_module(f"training.runtimes.{runtime}_runtime")
    with quietly():
        written.save(written.converted(program), tmp_path, "fp32")
    denoise = Denoiser(written.load(tmp_path, "fp32", 1), model.config, eager(model).sizes, None)
    given = torch.randn(1, 4, 120, 120), torch.tensor([500.0]), torch.randn(1, 300, 128)
    denoise(*given)  # what is made at the first pass is there
    begun = time.perf_counter()
    denoise(*given)
    whole = time.perf_counter() - begun
    left = []
    for _ in range(3):  # another process may take the cores at any one of them
        Timer(whole / 10, signal.pthread_kill, (main_thread().ident, signal.SIGINT)).start()
        begun = time.perf_counter()
        with pytest.raises(KeyboardInterrupt):
            denoise(*given)
        left.append((time.perf_counter() - begun) / whole)
    assert min(left) < 0.8
    assert denoise(*given).isfinite().all()  # the next picture is drawn


def test_the_sinusoid_is_outside_of_the_graph_because_bf16_moves_timestep_999(model):
    """What an export of the timestep itself would cost."""
    from training.model.embed import timestep_sinusoid
    from training.runtimes.graph import Graph, axes

    index = torch.arange(128) / 128
    angle = (999 * torch.exp(-math.log(10000) * index)).bfloat16().float()
    rounded = torch.cat([angle.cos(), angle.sin()])[None]
    latents, others = torch.randn(1, 4, 8, 8), (torch.randn(1, 7, 128), *axes(model.config, 8, 8))
    exact, moved = (
        Graph(model)(latents, given, *others) for given in (timestep_sinusoid(torch.tensor([999.0])), rounded)
    )
    assert (moved - exact).norm() / exact.norm() > 1e-2
