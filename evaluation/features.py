"""Features of pictures: decoding and resizing on threads, a network in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from curation.images.decode import decode
from curation.images.header import Unreadable
from engine.ahead import in_batches
from models.clip import Clip
from models.device import choose_device
from models.weights import FID_INCEPTION

if TYPE_CHECKING:  # imported where they are used: torch takes a second, and an evaluation is planned without it
    from evaluation.inception import Inception

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


@dataclass(frozen=True)
class Network:
    """A loaded network, and how pictures come to it."""

    name: str
    protocol: str
    prepare: Callable[[Image.Image], np.ndarray]
    """An upright RGB picture -> the input of one picture, on threads that decode. ValueError for pixels it cannot
    take."""
    embed: Callable[[Sequence[np.ndarray]], np.ndarray]
    """Inputs -> features (n, d), float32."""

    def read(self, data: bytes) -> np.ndarray | str:
        """The input of an encoded picture, or why there is none."""
        try:
            return self.prepare(decode(data).image)
        except (Unreadable, ValueError) as error:
            return str(error)


def inception(protocol: str, device: str = "auto", loaded: Inception | None = None) -> Network:
    """The network of FID, 2,048 features a picture.

    Args:
        protocol: one of `INCEPTION_PROTOCOLS`.
        device: as of `choose_device`.
        loaded: one that is loaded already; None loads it.

    Raises:
        ValueError: there is no such protocol or device, or the weights are not on this machine.
    """
    import torch

    from evaluation.inception import Inception
    from evaluation.resize import INCEPTION_PROTOCOLS

    if protocol not in INCEPTION_PROTOCOLS:
        raise ValueError(f"there is no protocol {protocol!r}; there are {', '.join(INCEPTION_PROTOCOLS)}")
    place = choose_device(device)
    network = (loaded or Inception.load()).to(place)

    def prepare(picture: Image.Image) -> np.ndarray:
        return INCEPTION_PROTOCOLS[protocol].network_input(np.asarray(picture)).numpy()

    def embed(inputs: Sequence[np.ndarray]) -> np.ndarray:
        with torch.inference_mode():
            rows: np.ndarray = network(torch.from_numpy(np.stack(inputs)).to(place)).cpu().numpy()
        return rows

    return Network(INCEPTION, protocol, prepare, embed)


def of_clip(clip: Clip) -> Network:
    """CLIP as CLIP-Score takes it: with its own preprocessing, not normalised."""
    return Network(clip.name, "clip", clip.pixels, clip.embed_pixels)


def of_cmmd(clip: Clip) -> Network:
    """CLIP as CMMD takes it: the middle square, embeddings of length 1."""
    from evaluation.resize import cmmd_protocol

    protocol = cmmd_protocol(clip.side)

    def prepare(picture: Image.Image) -> np.ndarray:
        return protocol.network_input(np.asarray(picture)).numpy()

    def embed(inputs: Sequence[np.ndarray]) -> np.ndarray:
        rows = clip.embed_pixels(inputs)
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)

    return Network(clip.name, "cmmd", prepare, embed)


def inception_features(
    pictures: Iterable[bytes],
    protocol: str = "clean",
    *,
    network: Inception | None = None,
    device: str = "auto",
    threads: int = 4,
    batch: int = BATCH,
) -> Features:
    """The 2,048 features of FID, of encoded pictures in any format that Sigma reads. Memory: the features, and four
    batches of pictures. `pictures`: taken a bounded number ahead. `protocol`, `network`, `device`: as of `inception`.
    `threads`: of decoding and resizing. Raises ValueError: as `inception`, or no picture can be read."""
    return features_of(pictures, inception(protocol, device, network), threads=threads, batch=batch)


def clip_features(pictures: Iterable[bytes], clip: Clip, *, threads: int = 4, batch: int = BATCH) -> Features:
    """The embeddings of pictures for CLIP-Score, by CLIP's own preprocessing. Raises ValueError: none can be read."""
    return features_of(pictures, of_clip(clip), threads=threads, batch=batch)


def features_of(pictures: Iterable[bytes], network: Network, *, threads: int = 4, batch: int = BATCH) -> Features:
    """What a network makes of encoded pictures. Raises ValueError: no picture can be read."""
    found, unreadable = list[np.ndarray](), dict[int, str]()
    for number, row in enumerate(each_of(pictures, network, threads, batch)):
        if isinstance(row, str):
            unreadable[number] = row
        else:
            found.append(row)
    if not found:
        raise ValueError(f"none of {len(unreadable)} pictures can be read")
    return Features(np.stack(found), network.name, network.protocol, unreadable)


def each_of(
    pictures: Iterable[bytes], network: Network, threads: int, batch: int = BATCH
) -> Iterator[np.ndarray | str]:
    """The features (d,) of each picture in order, or why it is not whole."""

    def embed(inputs: Sequence[np.ndarray | str]) -> Callable[[], np.ndarray]:
        rows = network.embed([each for each in inputs if not isinstance(each, str)])
        return lambda: rows

    found = in_batches(
        network.read,
        pictures,
        embed,
        threads=threads,
        size=batch,
        kind=lambda prepared: None if isinstance(prepared, str) else prepared.shape,
    )
    yield from (prepared if row is None else row for prepared, row in found)
