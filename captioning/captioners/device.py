"""Where a captioner's model runs."""

from __future__ import annotations

import torch

from captioning.captioners.base import CaptionerUnusable


def choose_device(device: str) -> torch.device:
    """The device of that name; auto is the GPU where there is one.

    Raises:
        ValueError: this machine does not have it.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda"):
        count, number = torch.cuda.device_count(), int(device.partition(":")[2] or 0)
        if number >= count:
            raise CaptionerUnusable(
                f"caption: device {device} is asked for and torch finds {count} GPUs here; "
                "set the captioner's device=cpu, or caption.gpus_per_worker=0"
            )
    if device == "mps" and not torch.backends.mps.is_available():
        raise CaptionerUnusable("caption: device mps is asked for and torch finds none here; set the device to cpu")
    return torch.device(device)
