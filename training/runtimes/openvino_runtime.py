"""OpenVINO: writes the graph as its IR, weights compressed by NNCF, and runs it on the CPU."""

from __future__ import annotations

import logging
import mmap
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from threading import Event, Thread
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from training.model import PixArt
from training.runtimes.denoiser import stoppable
from training.runtimes.graph import traced
from training.runtimes.manifest import Recipe

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # OpenVINO reports home unless it is missing

log = logging.getLogger("training")

GRAPH, WEIGHTS = "model.xml", "model.bin"
GROUP = 128
"""Neighbouring weights, or activations, that share a scale."""
COMPRESSED: tuple[Recipe, ...] = ("int8-dynamic", "int4-g128")
Precision = Literal["fp32", "bf16"]
LARGE_CELLS = 128 * 128
"""Latent cells, those of 1024 px; a larger picture has a graph of its own size. In one of any size OpenVINO frees late:
at 4K it holds twice as much."""


def write(model: PixArt, fixed: tuple[int, int] | None, folder: Path, recipe: Recipe) -> None:
    """Write model.xml and model.bin."""
    save(converted(traced(model, fixed)), folder, recipe)


def converted(program: torch.export.ExportedProgram) -> Any:
    """The graph as OpenVINO's model."""
    import openvino

    return openvino.convert_model(program)


def save(model: Any, folder: Path, recipe: Recipe) -> None:
    """Write a model with its weights in fp32, in fp16 where the maths is bf16, or compressed in place."""
    import openvino

    if recipe in COMPRESSED:
        model = _compressed(model, recipe)
    openvino.save_model(model, folder / GRAPH, compress_to_fp16=recipe == "bf16")


def _compressed(model: Any, recipe: Recipe) -> Any:
    import nncf
    from nncf.quantization.advanced_parameters import AdvancedCompressionParameters, GroupSizeFallbackMode

    if recipe == "int8-dynamic":
        return nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_ASYM)
    narrow = AdvancedCompressionParameters(group_size_fallback_mode=GroupSizeFallbackMode.ADJUST)
    mode = nncf.CompressWeightsMode.INT4_SYM
    return nncf.compress_weights(model, mode=mode, group_size=GROUP, ratio=1.0, advanced_parameters=narrow)


def is_large(rows: int, columns: int) -> bool:
    """Whether a picture of so many latent cells has a graph of its own size."""
    return rows * columns > LARGE_CELLS


def computed_in(recipe: Recipe, large: bool) -> Precision:
    """What this machine's CPU computes a recipe in. For a large picture compressed weights want activations in bf16;
    where OpenVINO is asked for bf16 and the CPU has none, it computes in fp32 and says nothing."""
    return "bf16" if (recipe == "bf16" or (large and recipe in COMPRESSED)) and _has_bf16() else "fp32"


@cache
def _has_bf16() -> bool:
    import openvino

    found = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if not found:
        log.info("this processor has no bf16: the model is computed in fp32, where a picture takes twice the memory")
    return found


def load(folder: Path, recipe: Recipe, threads: int | None) -> Callable[[list[Tensor]], Tensor]:
    """Compile the graph for this machine's CPU: one of any size, or, of a large picture, one of its own size."""
    import openvino

    core, held = openvino.Core(), dict[tuple[int, int] | None, Any]()
    with (folder / WEIGHTS).open("rb") as file:
        weights = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)  # OpenVINO takes no array that is read-only

    def compiled(cells: tuple[int, int] | None, inputs: list[Tensor]) -> Any:
        if cells not in held:
            held.clear()  # first, so that the memory of the last one is free
            held[cells] = _compiled(core, folder, weights, recipe, threads, inputs if cells else [])
        return held[cells]

    def run(inputs: list[Tensor]) -> Tensor:
        rows, columns = inputs[0].shape[2:]
        cells = (rows, columns) if is_large(rows, columns) else None
        with held_once(weights):
            request = compiled(cells, inputs)
            return torch.from_numpy(stoppable(lambda: infer(request, inputs), request.cancel))

    def infer(request: Any, inputs: list[Tensor]) -> Any:
        request.start_async([each.numpy() for each in inputs])  # infer() hears of no cancel
        request.wait()
        return request.results[0].copy()

    return run


@contextmanager
def held_once(weights: mmap.mmap) -> Iterator[None]:
    """Let go of the pages of a mapped file every now and then, while OpenVINO reads them.

    It copies each weight into the order that it multiplies in, some of them as a graph is compiled and the others in
    the first pass. Without this all of the file is in memory with the copies: the whole XL/2 in int8 takes 0.6 GB more.
    """
    done = Event()

    def let_go() -> None:
        while not done.wait(0.02):
            weights.madvise(mmap.MADV_DONTNEED)

    thread = Thread(target=let_go)
    if hasattr(weights, "madvise"):  # not on Windows
        thread.start()
    try:
        yield
    finally:
        done.set()
        if thread.is_alive():
            thread.join()


def _compiled(
    core: Any, folder: Path, weights: mmap.mmap, recipe: Recipe, threads: int | None, of_size: list[Tensor]
) -> Any:
    """A request to the graph in its recipe's precision; where inputs are given, for their height and width alone.
    Raises ValueError: OpenVINO refuses the file."""
    import openvino

    knobs: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": {"bf16": "bf16", "fp32": "f32"}[computed_in(recipe, bool(of_size))],
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": GROUP if recipe in COMPRESSED else 0,
    }
    if threads is not None:
        knobs["INFERENCE_NUM_THREADS"] = threads
    try:
        mapped = openvino.Tensor(np.frombuffer(weights, dtype=np.uint8), shared_memory=True)
        model = core.read_model((folder / GRAPH).read_bytes(), mapped)
        if of_size:
            latents, _, _, rows, columns = (list(each.shape) for each in of_size)
            shapes = {0: latents, 3: rows, 4: columns}  # a caption of any length
            model.reshape({number: openvino.PartialShape(shape) for number, shape in shapes.items()})
        return core.compile_model(model, "CPU", knobs).create_infer_request()
    except RuntimeError as error:
        why = str(error).strip().splitlines()[-1]
        raise ValueError(f"{folder / GRAPH}: openvino {openvino.__version__} cannot load it ({why})") from None
