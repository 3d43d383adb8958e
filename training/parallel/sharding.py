"""FSDP2: the weights in slices over the processes, gathered block by block to compute and whole to be stored."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from training.model import PixArt

POLICY = MixedPrecisionPolicy(param_dtype=None, reduce_dtype=torch.float32, cast_forward_inputs=False)
"""Weights are gathered and gradients summed in fp32; autocast takes the products in bf16, as it does under DDP. So the
tokens and the modulation tables stay in fp32 and both modes compute the same, for twice the traffic of bf16 weights."""


def shard(model: PixArt, processes: int) -> None:
    """Cut every parameter along its first axis over all processes; each block is gathered while it computes. What the
    root holds itself stays whole from its forward to its backward pass, unless there will be none."""
    device = next(model.parameters()).device
    mesh = init_device_mesh(device.type, (processes,))
    for block in model.blocks:
        fully_shard(block, mesh=mesh, mp_policy=POLICY)
    fully_shard(model, mesh=mesh, mp_policy=POLICY, reshard_after_forward=None if model.training else True)


def sliced_like(value: Tensor, reference: Tensor | None) -> Tensor:
    """A whole tensor, equal on every process, in the reference's slices; as it is where that one is whole."""
    if not isinstance(reference, DTensor):
        return value
    on_device = value.to(reference.device)
    return distribute_tensor(on_device, reference.device_mesh, reference.placements, src_data_rank=None)


def gathered(tensor: Tensor) -> Tensor:
    """A whole tensor on its device; every process must call this for a sharded one."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole(content: Any, *, keep: bool = True) -> Any:
    """Nested content with sharded tensors gathered, one at a time; every process must call this. `keep`: put gathered
    tensors on the CPU for this process, or drop them (None) at once."""
    if isinstance(content, DTensor):
        full = gathered(content)
        return full.cpu() if keep else None
    if isinstance(content, dict):
        return {key: whole(value, keep=keep) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return type(content)(whole(value, keep=keep) for value in content)
    return content
