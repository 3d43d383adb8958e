"""The training loop of one's own reads a real dataset's shards and learns from them."""

from __future__ import annotations

import pytest

from engine.dataset import Dataset
from examples.own_training_loop import train

pytestmark = pytest.mark.slow


def test_the_loss_falls_on_the_shards_of_a_dataset(demo: Dataset):
    losses = train(demo.root / "shards", steps=24, batch_size=2)
    assert len(losses) == 24
    assert sum(losses[-6:]) < 0.7 * sum(losses[:6])
