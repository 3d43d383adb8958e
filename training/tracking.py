"""Metrics in Weights & Biases, where the recipe wants them: a run per stage, which a resumed stage continues."""

from __future__ import annotations

import importlib.util
import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.commit import write_bytes
from schemas.training import Stage, TrainingRecipe

if TYPE_CHECKING:
    from wandb.sdk.wandb_run import Run

ID_FILE = "wandb-id"
"""The file in a stage's folder that names its run; a folder that is removed begins another."""


def require_wandb(recipe: TrainingRecipe) -> None:
    """Raise ValueError, with how to get it, where a recipe wants Weights & Biases and the package is missing."""
    if recipe.wandb.mode != "off" and importlib.util.find_spec("wandb") is None:
        raise ValueError(f"wandb.mode={recipe.wandb.mode} needs a package: pip install wandb, or set wandb.mode=off")


def wandb_run(recipe: TrainingRecipe, stage: Stage) -> Run | None:
    """The run of a stage; None where the recipe wants none. Raises ValueError: it cannot begin; nobody has logged in,
    say."""
    if recipe.wandb.mode == "off":
        return None
    if recipe.wandb.mode == "offline":
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # nothing leaves this machine
    import wandb

    folder = recipe.stage_folder(stage)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return wandb.init(
            project=recipe.wandb.project,
            name=f"{Path(recipe.out).name}/{stage.name}",
            id=_run_id(folder / ID_FILE),
            resume="allow" if recipe.wandb.mode == "online" else None,
            dir=folder,
            mode=recipe.wandb.mode,
            config=recipe.resolved(),
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off", save_code=False),
        )
    except wandb.Error as error:
        why = " ".join(str(error).split())
        raise ValueError(f"wandb: {why}; run wandb login, or set wandb.mode=offline and wandb sync it later") from None


def _run_id(path: Path) -> str:
    if not path.is_file():
        write_bytes(path, uuid.uuid4().hex.encode())
    return path.read_text(encoding="ascii").strip()
