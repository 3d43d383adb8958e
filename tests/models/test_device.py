"""Each name of a device gives that device, or a line that says what to set."""

from __future__ import annotations

import pytest
import torch

from models.device import choose_device


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("cuda:99", r"ground\.device: this machine has no cuda:99 \(torch finds \d+ GPUs\); set ground\.device=cpu$"),
        ("gpu", r"ground\.device: torch knows no device 'gpu'; set ground\.device=auto, cpu or cuda:N$"),
    ],
)
def test_a_device_that_this_machine_lacks_is_refused_with_the_knob(device: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        choose_device(device, "ground.device")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a machine without GPUs shows the refusal")
def test_a_gpu_is_refused_on_a_machine_without_one() -> None:
    with pytest.raises(ValueError, match=r"this machine has no cuda \(torch finds 0 GPUs\)"):
        choose_device("cuda")


def test_auto_is_the_current_gpu_or_else_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device() == choose_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    assert choose_device() == choose_device("auto") == torch.device("cuda", 3)
