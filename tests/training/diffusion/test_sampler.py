"""DPM-Solver++ against the published sampler on a closed-form model, and against an exact solution."""

from __future__ import annotations

import pytest
import torch

from training.diffusion import guided, sample
from training.diffusion.sampler import log_alpha, solver_times
from training.diffusion.schedule import linear_schedule


def closed_form(condition: float, seen: list[float]):
    def predict(x, timestep):
        seen.append(float(timestep[0]))
        u = (timestep / 999)[:, None, None, None]
        return x * (0.4 + 0.6 * u) + (1 - u) * (0.1 * condition + 0.05 * torch.sin(3 * x))

    return predict


@pytest.mark.parametrize("steps", [5, 14, 20])
def test_equals_the_published_sampler(published, steps):
    case, seen = published("dpm_solver"), []
    model = guided(closed_form(1.0, seen), closed_form(-0.5, []), 4.5)
    out = sample(model, case["z"], steps)
    assert (out - case[f"out_{steps}"]).abs().max() < 1e-4
    assert torch.allclose(torch.tensor(seen), case[f"t_{steps}"], atol=1e-3)


def test_the_solver_sees_the_published_times():
    model_times = solver_times(20)[:-1] * 1000 - 1
    assert torch.allclose(model_times[:3], torch.tensor([999.0, 949.05, 899.1], dtype=torch.float64))
    assert solver_times(20)[-1] == 0.001


def test_log_alpha_is_the_schedule_at_its_points():
    s = linear_schedule()
    times = torch.arange(1, 1001, dtype=torch.float64) / 1000
    assert torch.allclose(log_alpha(times).exp().square(), s.alphas_cumprod, rtol=1e-9)


def test_a_known_picture_is_found_whatever_the_noise():
    """The exact noise model of a data set of one picture leads to that picture, up to the last state's noise."""
    torch.manual_seed(0)
    picture, alphas = torch.randn(1, 3, 4, 4), linear_schedule().alphas_cumprod.float()

    def model(x, timestep):
        a = log_alpha((timestep.double() + 1) / 1000).exp().float()[:, None, None, None]
        return (x - a * picture) / (1 - a.square()).sqrt()

    out = sample(model, torch.randn(5, 3, 4, 4), 10)
    assert (out - alphas[0].sqrt() * picture).abs().max() < 0.1


def test_guidance_of_one_is_the_conditional_model():
    x, t = torch.randn(2, 1, 2, 2), torch.tensor([5.0, 5.0])
    conditional, free = closed_form(1.0, []), closed_form(-0.5, [])
    assert torch.allclose(guided(conditional, free, 1.0)(x, t), conditional(x, t), atol=1e-6)
    assert torch.equal(guided(conditional, free, 0.0)(x, t), free(x, t))


def test_sampling_without_a_step_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        sample(lambda x, t: x, torch.zeros(1, 1, 2, 2), 0)
