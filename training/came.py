"""CAME: an optimizer with Adafactor's memory whose steps shrink where they prove unreliable.

Luo et al., "CAME: Confidence-guided Adaptive Memory Efficient Optimization", arXiv 2307.02047. Every number
follows the published implementation, including what it does not do: there is no bias correction, so a matrix
moves about ten times its learning rate in the first steps and a warm-up should cover that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class CAME(Optimizer):
    """Confidence-guided Adaptive Memory Efficient optimizer.

    Parameters of equal shape are updated together, stacked along a new first axis: the arithmetic of one
    tensor, with one kernel where a loop would launch as many as there are blocks. On a CPU, where launches are
    cheap and caches small, they take turns instead. Either way their state is kept stacked under the first
    parameter of its shape. Tensors of two or more axes are factored over the last two.

    Args:
        params: parameters or parameter groups; all of them must receive a gradient at every step.
        betas: decay of the update's mean, of the squared gradient, and of the squared instability.
        eps: added to the squared gradient, and to the squared instability.
        clip_threshold: largest root mean square of a tensor's normalised gradient.
        weight_decay: decoupled, per unit of learning rate.

    Raises:
        ValueError: a knob is out of its range, or a parameter has no gradient at `step`.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 2e-5,
        betas: tuple[float, float, float] = (0.9, 0.999, 0.9999),
        eps: tuple[float, float] = (1e-30, 1e-16),
        clip_threshold: float = 1.0,
        weight_decay: float = 0.0,
    ) -> None:
        if lr < 0:
            raise ValueError(f"lr {lr} is negative")
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas {betas} do not lie in [0, 1)")
        knobs = {"lr": lr, "betas": betas, "eps": eps, "clip_threshold": clip_threshold, "weight_decay": weight_decay}
        super().__init__(params, knobs)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for params in _by_shape(group["params"]):
                missing = sum(p.grad is None for p in params)
                if missing == len(params):
                    continue
                if missing:
                    raise ValueError(f"{missing} of {len(params)} parameters of one shape lack a gradient; freeze them")
                state = self.state[params[0]]
                if not state:
                    state.update(_zeros(params))
                at_once = 1 if params[0].is_cpu else len(params)
                for start in range(0, len(params), at_once):
                    part = slice(start, start + at_once)
                    update = self._update(_stacked_grads(params[part]), {k: v[part] for k, v in state.items()}, group)
                    if group["weight_decay"]:
                        torch._foreach_mul_(params[part], 1 - group["weight_decay"] * group["lr"])
                    update = update.to(params[0].dtype)
                    torch._foreach_add_(params[part], list(update.unbind()), alpha=-group["lr"])
        return loss

    def _update(self, grads: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> Tensor:
        """Direction of the step for stacked gradients (n, *shape), before the learning rate."""
        beta_mean, beta_square, beta_instability = group["betas"]
        eps_square, eps_instability = group["eps"]
        factored = grads.dim() > 2  # the first axis is the stack
        if factored:
            update = _over_root(grads, state, "exp_avg_sq", grads.square(), eps_square, beta_square)
        else:
            square = grads.square().add_(eps_square)
            update = grads * state["exp_avg_sq"].lerp_(square, 1 - beta_square).rsqrt()
        rms = update.flatten(1).square().mean(dim=1).sqrt()  # (n,), of each tensor by itself
        clip = (rms / group["clip_threshold"]).clamp(min=1.0)
        update.div_(clip.reshape(-1, *[1] * (update.dim() - 1)))

        mean = state["exp_avg"].lerp_(update, 1 - beta_mean)
        if not factored:
            return mean
        instability = update.sub_(mean).square_()
        return _over_root(mean, state, "exp_avg_res", instability, eps_instability, beta_instability)


def _over_root(x: Tensor, state: dict[str, Tensor], name: str, square: Tensor, eps: float, beta: float) -> Tensor:
    """Average the row and column means of `square` + eps into the state, and divide x by the root of their span.

    The span is the rank-1 matrix (rows / mean(rows)) x columns, which is never built. `square` (..., R, C) is used
    up: its memory becomes the result's.
    """
    rows = state[f"{name}_row"].lerp_(square.mean(dim=-1).add_(eps), 1 - beta)  # (..., R)
    columns = state[f"{name}_col"].lerp_(square.mean(dim=-2).add_(eps), 1 - beta)  # (..., C)
    of_row = (rows / rows.mean(dim=-1, keepdim=True)).rsqrt().unsqueeze(-1)
    return torch.mul(x, of_row, out=square).mul_(columns.rsqrt().unsqueeze(-2))


def _stacked_grads(params: list[Tensor]) -> Tensor:
    """Gradients (n, *shape) in float32; of one parameter without a copy."""
    grads = [p.grad for p in params if p.grad is not None]
    return (torch.stack(grads) if len(grads) > 1 else grads[0].unsqueeze(0)).float()


def _zeros(params: list[Tensor]) -> dict[str, Tensor]:
    """The state before the first step, stacked, float32."""
    shape, device = (len(params), *params[0].shape), params[0].device
    shapes = {"exp_avg": shape}
    if len(shape) > 2:
        for name in ("sq", "res"):
            shapes[f"exp_avg_{name}_row"] = shape[:-1]
            shapes[f"exp_avg_{name}_col"] = (*shape[:-2], shape[-1])
    else:
        shapes["exp_avg_sq"] = shape
    return {name: torch.zeros(shape, device=device) for name, shape in shapes.items()}


def _by_shape(params: list[Tensor]) -> list[list[Tensor]]:
    shapes: dict[tuple[torch.Size, torch.dtype, torch.device], list[Tensor]] = {}
    for p in params:
        shapes.setdefault((p.shape, p.dtype, p.device), []).append(p)
    return list(shapes.values())
