"""The consistency function against the published scheduler; distillation and sampling where the answer is known."""

from __future__ import annotations

import pytest
import torch

from schemas.training import few_timesteps
from training.diffusion.consistency import clean_of, consistency, distillation_loss, sample_few, solver_interval
from training.diffusion.schedule import at, linear_schedule, schedule_on

DEVIATION = 0.5
"""Of the Gaussian that stands for the pictures: all that diffusion does to it is known exactly."""
SCHEDULE = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}


def spread(timestep):
    """The deviation of the Gaussian's noised values."""
    schedule = schedule_on(timestep.device)
    return (at(schedule.signal, timestep).square() * DEVIATION**2 + at(schedule.sigma, timestep).square()).sqrt()


def teacher(latents, timestep):
    """The noise that is expected in the Gaussian's noised values."""
    return at(schedule_on(latents.device).sigma, timestep) * latents / spread(timestep).square()


def exact(latents, timestep):
    """The noise whose clean latents are the end of the teacher's ODE, which scales a value as the deviations go."""
    schedule = schedule_on(latents.device)
    clean = latents * DEVIATION / spread(timestep)
    return (latents - at(schedule.signal, timestep) * clean) / at(schedule.sigma, timestep)


def draws(number: int = 64, timestep: int | None = None):
    torch.manual_seed(0)
    timesteps = torch.randint(1000, (number,)) if timestep is None else torch.full((number,), timestep)
    return DEVIATION * torch.randn(number, 2, 4, 4), torch.randn(number, 2, 4, 4), timesteps


def test_at_timestep_0_the_function_gives_its_input_whatever_the_model_says():
    latents, predicted, _ = draws(4)
    assert torch.equal(consistency(1000 * predicted, latents, torch.zeros(4, dtype=torch.long)), latents)


@pytest.mark.parametrize("timestep", [999, 499, 19, 1])
def test_the_function_is_that_of_the_published_scheduler(timestep):
    from diffusers import LCMScheduler

    scheduler = LCMScheduler(**SCHEDULE)
    scheduler.set_timesteps(timesteps=[timestep], original_inference_steps=1000)
    latents, predicted, timesteps = draws(3, timestep)
    expected = scheduler.step(predicted, timestep, latents).denoised
    assert torch.allclose(consistency(predicted, latents, timesteps), expected, rtol=1e-4, atol=1e-4)


def test_one_step_at_400_is_what_a_pipeline_of_diffusers_makes_of_a_one_step_model():
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler(**SCHEDULE, clip_sample=False)
    scheduler.set_timesteps(timesteps=[400])
    start, predicted, _ = draws(3)
    expected = scheduler.step(predicted, 400, start).pred_original_sample
    found = sample_few(lambda x, t: predicted, start, few_timesteps(1, 400), lambda step: start)
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("skip", [1, 5, 25, 125])
def test_the_published_scheduler_takes_the_same_timesteps_where_it_is_given_the_skip(skip):
    from diffusers import LCMScheduler

    scheduler = LCMScheduler(**SCHEDULE, original_inference_steps=1000 // skip)
    for steps in (1, 2, 4, 8):
        scheduler.set_timesteps(steps)
        assert scheduler.timesteps.tolist() == few_timesteps(steps, 999)


def test_few_steps_meet_timesteps_that_are_learnt():
    assert [few_timesteps(steps, 999) for steps in (1, 2, 4)] == [[999], [999, 499], [999, 749, 499, 249]]
    for skip in (1, 5, 25, 125):
        learnt = set(solver_interval(torch.arange(1000), skip)[0].tolist())
        assert len(learnt) == 1000 // skip and all({*few_timesteps(steps, 999)} <= learnt for steps in (1, 2, 4, 8))
    begin, end = solver_interval(torch.tensor([0, 24, 25, 999]), 25)
    assert begin.tolist() == [24, 24, 49, 999] and end.tolist() == [0, 0, 24, 974]


def loss(student, skip, timestep=None):
    options = {"skip": skip, "huber": 1e-3}
    return distillation_loss(student, student, teacher, *draws(timestep=timestep), **options).loss


def test_the_end_of_the_teachers_ode_has_next_to_no_loss_and_the_teacher_itself_has():
    losses = {skip: float(loss(exact, skip).mean()) for skip in (1, 5, 25)}
    assert losses[1] < 1e-6 and losses[1] < losses[5] < losses[25] < 5e-4
    assert float(loss(teacher, 25).mean()) > 8 * losses[25]


def test_the_loss_is_the_weighted_pseudo_huber_distance():
    """Of a student that says 0 at 999, against a target that says the exact noise one step further."""
    latents, noise, timesteps = draws(timestep=999)
    found = distillation_loss(
        lambda x, t: torch.zeros_like(x), exact, exact, latents, noise, timesteps, skip=25, huber=0.5
    ).loss
    s = linear_schedule()
    noised = s.signal[999] * latents.double() + s.sigma[999] * noise
    further = s.signal[974] * DEVIATION * noised / spread(timesteps).double()
    further += s.sigma[974] * exact(noised, timesteps)
    wanted = further * DEVIATION / spread(torch.full_like(timesteps, 974)).double()
    distance = ((noised / s.signal[999] - wanted).square() + 0.25).sqrt() - 0.5
    assert torch.allclose(found.double(), (s.signal[999] * distance).mean(dim=(1, 2, 3)), rtol=1e-3)


def test_only_the_student_has_a_gradient():
    networks = [torch.nn.Parameter(torch.ones(())) for _ in range(3)]
    models = [lambda x, t, scale=scale: scale * exact(x, t) for scale in networks]
    terms = distillation_loss(*models, *draws(8), skip=125, huber=1e-3)
    terms.loss.sum().backward()
    assert networks[0].grad is not None and networks[1].grad is None and networks[2].grad is None
    assert torch.equal(terms.mse, terms.loss) and not terms.vb.any()


@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_the_exact_function_draws_the_gaussian_in_any_number_of_steps(steps):
    calls = []

    def model(x, t):
        calls.append(int(t[0]))
        return exact(x, t)

    torch.manual_seed(1)
    start = torch.randn(4000, 1, 4, 4)
    drawn = sample_few(model, start, few_timesteps(steps, 999), lambda step: torch.randn(4000, 1, 4, 4))
    assert calls == few_timesteps(steps, 999)
    assert float(drawn.std()) == pytest.approx(DEVIATION, rel=0.02) and abs(float(drawn.mean())) < 0.01
    if steps == 1:
        assert torch.allclose(drawn, DEVIATION * start, atol=1e-3)


def test_clean_latents_are_found_from_their_noise():
    latents, noise, timesteps = draws()
    schedule = schedule_on(latents.device)
    noised = at(schedule.signal, timesteps) * latents + at(schedule.sigma, timesteps) * noise
    assert torch.allclose(clean_of(noise, noised, timesteps), latents, atol=1e-3)
