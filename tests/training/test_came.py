"""CAME against the published implementation's numbers, and what grouping by shape must not change."""

from __future__ import annotations

from copy import deepcopy as copy_of

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from training.came import CAME
from training.model import PixArt, PixArtConfig


class Operations(TorchDispatchMode):
    """Counts what reaches the device, views included."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


NAMES = ("weight", "conv", "bias")


@pytest.mark.parametrize(("run", "lr", "decay"), [("wd0", 1e-3, 0.0), ("wd", 1e-3, 0.03), ("official", 2e-5, 0.0)])
def test_twenty_steps_equal_the_published_ones(published, run, lr, decay):
    case = published("came")
    params = {name: torch.nn.Parameter(case[f"init_{name}"].clone()) for name in NAMES}
    optimizer = CAME(params.values(), lr=lr, weight_decay=decay)
    for step in range(20):
        for name in NAMES:
            params[name].grad = case[f"grad_{name}"][step]
        optimizer.step()
        for name in NAMES:
            assert (params[name] - case[f"{run}_{name}"][step]).abs().max() < 5e-6, (step, name)


def test_state_equals_the_published_one(published):
    case = published("came")
    params = {name: torch.nn.Parameter(case[f"init_{name}"].clone()) for name in NAMES}
    optimizer = CAME(params.values(), lr=1e-3)
    for step in range(20):
        for name in NAMES:
            params[name].grad = case[f"grad_{name}"][step]
        optimizer.step()
    for name in NAMES:
        state = optimizer.state[params[name]]
        for key, value in state.items():
            assert torch.allclose(value[0], case[f"state_{name}_{key}"], rtol=1e-4, atol=1e-9), (name, key)


def test_tensors_of_one_shape_do_not_disturb_each_other():
    torch.manual_seed(0)
    together = [torch.nn.Parameter(torch.randn(4, 3)) for _ in range(3)]
    alone = [torch.nn.Parameter(p.detach().clone()) for p in together]
    optimizers = [CAME(together, lr=0.1), *(CAME([p], lr=0.1) for p in alone)]
    for step in range(5):
        for i, (a, b) in enumerate(zip(together, alone, strict=True)):
            a.grad = torch.randn(4, 3) * 10.0 ** (i * step)  # one of them far over the clipping threshold
            b.grad = a.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for a, b in zip(together, alone, strict=True):
        assert torch.allclose(a, b, atol=1e-7)


def test_state_survives_saving():
    torch.manual_seed(0)
    params = [
        torch.nn.Parameter(torch.randn(4, 3)),
        torch.nn.Parameter(torch.randn(4, 3)),
        torch.nn.Parameter(torch.ones(2)),
    ]
    copies = [torch.nn.Parameter(p.detach().clone()) for p in params]
    first, second = CAME(params, lr=0.1), CAME(copies, lr=0.1)
    for step in range(4):
        if step == 2:
            for p, copy in zip(params, copies, strict=True):
                copy.data.copy_(p.data)
            second.load_state_dict(copy_of(first.state_dict()))
        for p, copy in zip(params, copies, strict=True):
            p.grad = torch.randn_like(p)
            copy.grad = p.grad.clone()
        first.step()
        if step >= 2:
            second.step()
    assert all(torch.equal(p, copy) for p, copy in zip(params, copies, strict=True))


def test_a_step_of_xl_launches_few_kernels_where_tensors_are_stacked():
    """Operations counted off the CPU, on shapes alone; came-pytorch needs 14,741."""
    with torch.device("meta"):
        params = list(PixArt(PixArtConfig()).parameters())
    for p in params:
        p.grad = torch.empty_like(p)
    optimizer = CAME(params)
    optimizer.step()
    with Operations() as operations:
        optimizer.step()
    assert 100 < operations.count <= 1000


def test_came_refuses_knobs_out_of_range_and_a_missing_gradient():
    p, q = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))
    with pytest.raises(ValueError, match="lr -1 is negative"):
        CAME([p], lr=-1)
    with pytest.raises(ValueError, match="are not all in"):
        CAME([p], betas=(0.9, 1.0, 0.9))
    optimizer = CAME([p, q])
    p.grad = torch.ones(2)
    with pytest.raises(ValueError, match="1 of 2 parameters of one shape lack a gradient"):
        optimizer.step()


def test_a_hundred_steps_drift_less_than_a_millionth_from_came_pytorch():
    came_pytorch = pytest.importorskip("came_pytorch", reason="pip install -e '.[bench]'")
    torch.manual_seed(0)
    shapes = [(48, 32), (48, 32), (7, 5), (6, 1, 2, 2), (32,), (32,)]
    ours = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    optimizers = CAME(ours, lr=2e-5), came_pytorch.CAME(theirs, lr=2e-5)
    for _ in range(100):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn_like(p) * 1e-2
            q.grad = p.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for p, q in zip(ours, theirs, strict=True):
        assert (p - q).norm() / q.norm() < 1e-6
