"""Chooses how many pictures a model reads at once: as many as its device has room for."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch

log = logging.getLogger(__name__)

ON_CPU = 8
"""Pictures at once on a CPU, whose cores are busy with few, and whose memory others use too."""
MOST = 64
"""Pictures at once at most: a batch runs to its longest caption, so that more gain little."""
FEW, MANY = 4, 36
"""Tokens that the probe writes."""
SHARE_USED = 0.85
"""Share of the free memory that a batch may take; pieces between tensors are lost."""


def batch_size_for(device: torch.device, most_tokens: int, write: Callable[[int], object]) -> int:
    """The largest batch that the memory of the device should have room for. A GPU is tried with one picture and two
    lengths of caption: what every further token takes is the keys and values of that picture, of all its beams.
    `write`: captions one picture of the largest size there is, in just so many tokens."""
    if device.type != "cuda":
        return ON_CPU
    peaks = []
    for tokens in (FEW, MANY):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        write(tokens)
        peaks.append(torch.cuda.max_memory_allocated(device) - before)
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(device)
    size = room_for(free, peaks[0], peaks[1], most_tokens)
    log.info("%d pictures at once: a caption of %d tokens takes up to %.2f GB", size, most_tokens,
             longest(peaks[0], peaks[1], most_tokens) / 1e9)  # fmt: skip
    return size


def room_for(free: int, few: int, many: int, most_tokens: int) -> int:
    """Pictures that fit into `free` bytes, 1 to `MOST`; arguments as of `longest`."""
    return int(min(MOST, max(1, free * SHARE_USED // longest(few, many, most_tokens))))


def longest(few: int, many: int, most_tokens: int) -> float:
    """Bytes of one picture's longest caption, from what captions of `FEW` and `MANY` tokens took."""
    of_token = max(0, many - few) / (MANY - FEW)
    return max(1, few + of_token * max(0, most_tokens - FEW))
