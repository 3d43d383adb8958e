"""Chooses the device that a model runs on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # imported where it is used: it takes seconds
    import torch


def choose_device(device: str = "auto", knob: str = "device") -> torch.device:
    """The device of that name. `auto` is the current GPU, which is the process's own under torchrun, else the CPU.

    Args:
        device: auto, or a name of torch: cpu, mps, cuda or cuda:N.
        knob: the recipe's key or the command's option, for the message.

    Raises:
        ValueError: this machine does not have it.
    """
    import torch

    if device == "auto":
        return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    try:
        found = torch.device(device)
    except RuntimeError:
        raise ValueError(f"{knob}: torch knows no device {device!r}; set {knob}=auto, cpu or cuda:N") from None
    if found.type == "cuda" and (found.index or 0) >= (count := torch.cuda.device_count()):
        raise ValueError(f"{knob}: this machine has no {device} (torch finds {count} GPUs); set {knob}=cpu")
    if found.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"{knob}: this machine has no mps; set {knob}=cpu")
    return found
