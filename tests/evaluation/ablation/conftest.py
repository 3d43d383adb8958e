"""No weights that this machine may have are loaded."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def without_weights(no_weights: None) -> None:
    pass
