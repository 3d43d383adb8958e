"""OpenVINO: writes the graph as its IR, weights compressed by NNCF, and runs it on the CPU."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.model import PixArt
from training.runtimes.graph import traced
from training.runtimes.manifest import Recipe

GRAPH = "model.xml"
GROUP = 128
"""Neighbouring weights, or activations, that share a scale."""
LARGE_CELLS = 128 * 128
"""Latent cells, those of 1024 px; a larger picture has a graph of its own size. In one of any size OpenVINO frees late:
at 4K it holds twice as much."""


def write(model: PixArt, fixed: tuple[int, int] | None, folder: Path, recipe: Recipe) -> None:
    """Write model.xml and model.bin."""
    save(converted(traced(model, fixed)), folder, recipe)


def converted(program: torch.export.ExportedProgram) -> Any:
    """The graph as OpenVINO's model."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # it reports home unless it is missing
    import openvino

    return openvino.convert_model(program)


def save(model: Any, folder: Path, recipe: Recipe) -> None:
    """Write a model with its weights in fp32, in fp16 where the maths is bf16, or compressed in place."""
    import openvino

    if recipe in ("int8-dynamic", "int4-g128"):
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


def load(folder: Path, recipe: Recipe, threads: int | None) -> Callable[[list[Tensor]], Tensor]:
    """Compile the graph for this machine's CPU: one of any size, or, of a large picture, one of its own size."""
    import openvino

    core, held = openvino.Core(), dict[tuple[int, int] | None, Any]()

    def compiled(cells: tuple[int, int] | None, inputs: list[Tensor]) -> Any:
        if cells not in held:
            held.clear()  # first, so that the memory of the last one is free
            held[cells] = _compiled(core, folder, recipe, threads, inputs if cells else [])
        return held[cells]

    def run(inputs: list[Tensor]) -> Tensor:
        rows, columns = inputs[0].shape[2:]
        cells = (rows, columns) if rows * columns > LARGE_CELLS else None
        return torch.from_numpy(compiled(cells, inputs)([each.numpy() for each in inputs])[0])

    return run


def _compiled(core: Any, folder: Path, recipe: Recipe, threads: int | None, of_size: list[Tensor]) -> Any:
    """The graph in its recipe's precision; where inputs are given, for their height and width alone, and then a
    compressed one holds activations in bf16.

    Raises:
        ValueError: OpenVINO refuses the file.
    """
    import openvino

    is_compressed = recipe in ("int8-dynamic", "int4-g128")
    knobs: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "bf16" if recipe == "bf16" or (of_size and is_compressed) else "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": GROUP if is_compressed else 0,
    }
    if threads is not None:
        knobs["INFERENCE_NUM_THREADS"] = threads
    try:
        model = core.read_model(folder / GRAPH)
        if of_size:
            latents, _, _, rows, columns = (list(each.shape) for each in of_size)
            shapes = {0: latents, 3: rows, 4: columns}  # a caption of any length
            model.reshape({number: openvino.PartialShape(shape) for number, shape in shapes.items()})
        return core.compile_model(model, "CPU", knobs)
    except RuntimeError as error:
        why = str(error).strip().splitlines()[-1]
        raise ValueError(f"{folder / GRAPH}: openvino {openvino.__version__} cannot load it ({why})") from None
