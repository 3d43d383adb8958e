"""No weights that this machine may have are loaded, and one thread computes."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def without_weights(no_weights: None) -> None:
    pass
