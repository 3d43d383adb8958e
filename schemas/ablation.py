"""The recipe of an ablation: a training recipe, one of its stages, and what of its KV compression is tried."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from schemas.strict import LocalPath, Positive, Seed, StrictModel

Position = Literal["none", "shallow", "middle", "deep"]
Operator = Literal["conv", "average", "discard"]
Claim = Literal["positions", "conv-avg-init", "vae"]
LEAST_SEEDS = 3


class AblationRecipe(StrictModel):
    """What is varied, how often it is trained, and how it is measured."""

    recipe_kind = "an ablation recipe"

    train: Annotated[str, Field(min_length=1)]
    """The training recipe: a YAML file, or the name of one that comes with Sigma."""
    overrides: tuple[str, ...] = ()
    """Knobs of the training recipe to set, each as KEY=VALUE."""
    out: LocalPath
    """Folder of the ablation: a training run for each cell and seed, and the tables."""
    stage: Annotated[str, Field(min_length=1)]
    """The stage that is varied. The stages before it are trained in the training recipe's own `out`, once for all."""
    layers: tuple[Position, ...] = ("none", "shallow", "middle", "deep")
    """Which blocks compress: none, or the first, middle or last half. The others are compared with the first of these.
    While other things vary it is `deep`, as in the paper."""
    ratio: tuple[Annotated[int, Field(ge=1, le=64)], ...] = (1, 2)
    """Ratios per axis, 1 for no compression; compared with the first. While other things vary it is the smallest above
    1."""
    operator: tuple[Operator, ...] = ("conv", "average", "discard")
    """What makes one token of a window: `conv`, the paper's; `average` pooling; `discard` of all but the first token.
    Compared with the first. While other things vary it is `conv`."""
    seeds: tuple[Seed, ...] = (0, 1, 2)
    """A cell is trained once with each; batches and noise are the same in all cells of a seed."""
    steps: Positive | None = None
    """Steps of a cell. Null: those of the stage."""
    points: Positive = 10
    """Validation losses along a cell, evenly; divides the steps."""
    pictures_at: Positive = 1
    """How often along a cell pictures are drawn and measured, evenly, the last time at its end; divides `points`."""
    pictures: Annotated[int, Field(ge=4, lt=2**31)] = 64
    """Pictures that are drawn each time, from captions of what is held out, or of the stage where nothing is; the
    reference is the pictures of these."""
    clip: str | None = None
    """CLIP for CLIP-Score: a folder, or a hub id in the local cache. Null: the published one, where it is here."""
    timing_rounds: Positive = 9
    """Pairs of steps by which a cell's seconds are measured against those of the first cell."""
    positions_stage: str | None = None
    """The stage of the claim `positions`. Null: the first whose parent is a stage of another resolution."""
    vae_stage: str | None = None
    """The stage of the claim `vae`. Null: the first whose parent is a stage."""

    @model_validator(mode="after")
    def _possible(self) -> AblationRecipe:
        for knob in ("layers", "ratio", "operator", "seeds"):
            values = getattr(self, knob)
            if not values or len(set(values)) != len(values):
                raise ValueError(f"{knob} {list(values)} must name at least one, each once")
        if len(self.seeds) < LEAST_SEEDS:
            raise ValueError(
                f"seeds {list(self.seeds)}: under {LEAST_SEEDS} do not say how far two runs of one cell are apart; "
                "add seeds"
            )
        if max(len(self.layers), len(self.ratio), len(self.operator)) < 2:
            raise ValueError(
                "layers, ratio and operator have one value each, so nothing varies; give one of them another"
            )
        if not any(ratio > 1 for ratio in self.ratio):
            raise ValueError(f"ratio {list(self.ratio)} compresses nothing; add 2")
        if self.points % self.pictures_at:
            raise ValueError(f"pictures_at {self.pictures_at} does not divide points {self.points}; set one that does")
        return self
