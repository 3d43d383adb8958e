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
    """Compile the graph for this machine's CPU, in the precision of its recipe and no other."""
    import openvino

    is_compressed = recipe in ("int8-dynamic", "int4-g128")
    knobs: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "bf16" if recipe == "bf16" else "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": GROUP if is_compressed else 0,
    }
    if threads is not None:
        knobs["INFERENCE_NUM_THREADS"] = threads
    try:
        compiled = openvino.Core().compile_model(folder / GRAPH, "CPU", knobs)
    except RuntimeError as error:
        why = str(error).strip().splitlines()[-1]
        raise ValueError(f"{folder / GRAPH}: openvino {openvino.__version__} cannot load it ({why})") from None

    def run(inputs: list[Tensor]) -> Tensor:
        return torch.from_numpy(compiled([each.numpy() for each in inputs])[0])

    return run
