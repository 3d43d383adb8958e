"""The gradient of a batch: micro-batches that fit the memory, their sums, and the sum over processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from schemas.training import Data, TrainingRecipe
from training.diffusion import LossTerms, q_sample, training_loss
from training.inputs import ModelInputs
from training.parallel.distributed import World

Loss = Callable[[nn.Module, ModelInputs, TrainingRecipe], LossTerms]
"""The losses of a model, per draw."""


def loss_terms(model: nn.Module, inputs: ModelInputs, recipe: TrainingRecipe) -> LossTerms:
    """The losses of a model's predictions, per draw."""
    with torch.autocast(inputs.latents.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
        noised = q_sample(inputs.latents, inputs.timestep, inputs.noise)
        predicted = model(noised, inputs.timestep, inputs.caption, inputs.mask, inputs.drop)
    return training_loss(predicted, inputs.latents, inputs.noise, inputs.timestep)


def accumulate_gradients(
    model: nn.Module, inputs: ModelInputs, recipe: TrainingRecipe, knobs: Data, here: World, loss: Loss = loss_terms
) -> Tensor:
    """Forward and backward over this process's share of a batch, in micro-batches. Leaves the gradient of the whole
    batch's mean loss in the parameters: averaged over the processes by the model itself (DDP, FSDP), or here by
    `ExactSums`. Returns this process's mean (loss, mse, vb), detached, (3,) float64."""
    exact = ExactSums(model) if recipe.exact_sums else None
    draws_of_batch = len(inputs) * (here.size if exact else 1)  # DDP and FSDP divide by the processes themselves
    size = (knobs.micro_batch or len(inputs)) * knobs.timesteps_per_image
    parts = inputs.split(min(size, len(inputs)))
    total = torch.zeros(3, device=here.device, dtype=torch.float64)
    for number, part in enumerate(parts):
        with here.unsynchronised(model) if number < len(parts) - 1 else nullcontext():
            terms = loss(model, part, recipe)
            (terms.loss.sum() / draws_of_batch).backward()
            if exact is not None:
                exact.take()
        total += torch.stack([terms.loss.sum(), terms.mse.sum(), terms.vb.sum()]).detach()
    if exact is not None:
        exact.give(here)
    return total / len(inputs)


class ExactSums:
    """Gradients of micro-batches summed in float64 over the whole batch, on any number of processes. A micro-batch
    gives the same float32 gradient on any process. Their float64 sum depends on the grouping only in its last bits,
    which the rounding to float32 drops but for once in some 10^8 values."""

    def __init__(self, model: nn.Module) -> None:
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        sizes = [parameter.numel() for parameter in self._parameters]
        self._flat = torch.zeros(sum(sizes), dtype=torch.float64, device=self._parameters[0].device)
        self._sums = [
            part.view_as(parameter) for part, parameter in zip(self._flat.split(sizes), self._parameters, strict=True)
        ]

    def take(self) -> None:
        """Add the gradients of a backward pass and clear them."""
        for parameter, total in zip(self._parameters, self._sums, strict=True):
            if parameter.grad is not None:
                total += parameter.grad
                parameter.grad = None

    def give(self, here: World) -> None:
        """Leave the sum over all processes as the gradients."""
        here.sum(self._flat)
        for parameter, total in zip(self._parameters, self._sums, strict=True):
            parameter.grad = total.to(parameter.dtype)


def check_micro_batch(recipe: TrainingRecipe, knobs: Data, here: World, stage: str) -> None:
    """Check that the batch can be split as the recipe says. Raises ValueError: `exact_sums` without a `micro_batch`
    that divides this process's share: other numbers of processes would then make other micro-batches."""
    share = here.split(knobs.batch, f"stage {stage}")
    if recipe.exact_sums and (knobs.micro_batch is None or share % knobs.micro_batch):
        raise ValueError(
            f"stage {stage}: exact_sums needs a data.micro_batch that divides each process's share of the batch, "
            f"{share}; it is {knobs.micro_batch or 'null'}; set data.micro_batch=1 or another divisor"
        )


@contextmanager
def fixed_threads(recipe: TrainingRecipe, here: World) -> Iterator[None]:
    """With `exact_sums` on a CPU: one thread per process, since a kernel splits its sums by the number of threads."""
    threads = torch.get_num_threads()
    if recipe.exact_sums and here.device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
