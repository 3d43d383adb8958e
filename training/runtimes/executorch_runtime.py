"""ExecuTorch: lowers the graph to XNNPACK's kernels, for one size of picture, and runs it on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from training.model import PixArt
from training.runtimes.graph import traced
from training.runtimes.manifest import Recipe

GRAPH = "model.pte"
GROUPS = (128, 64, 32)


def write(model: PixArt, fixed: tuple[int, int] | None, folder: Path, recipe: Recipe) -> None:
    """Write model.pte; int4 weights go with int8 activations, and are rounded within `model`."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    if recipe == "int4-g128":
        _quantise(model)
    lowered = to_edge_transform_and_lower(traced(model, fixed), partitioner=[XnnpackPartitioner()])
    (folder / GRAPH).write_bytes(lowered.to_executorch().buffer)


def _quantise(model: PixArt) -> None:
    """Round the linear layers to int4 in the largest groups that divide their inputs; a layer without one stays."""
    from torchao.quantization import Int8DynamicActivationIntxWeightConfig, quantize_
    from torchao.quantization.granularity import PerGroup

    def group_of(layer: nn.Linear) -> int | None:
        return next((size for size in GROUPS if layer.in_features % size == 0), None)

    for group in GROUPS:
        knobs = Int8DynamicActivationIntxWeightConfig(
            weight_dtype=torch.int4,  # type: ignore[attr-defined]  # torch has it from 2.7 on, its stubs do not
            weight_granularity=PerGroup(group),
        )
        quantize_(model, knobs, lambda layer, _, group=group: type(layer) is nn.Linear and group_of(layer) == group)


def load(folder: Path, recipe: Recipe, threads: int | None) -> Callable[[list[Tensor]], Tensor]:
    """Load the program; it has one pool of threads for the process, as many as there are cores."""
    from executorch.runtime import Runtime

    program = Runtime.get().load_program(folder / GRAPH)
    forward = program.load_method("forward")

    def run(inputs: list[Tensor]) -> Tensor:
        return forward.execute(inputs)[0].clone()

    run.__dict__["program"] = program  # the method reads from it
    return run
