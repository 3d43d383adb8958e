"""CAME: an optimizer with Adafactor's memory whose steps shrink where they prove unreliable. Luo et al., "CAME:
Confidence-guided Adaptive Memory Efficient Optimization", arXiv 2307.02047. Every number follows the published
implementation, which has no bias correction, so a matrix moves about ten times its learning rate in the first steps and
a warm-up should cover that."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor import zeros as sharded_zeros
from torch.optim import Optimizer


class CAME(Optimizer):
    """Confidence-guided Adaptive Memory Efficient optimizer.

    Parameters of equal shape are updated together, stacked along a new first axis: the arithmetic of one tensor, with
    one kernel where a loop would launch as many as there are blocks. On a CPU, where launches are cheap and caches
    small, they take turns. Either way their state is kept stacked under the first parameter of its shape. Tensors of
    two or more axes are factored over the last two. Parameters that FSDP2 has sliced along their first axis are updated
    slice by slice: means over that axis are taken over all processes, so the numbers are those of whole tensors up to
    the order of sums.

    `betas`: decay of the update's mean, the squared gradient, and the squared instability; `eps`: added to the latter
    two. `clip_threshold`: largest root mean square of a tensor's normalised gradient. `weight_decay`: decoupled, per
    unit of learning rate. Raises ValueError: a knob is out of its range, or a parameter has no gradient at `step`."""

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
            raise ValueError(f"betas {betas} are not all in [0, 1)")
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
                here = [_local(p) for p in params]
                state_here = {name: _local(value) for name, value in state.items()}
                slices = params[0].device_mesh.get_group() if isinstance(params[0], DTensor) else None
                at_once = 1 if here[0].is_cpu else len(params)
                for start in range(0, len(params), at_once):
                    part = slice(start, start + at_once)
                    stacked = _stacked_grads(params[part])
                    update = self._update(stacked, {k: v[part] for k, v in state_here.items()}, group, slices)
                    if group["weight_decay"]:
                        torch._foreach_mul_(here[part], 1 - group["weight_decay"] * group["lr"])
                    update = update.to(here[0].dtype)
                    torch._foreach_add_(here[part], list(update.unbind()), alpha=-group["lr"])
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state of whole tensors; sharded parameters keep their slices of it."""
        super().load_state_dict(state_dict)
        for group in self.param_groups:
            for params in _by_shape(group["params"]):
                state = self.state.get(params[0])
                if state and isinstance(params[0], DTensor):
                    for name, sharded in _zeros(params).items():
                        assert isinstance(sharded, DTensor)
                        state[name] = distribute_tensor(
                            state[name], sharded.device_mesh, sharded.placements, src_data_rank=None
                        )

    def _update(
        self, grads: Tensor, state: dict[str, Tensor], group: dict[str, Any], slices: dist.ProcessGroup | None
    ) -> Tensor:
        """Direction of the step for stacked gradients (n, *shape), before the learning rate. `slices`: the processes
        that each hold a slice of the parameters' first axis; None where they are whole."""
        beta_mean, beta_square, beta_instability = group["betas"]
        eps_square, eps_instability = group["eps"]
        factored = grads.dim() > 2  # the first axis is the stack
        if factored:
            rows = slices if grads.dim() == 3 else None  # of more axes, the last two are whole
            update = _over_root(grads, state, "exp_avg_sq", grads.square(), eps_square, beta_square, rows)
        else:
            square = grads.square().add_(eps_square)
            update = grads * state["exp_avg_sq"].lerp_(square, 1 - beta_square).rsqrt()
        rms = _mean(update.flatten(1).square(), 1, slices).sqrt()  # (n,), of each tensor by itself
        clip = (rms / group["clip_threshold"]).clamp(min=1.0)
        update.div_(clip.reshape(-1, *[1] * (update.dim() - 1)))

        mean = state["exp_avg"].lerp_(update, 1 - beta_mean)
        if not factored:
            return mean
        instability = update.sub_(mean).square_()
        return _over_root(mean, state, "exp_avg_res", instability, eps_instability, beta_instability, rows)


def _over_root(
    x: Tensor,
    state: dict[str, Tensor],
    name: str,
    square: Tensor,
    eps: float,
    beta: float,
    slices: dist.ProcessGroup | None,
) -> Tensor:
    """Average the row and column means of `square` + eps into the state, and divide x by the root of their span. The
    span is the rank-1 matrix (rows / mean(rows)) x columns, which is never built. `square` (..., R, C) is used up: its
    memory becomes the result's."""
    rows = state[f"{name}_row"].lerp_(square.mean(dim=-1).add_(eps), 1 - beta)  # (..., R)
    columns = state[f"{name}_col"].lerp_(_mean(square, -2, slices).add_(eps), 1 - beta)  # (..., C)
    of_row = (rows / _mean(rows, -1, slices).unsqueeze(-1)).rsqrt().unsqueeze(-1)
    return torch.mul(x, of_row, out=square).mul_(columns.rsqrt().unsqueeze(-2))


def _mean(x: Tensor, dim: int, slices: dist.ProcessGroup | None) -> Tensor:
    """The mean over an axis; where processes hold slices of it, over all of them, however unequal."""
    if slices is None:
        return x.mean(dim=dim)
    total = x.sum(dim=dim)
    sums = torch.cat([total.flatten(), total.new_tensor([x.shape[dim]])])  # the lengths add up with the sums
    dist.all_reduce(sums, group=slices)
    return (sums[:-1] / sums[-1]).view_as(total)


def _local(tensor: Tensor) -> Tensor:
    """The slice of a sharded tensor that this process holds, sharing its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _stacked_grads(params: list[Tensor]) -> Tensor:
    """Gradients (n, *shape) in float32, of this process's slices; of one parameter without a copy."""
    grads = [_local(p.grad) for p in params if p.grad is not None]
    return (torch.stack(grads) if len(grads) > 1 else grads[0].unsqueeze(0)).float()


def _zeros(params: list[Tensor]) -> dict[str, Tensor]:
    """The state before the first step, stacked, float32; in the same slices as the parameters."""
    shape, first = (len(params), *params[0].shape), params[0]
    shapes = {"exp_avg": shape}
    if len(shape) > 2:
        for name in ("sq", "res"):
            shapes[f"exp_avg_{name}_row"] = shape[:-1]
            shapes[f"exp_avg_{name}_col"] = (*shape[:-2], shape[-1])
    else:
        shapes["exp_avg_sq"] = shape
    if not isinstance(first, DTensor):
        return {name: torch.zeros(shape, device=first.device) for name, shape in shapes.items()}
    assert tuple(first.placements) == (Shard(0),), first.placements
    slices: dict[str, list[Shard | Replicate]] = {name: [Shard(1)] for name in shapes}  # the stack's second axis
    if len(shape) == 3:  # a matrix's column means are whole on every process
        slices["exp_avg_sq_col"] = slices["exp_avg_res_col"] = [Replicate()]
    return {
        name: sharded_zeros(shape, device_mesh=first.device_mesh, placements=slices[name])
        for name, shape in shapes.items()
    }


def _by_shape(params: list[Tensor]) -> list[list[Tensor]]:
    shapes: dict[tuple[torch.Size, torch.dtype, torch.device], list[Tensor]] = {}
    for p in params:
        shapes.setdefault((p.shape, p.dtype, p.device), []).append(p)
    return list(shapes.values())
