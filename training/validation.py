"""Validation loss: the averaged weights on a fixed grid of pictures, timesteps and noise, equal on every machine."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import numpy as np
import torch

from schemas.ids import counter
from schemas.training import Stage, TrainingRecipe
from training.data.chance import noise
from training.data.reader import DamagedSample
from training.data.source import Source
from training.encoders.base import draw_latents
from training.encoders.make import Encoders
from training.inputs import ModelInputs, moments_of
from training.model import PixArt
from training.optim.ema import AveragedModel
from training.optim.gradients import Loss, loss_terms
from training.parallel.distributed import World
from training.stages import StageData

log = logging.getLogger(__name__)

Evaluate = Callable[[PixArt, Stage], dict[str, float]]


class Validation:
    """Pictures spread evenly over a stage's samples, each noised to every timestep of `recipe.validation`. Noise
    depends on the image id and the timestep alone, so two stages, seeds or runs see the same task. With
    `validation.share` the pictures are held out; else they are trained on, and the curve says how well the average fits
    its data."""

    def __init__(
        self, recipe: TrainingRecipe, data: StageData, source: Source, encoders: Encoders, loss: Loss = loss_terms
    ) -> None:
        self._loss = loss
        self._source = source if data.held is None else source.over(data.held.rows)
        self._shapes = data.shapes if data.held is None else data.held.shapes
        self._recipe, self._encoders = recipe, encoders
        num_rows = len(self._source)
        count = min(recipe.validation.samples, num_rows)
        self._rows = sorted({int(row) for row in np.linspace(0, num_rows - 1, count)})

    @torch.no_grad()
    def losses(self, model: PixArt, here: World) -> dict[str, float]:
        """`val_loss`, `val_mse` and `val_vb`: means over the grid, bit for bit the same at any number of processes.
        Every process must call this; each computes its share of the pictures."""
        table = torch.zeros(len(self._rows), 3, dtype=torch.float64, device=here.device)  # mse, vb, pictures
        for place, inputs in self._inputs(here):
            terms = self._loss(model, inputs, self._recipe)
            table[place] = torch.stack([terms.mse.mean(), terms.vb.mean(), torch.ones((), device=here.device)])
        mse, vb, pictures = here.sum(table).sum(dim=0).tolist()  # rows of other processes are 0: an exact sum
        if not pictures:
            raise ValueError("every picture of the validation grid is damaged; check the shards")
        return {"val_loss": (mse + vb) / pictures, "val_mse": mse / pictures, "val_vb": vb / pictures}

    def _inputs(self, here: World) -> Iterator[tuple[int, ModelInputs]]:
        steps = self._recipe.validation.timesteps
        for place in range(here.rank, len(self._rows), here.size):
            row = self._rows[place]
            try:
                sample = self._source.read(row, self._shapes[row])
            except DamagedSample as damage:
                log.warning("damaged sample, left out of the validation grid: %s", damage)
                continue
            moments = moments_of(sample.picture[None], self._encoders, here.device)
            latents = draw_latents(moments, None, self._encoders.latent_scale).repeat_interleave(len(steps), 0)
            mixed = sample.captions.mixed
            tokens = self._encoders.text.encode(mixed) if isinstance(mixed, str) else mixed.float()
            seeds = [counter(sample.image_id, f"validation/{timestep}") for timestep in steps]
            yield (
                place,
                ModelInputs(
                    latents=latents,
                    noise=noise(seeds, tuple(latents.shape[1:])).to(here.device),
                    timestep=torch.tensor(steps, device=here.device),
                    caption=tokens.to(here.device).expand(len(steps), -1, -1),
                    mask=torch.ones(len(steps), len(tokens), dtype=torch.bool, device=here.device),
                    drop=torch.zeros(len(steps), dtype=torch.bool, device=here.device),
                    lengths=torch.full((len(steps),), len(tokens)),
                ),
            )


def measured_at(
    step: int,
    average: AveragedModel,
    recipe: TrainingRecipe,
    stage: Stage,
    validation: Validation,
    evaluate: Evaluate | None,
    here: World,
) -> dict[str, float]:
    """Validation and evaluation of the averaged weights, where this step has them; all help to gather the average."""
    is_due = [bool(knobs.every) and step % knobs.every == 0 for knobs in (recipe.validation, recipe.evaluation)]
    values = validation.losses(average.whole(), here) if is_due[0] else {}
    if is_due[1] and evaluate is not None:
        model = average.whole()
        values |= evaluate(model, stage) if here.is_first else {}
    return values
