"""Numbers of the original implementations, where this machine has them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

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
