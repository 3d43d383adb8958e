"""The state of training between steps: weights, their average, the optimizer and one integer."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from schemas.training import Stage, TrainingRecipe
from training.came import CAME
from training.checkpoint import read_checkpoint
from training.model import PixArt
from training.model.convert import assign_weights
from training.optim.ema import AveragedModel
from training.optim.gradients import Loss, loss_terms
from training.parallel.sharding import gathered, shard, sliced_like, whole


@dataclass
class TrainState:
    """Everything a checkpoint holds."""

    model: PixArt
    average: AveragedModel
    optimizer: CAME
    step: int = 0
    """Optimizer steps taken; it alone is the position in the data."""
    loss: Loss = loss_terms
    """What the steps make small; not stored."""
    unreported: list[tuple[int, list[str], Tensor]] = field(default_factory=list)
    """(step, image ids, what is measured of it) of the steps since the last line of metrics; none but where a signal
    ended the run between two lines."""

    @classmethod
    def begin(cls, model: PixArt, recipe: TrainingRecipe, stage: Stage, processes: int = 1) -> TrainState:
        """A stage's first state, from a model that already has its parent's weights; sharded under FSDP."""
        knobs = recipe.optimizer_of(stage)
        average = AveragedModel(model, recipe.ema_of(stage))
        if recipe.parallel == "fsdp" and processes > 1:
            shard(model, processes)
            shard(average.model, processes)
        optimizer = CAME(
            model.parameters(),
            lr=knobs.lr,
            betas=knobs.betas,
            eps=knobs.eps,
            clip_threshold=knobs.clip_threshold,
            weight_decay=knobs.weight_decay,
        )
        return cls(model, average, optimizer)

    def take_step(self, rate: float, gradient_clip: float) -> Tensor:
        """Clip the gradient, move the weights at this learning rate and then their average; clear the gradient. Returns
        the gradient's norm before it was clipped, a scalar."""
        norm = gathered(nn.utils.clip_grad_norm_(self.model.parameters(), gradient_clip))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.average.update(self.model, self.step)
        return norm

    def content(self, *, keep: bool = True) -> dict[str, Any]:
        """The content of a checkpoint: weights under the official names, so that others can read them. Tensors are
        whole in every mode, so that any number of processes can read them. Under FSDP every process must call this;
        those that do not `keep` help to gather and hold nothing."""
        content = {
            "state_dict": self.model.state_dict(),
            "state_dict_ema": self.average.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
        }
        if self.unreported:
            content["unreported"] = self.unreported
        return whole(content, keep=keep)

    def restore(self, path: Path) -> None:
        """Load a checkpoint of the same stage. Raises ValueError: it is cut short, or of another model; keys are
        named."""
        content = read_checkpoint(path)
        for model, name in ((self.model, "state_dict"), (self.average.model, "state_dict_ema")):
            own = model.state_dict()
            weights = {key: sliced_like(value, own.get(key)) for key, value in content[name].items()}
            report = assign_weights(model, weights, origin=f"{path} ({name})")
            if report.initialised:
                raise ValueError(f"{path}: lacks {report.initialised[0]}; it was written without KV compression")
        self.optimizer.load_state_dict(content["optimizer"])
        self.step = content["step"]
        self.unreported = [(step, ids, terms) for step, ids, terms in content.get("unreported", [])]


def learning_rate(step: int, peak: float, warmup_steps: int) -> float:
    """Rate of the step after `step` steps: linear to `peak` over the warm-up, then constant."""
    return peak * min(1.0, (step + 1) / warmup_steps) if warmup_steps else peak
