"""Features of pictures: decoding and resizing on threads, the network in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image

from curation.images.decode import decode
from curation.images.header import Unreadable
from engine.ahead import ahead
from evaluation.inception import Inception
from evaluation.resize import INCEPTION_PROTOCOLS
from models.clip import Clip
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
    loaded = (network or Inception.load()).to(place)

    def prepare(picture: Image.Image) -> np.ndarray:
        return INCEPTION_PROTOCOLS[protocol].network_input(np.asarray(picture)).numpy()

    def embed(inputs: Sequence[np.ndarray]) -> np.ndarray:
        with torch.inference_mode():
            rows: np.ndarray = loaded(torch.from_numpy(np.stack(inputs)).to(place)).cpu().numpy()
        return rows

    rows, unreadable = _in_batches(pictures, prepare, embed, threads, batch)
    return Features(rows, INCEPTION, protocol, unreadable)


def clip_features(pictures: Iterable[bytes], clip: Clip, *, threads: int = 4, batch: int = BATCH) -> Features:
    """The embeddings of pictures for CLIP-Score, as CLIP's own preprocessing shows them to it.

    Raises:
        ValueError: no picture can be read.
    """
    rows, unreadable = _in_batches(pictures, clip.pixels, clip.embed_pixels, threads, batch)
    return Features(rows, clip.name, "clip", unreadable)


def _in_batches(
    pictures: Iterable[bytes],
    prepare: Callable[[Image.Image], np.ndarray],
    embed: Callable[[Sequence[np.ndarray]], np.ndarray],
    threads: int,
    batch: int,
) -> tuple[np.ndarray, dict[int, str]]:
    """The rows of all pictures that are whole, and why the others are not."""

    def read(data: bytes) -> np.ndarray | str:
        try:
            return prepare(decode(data).image)
        except (Unreadable, ValueError) as error:  # the latter of pixels that no network can be shown
            return str(error)

    found: list[np.ndarray] = []
    waiting: list[np.ndarray] = []
    unreadable: dict[int, str] = {}
    for number, prepared in enumerate(ahead(read, pictures, threads, window=batch)):
        if isinstance(prepared, str):
            unreadable[number] = prepared
            continue
        waiting.append(prepared)
        if len(waiting) == batch:
            found.append(embed(waiting))
            waiting = []
    if waiting:
        found.append(embed(waiting))
    if not found:
        raise ValueError(f"none of {len(unreadable)} pictures can be read")
    return np.concatenate(found), unreadable
