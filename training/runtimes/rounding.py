"""What a recipe does to the weights of each linear layer, and which outputs it moves most."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from training.runtimes.manifest import Layer, Recipe

GROUP = 128


def rounded(weight: Tensor, recipe: Recipe) -> Tensor:
    """A weight (out, in) as a recipe keeps it: each row on 256 levels, or 128 neighbours of a row on 16.

    Where a row does not divide by 128, a group is the largest power of two below that it does divide by.
    """
    if recipe == "bf16":
        return weight.bfloat16().float()
    if recipe == "int8-dynamic":
        low, high = weight.aminmax(dim=1, keepdim=True)
        low, high = low.clamp(max=0), high.clamp(min=0)
        scale = (high - low).clamp(min=1e-12) / 255
        zero = (-low / scale).round()
        return ((weight / scale + zero).round().clamp(0, 255) - zero) * scale
    if recipe == "int4-g128":
        rows, columns = weight.shape
        group = next((size for size in (GROUP, 64, 32) if columns % size == 0), columns)
        groups = weight.reshape(rows, -1, group)
        scale = groups.abs().amax(dim=2, keepdim=True).clamp(min=1e-12) / 8
        return ((groups / scale).round().clamp(-8, 7) * scale).reshape(rows, columns)
    return weight


@torch.no_grad()
def worst_layers(model: nn.Module, recipe: Recipe, call: Callable[[], object], count: int = 5) -> tuple[Layer, ...]:
    """The linear layers whose outputs change most where the weights of one alone are rounded. `call`: runs the model in
    fp32 once."""
    if recipe == "fp32":
        return ()
    found: dict[str, float] = {}

    def measure(name: str, layer: nn.Module, given: Tensor, output: Tensor) -> None:
        assert isinstance(layer, nn.Linear)
        change = given @ (rounded(layer.weight, recipe) - layer.weight).T
        found[name] = float(change.norm() / output.norm().clamp(min=1e-12))

    with ExitStack() as hooks:
        for name, layer in model.named_modules():
            if isinstance(layer, nn.Linear):
                hook = layer.register_forward_hook(
                    lambda layer, given, output, name=name: measure(name, layer, given[0], output)
                )
                hooks.callback(hook.remove)
        call()
    ranked = sorted(found.items(), key=lambda each: -each[1])
    return tuple(Layer(name=name, relative_error=error) for name, error in ranked[:count])
