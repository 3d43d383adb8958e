"""ONNX: writes the graph for onnxruntime, its matrix products quantised in blocks, and runs it on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.model import PixArt
from training.runtimes.denoiser import stoppable
from training.runtimes.graph import INPUTS, traced
from training.runtimes.manifest import Recipe

GRAPH, WEIGHTS = "model.onnx", "model.onnx.data"
GROUP = 128
IN_GRAPH = 1024
"""Bytes from which on a tensor is kept outside of the graph."""
BITS: dict[Recipe, int] = {"int8-dynamic": 8, "int4-g128": 4}
INT8_ACTIVATIONS = 4
"""`accuracy_level` of a quantised matrix product whose activations are rounded to int8 as they come."""


def write(model: PixArt, fixed: tuple[int, int] | None, folder: Path, recipe: Recipe) -> None:
    """Write model.onnx, and next to it the weights in one file."""
    save(converted(traced(model, fixed)), folder, recipe)


def converted(program: torch.export.ExportedProgram) -> Any:
    """The graph as an ONNX model."""
    exported = torch.onnx.export(program, dynamo=True, verbose=False)
    assert exported is not None
    return exported.model_proto


def save(model: Any, folder: Path, recipe: Recipe) -> None:
    """Write a model with its weights in fp32, or quantised in place."""
    import onnx
    from onnx.external_data_helper import set_external_data

    if recipe in BITS:
        model = _quantised(model, BITS[recipe])
    for tensor in model.graph.initializer:  # save_model refuses the name where the working folder has a file of it
        if tensor.HasField("raw_data") and len(tensor.raw_data) >= IN_GRAPH:
            set_external_data(tensor, WEIGHTS)
    onnx.save_model(model, folder / GRAPH)


def _quantised(model: Any, bits: int) -> Any:
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    _as_matmul(model)
    quantizer = MatMulNBitsQuantizer(
        model, bits=bits, block_size=GROUP, is_symmetric=True, accuracy_level=INT8_ACTIVATIONS
    )
    quantizer.process()
    return quantizer.model.model


def _as_matmul(model: Any) -> None:
    """Turn each Gemm of the graph into a product and a sum, because the quantizer leaves a Gemm as it is."""
    import numpy as np
    from onnx import helper, numpy_helper

    graph, nodes = model.graph, []
    weights = {each.name: each for each in graph.initializer}
    for node in graph.node:
        if node.op_type != "Gemm":
            nodes.append(node)
            continue
        given, weight, *bias = node.input
        weights[weight].CopyFrom(
            numpy_helper.from_array(np.ascontiguousarray(numpy_helper.to_array(weights[weight]).T), weight)
        )
        product = f"{node.output[0]}_product" if bias else node.output[0]
        nodes.append(helper.make_node("MatMul", [given, weight], [product], f"{node.name}_product"))
        if bias:
            nodes.append(helper.make_node("Add", [product, *bias], [node.output[0]], f"{node.name}_sum"))
    del graph.node[:]
    graph.node.extend(nodes)


def load(folder: Path, recipe: Recipe, threads: int | None) -> Callable[[list[Tensor]], Tensor]:
    """Open a session on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(folder / GRAPH, options, providers=["CPUExecutionProvider"])
    except RuntimeError as error:
        why = str(error).strip().splitlines()[-1]
        raise ValueError(f"{folder / GRAPH}: onnxruntime {onnxruntime.__version__} cannot load it ({why})") from None

    def run(inputs: list[Tensor]) -> Tensor:
        named = dict(zip(INPUTS, (each.numpy() for each in inputs), strict=True))
        running = onnxruntime.RunOptions()
        found = stoppable(lambda: session.run(None, named, running), lambda: setattr(running, "terminate", True))
        return torch.from_numpy(found[0])

    return run
