"""Features of pictures: decoding and resizing on threads, the network in batches."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch

from curation.images.decode import decode
from curation.images.header import Unreadable
from engine.ahead import ahead
from evaluation.inception import Inception
from evaluation.resize import INCEPTION_PROTOCOLS
from models.device import choose_device
from models.weights import FID_INCEPTION

BATCH = 32
INCEPTION = f"{FID_INCEPTION.name}@{FID_INCEPTION.sha256[:12]}"


@dataclass(frozen=True)
class Features:
    """What a network has made of pictures, with the names without which the numbers compare with nothing."""

    rows: np.ndarray
    """(n, d), float32, in the order of the pictures, those that could not be read left out."""
    network: str
    """Its name and the beginning of its weights' sha256."""
    protocol: str
    unreadable: dict[int, str] = field(default_factory=dict)
    """Why pictures are not whole or not read, by their place in the order, from 0."""


def inception_features(
    pictures: Iterable[bytes],
    protocol: str = "clean",
    *,
    network: Inception | None = None,
    device: str = "auto",
    threads: int = 4,
    batch: int = BATCH,
) -> Features:
    """The 2,048 features of FID, of encoded pictures in any format that Sigma reads.

    Memory: the features, and two batches of pictures.

    Args:
        pictures: the bytes of each file, taken a bounded number ahead.
        protocol: one of `INCEPTION_PROTOCOLS`.
        network: one that is loaded already; None loads it.
        device: as of `choose_device`.
        threads: of decoding and resizing.

    Raises:
        ValueError: there is no such protocol or device, the weights are not on this machine, or no picture can be read.
    """
    if protocol not in INCEPTION_PROTOCOLS:
        raise ValueError(f"there is no protocol {protocol!r}; there are {', '.join(INCEPTION_PROTOCOLS)}")
    place = choose_device(device)
    network = (network or Inception.load()).to(place)

    def prepare(data: bytes) -> torch.Tensor | str:
        try:
            picture = decode(data).image
        except Unreadable as error:
            return str(error)
        return INCEPTION_PROTOCOLS[protocol].network_input(np.asarray(picture))

    found: list[np.ndarray] = []
    waiting: list[torch.Tensor] = []
    unreadable: dict[int, str] = {}

    def flush() -> None:
        if waiting:
            with torch.inference_mode():
                found.append(network(torch.stack(waiting).to(place)).cpu().numpy())
            waiting.clear()

    for number, prepared in enumerate(ahead(prepare, pictures, threads, window=batch)):
        if isinstance(prepared, str):
            unreadable[number] = prepared
            continue
        waiting.append(prepared)
        if len(waiting) == batch:
            flush()
    flush()
    if not found:
        raise ValueError(f"none of {len(unreadable)} pictures can be read")
    return Features(np.concatenate(found), INCEPTION, protocol, unreadable)
