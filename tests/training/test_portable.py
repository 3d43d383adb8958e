"""The model, the diffusion and CAME can be lifted out: they need torch, numpy and safetensors, and nothing of ours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys, torch, torch.distributed.tensor, numpy, safetensors.torch  # and what these bring with them
before = set(sys.modules)
import training.model, training.diffusion, training.optim.came
new = {name.split(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)
print(*sorted(new - {"training", "torch", "numpy", "safetensors"}))
"""


def test_nothing_else_is_imported():
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
