"""Numbers of the original implementations, where this machine has them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas.training import TrainingRecipe
from tests.evaluation.toy import made, no_weights, six_pictures, tiny
from tests.tiny_models import save_clip
from tests.training.conftest import one_thread as one_thread
from tests.training.conftest import photo, write_dataset
from training.train import train

__all__ = ["made", "no_weights", "original", "six_pictures", "tiny"]

FOLDER = Path(os.environ.get("SIGMA_FIXTURES", Path(__file__).parents[3] / "shared" / "fixtures")) / "evaluation"

Numbers = Callable[[str], dict[str, np.ndarray]]


@pytest.fixture
def original() -> Numbers:
    """A function from a name to the arrays of that file, numbers among them; the test skips where it is not there."""

    def read(name: str) -> dict[str, np.ndarray]:
        path = FOLDER / f"{name}.npz"
        if not path.is_file():
            pytest.skip(f"no reference data at {path}; set SIGMA_FIXTURES to where it is")
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}

    return read


def write_trained(folder: Path) -> None:
    """A dataset of seven pictures, `train.yaml`, two checkpoints of its one stage, and a tiny CLIP in `clip/`."""
    sizes = [(96, 96), (80, 80), (120, 120), (64, 64), (120, 80), (90, 60), (60, 90)]
    pictures = [(photo(i, *size), f"raw words number {i}", f"a sentence about {i}") for i, size in enumerate(sizes)]
    write_dataset(folder / "dataset", pictures, sizes)
    values = {
        "dataset": str(folder / "dataset"),
        "out": str(folder / "run"),
        "model": {"depth": 1, "hidden_size": 16, "num_heads": 2},
        "latents": {"channels": 4},
        "text": {"channels": 8, "max_tokens": 20},
        "optimizer": {"lr": 1e-3, "warmup_steps": 2},
        "data": {"batch": 4},
        "precision": "fp32",
        "checkpoint_every": 2,
        "log_every": 2,
        "sample": {"steps": 2, "guidance": 1.5},
        "stages": [{"name": "small", "resolution": 32, "steps": 4}],
    }
    (folder / "train.yaml").write_text(json.dumps(values))
    train(TrainingRecipe.load(folder / "train.yaml"))
    save_clip(folder / "clip")


@pytest.fixture(scope="session")
def trained(in_one_folder: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """What `write_trained` writes; not to be changed."""
    return in_one_folder("evaluated", write_trained)


@pytest.fixture
def evaluation(trained: Path, tmp_path: Path) -> dict[str, Any]:
    return evaluation_of(trained, tmp_path)


def evaluation_of(trained: Path, folder: Path) -> dict[str, Any]:
    """A recipe that draws five prompts with the last checkpoint, measured with the tiny CLIP alone."""
    prompts = ["a red boat", "a blue house", "two cats", "the sea", "a hill"]
    rows = [{"id": f"p{i}", "prompt": text, "category": "ab"[i % 2]} for i, text in enumerate(prompts)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "photos").mkdir()
    for number in range(6):
        (folder / "photos" / f"r{number}.png").write_bytes(photo(100 + number, 40, 40))
    return {
        "out": str(folder / "out"),
        "prompts": {"source": str(folder / "prompts.jsonl"), "per_part": 3},
        "models": {"ours": {"recipe": str(trained / "train.yaml")}},
        "reference": {"pictures": str(folder / "photos")},
        "draw": {"batch": 2},
        "metrics": {"protocols": [], "clip": str(trained / "clip"), "cmmd_clip": str(trained / "clip")},
    }
