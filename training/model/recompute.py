"""Activation checkpointing: what a block's forward pass keeps for its backward pass, and what is computed again."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

Keep = Literal["none", "selective", "full"]
"""`none`: every activation is kept. `selective`: outputs of matrix products and of attention are, so only cheap
elementwise work is done again. `full`: a block keeps its input, and its whole forward pass is done again."""

aten = torch.ops.aten
COSTLY = [
    aten.mm.default,
    aten.addmm.default,
    aten.convolution.default,
    aten._scaled_dot_product_flash_attention.default,
    aten._scaled_dot_product_flash_attention_for_cpu.default,
    aten._scaled_dot_product_efficient_attention.default,
    aten._scaled_dot_product_cudnn_attention.default,
]
"""What `selective` keeps the outputs of."""


def run_block(block: nn.Module, keep: Keep, *inputs: Any) -> Tensor:
    """One block's output; under `keep` for a backward pass, where one will come."""
    if keep == "none" or not torch.is_grad_enabled():
        return block(*inputs)
    # No block draws random numbers, so there is no generator's state to restore.
    if keep == "full":
        return checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False)
    contexts = partial(create_selective_checkpoint_contexts, COSTLY)
    return checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)
