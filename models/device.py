"""Chooses the device that a model runs on, and copies batches to it and results back without waiting for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

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


def sent(arrays: Sequence[NDArray[Any]], device: torch.device) -> torch.Tensor:
    """Arrays of one shape as a batch on a device. The copy to a GPU goes on by itself, from memory that stays in
    place: what is computed with the batch waits for it, and the caller does not."""
    import torch

    first = arrays[0]
    kind = torch.from_numpy(np.empty(0, first.dtype)).dtype
    batch = torch.empty((len(arrays), *first.shape), dtype=kind, pin_memory=device.type == "cuda")
    np.stack(arrays, out=batch.numpy())
    return batch.to(device, non_blocking=True)


def coming_back(result: torch.Tensor) -> Callable[[], torch.Tensor]:
    """Begin to copy a result to the CPU. The function that is returned gives it, and waits for no more than that: work
    that was given to the GPU since goes on."""
    import torch

    if result.device.type != "cuda":
        here = result.cpu()
        return lambda: here
    copied, there = torch.empty(result.shape, dtype=result.dtype, pin_memory=True), torch.cuda.Event()
    copied.copy_(result, non_blocking=True)
    there.record()

    def get() -> torch.Tensor:
        there.synchronize()
        return copied

    return get
