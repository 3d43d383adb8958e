"""What a few-step stage learns: its parent's pictures in place of the loss over the dataset's."""

from __future__ import annotations

from torch import Tensor, nn

from schemas.training import Stage, TrainingRecipe
from training.diffusion import LossTerms, guided
from training.diffusion.consistency import distillation_loss
from training.diffusion.sampler import NoiseModel
from training.inputs import ModelInputs
from training.model import PixArt
from training.optim.ema import AveragedModel
from training.optim.gradients import Loss, loss_terms
from training.parallel.distributed import World
from training.sample import noise_model
from training.weak_to_strong import starting_model


class Distillation:
    """The loss of a few-step stage, called as `loss_terms` is; its guidance is that of the teacher. `teacher`: the
    parent, whole on every process. `average`: of the student. It says what the student should have answered; of a model
    in eval mode, such as the average itself, the model does."""

    def __init__(self, teacher: PixArt, average: nn.Module, recipe: TrainingRecipe, stage: Stage) -> None:
        self._teacher = teacher.eval().requires_grad_(False)
        self._average = average
        self._knobs = recipe.distil_of(stage)
        assert self._knobs.guidance is not None
        self._guidance = self._knobs.guidance

    def __call__(self, model: nn.Module, inputs: ModelInputs, recipe: TrainingRecipe) -> LossTerms:
        def noise_of(network: nn.Module, dropped: bool = False) -> NoiseModel:
            return noise_model(network, inputs.caption, inputs.mask, recipe, dropped=dropped)

        teacher = noise_of(self._teacher)
        if self._guidance != 1:
            teacher = guided(teacher, noise_of(self._teacher, dropped=True), self._guidance)
        target = self._average if model.training else model
        return distillation_loss(
            noise_of(model), noise_of(target), teacher, inputs.latents, inputs.noise, inputs.timestep,
            skip=self._knobs.skip, huber=self._knobs.huber,
        )  # fmt: skip


def loss_of(recipe: TrainingRecipe, stage: Stage, here: World, null_caption: Tensor, average: AveragedModel) -> Loss:
    """What the steps of a stage make small."""
    if stage.distil is None:
        return loss_terms
    teacher = starting_model(recipe, stage, null_caption).to(here.device)
    if recipe.compile:
        teacher.compile_blocks()
    return Distillation(teacher, average.model, recipe, stage)
