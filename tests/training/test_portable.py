"""The model, the diffusion and CAME can be lifted out: they need torch, numpy and safetensors, and nothing of ours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PROGRAM = """
import sys, torch, torch.distributed.tensor, numpy, safetensors.torch  # and what these bring with them
before = set(sys.modules)
from training.came import CAME
from training.diffusion import training_loss
from training.model import KVCompression, PixArt, PixArtConfig, load_weights
new = set(sys.modules) - before
portable = ("training.model", "training.diffusion", "training.came")
ours = {name for name in new if name.split(".")[0] == "training" and not name.startswith(portable)}
others = {name.split(".")[0] for name in new} - set(sys.stdlib_module_names)
print(*sorted(ours | others - {"training", "torch", "numpy", "safetensors"}))
"""


def test_the_public_names_import_nothing_else():
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "training"  # the package itself, which is a docstring
