"""Features of pictures: decoding and resizing on threads, a network in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
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
    """The network of FID, 2,048 features a picture. `protocol`: one of `INCEPTION_PROTOCOLS`. `device`: as of
    `choose_device`. `loaded`: one that is loaded already; None loads it. Raises ValueError: there is no such protocol
    or device, or the weights are not on this machine."""
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


def rows_of(pictures: Iterable[bytes], network: Network, threads: int = 4, batch: int = BATCH) -> np.ndarray:
    """The features (n, d) of encoded pictures in any format that Sigma reads, float32. Memory: the features, and four
    batches of pictures. Raises ValueError: a picture cannot be read, or there is none."""
    found = list(each_of(pictures, network, threads, batch))
    for number, row in enumerate(found):
        if isinstance(row, str):
            raise ValueError(f"picture {number} (from 0) cannot be read: {row}")
    return np.stack(found)


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
