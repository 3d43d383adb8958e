"""LAION's aesthetic predictor: CLIP embeddings of pictures through a head that was trained on people's ratings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.ahead import in_batches
from engine.map_job import Worker, naming
from engine.runner import Progress
from models.clip import Clip, Embeddings
from models.preprocessing import Pixels
from models.weights import AESTHETIC_HEAD, UNREADABLE, find_weights, weights_name
from schemas.locations import in_home
from schemas.pixels import open_rgb
from schemas.recipe import Aesthetic
from schemas.tables import schema_of

_TENSOR = re.compile(r"(?:.*\.)?(\d+)\.(weight|bias)")
"""layers.0.weight: the number of the layer, and which of its tensors."""


class Head:
    """The head as one affine map of the embedding: (n, dim) unnormalised CLIP embeddings -> (n,) scores, 1 to 10."""

    def __init__(self, weight: NDArray[np.float64], bias: float, name: str) -> None:
        self._weight, self._bias = weight, bias
        self.name = name

    @property
    def dim(self) -> int:
        """Numbers in an embedding that it reads."""
        return len(self._weight)

    def __call__(self, embeddings: NDArray[Any]) -> NDArray[np.float32]:
        """Normalise each embedding to length 1 and score it."""
        embeddings = np.asarray(embeddings, np.float64)
        lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
        units = embeddings / np.where(lengths == 0, 1, lengths)
        return np.asarray(units @ self._weight + self._bias, np.float32)


def load_head(path: str | Path) -> Head:
    """Read a head: a .pth or .safetensors file, or a folder that holds one. As published (sac+logos+ava1-l14-linearMSE)
    it is five linear layers with dropout and nothing else between them, so the whole of it is one affine map, which is
    computed here in 64 bits. Raises ValueError: there is no such file, or it is no chain of linear layers that ends in
    one number."""
    file = _head_file(Path(path))
    layers: dict[int, dict[str, NDArray[np.float64]]] = {}
    for name, tensor in _read_tensors(file).items():
        found = _TENSOR.fullmatch(name)
        if found is None:
            raise ValueError(f"{file}: is no aesthetic head: {name} belongs to no linear layer")
        layers.setdefault(int(found[1]), {})[found[2]] = tensor
    weight: NDArray[np.float64] | None = None
    bias: NDArray[np.float64] | None = None
    for number, layer in sorted(layers.items()):
        own, offset = layer.get("weight"), layer.get("bias")
        fits = own is not None and offset is not None and own.ndim == 2 and own.shape[:1] == offset.shape
        if own is None or offset is None or not fits or (weight is not None and own.shape[1] != len(weight)):
            raise ValueError(f"{file}: is no aesthetic head: layer {number} does not follow the one before it")
        bias = offset if bias is None else own @ bias + offset
        weight = own if weight is None else own @ weight
    if weight is None or bias is None or len(weight) != 1:
        raise ValueError(f"{file}: is no aesthetic head: its last layer does not give one number")
    return Head(weight[0], float(bias[0]), file.stem)


def find_head(given: str | None) -> Head:
    """The head that `aesthetic.head` names: a file, a folder or a hub id in the local cache; None is LAION's. Raises
    ValueError: it is not on this machine, or is no head."""
    file = find_head_file(given)
    head = load_head(file)
    if given is None or not in_home(Path(given)).is_file():
        head.name = weights_name(given, file.parent, AESTHETIC_HEAD)
    return head


def find_head_file(given: str | None) -> Path:
    """The file that `find_head` reads; nothing is loaded. Raises ValueError: it is not on this machine."""
    if given is not None and (file := in_home(Path(given))).is_file():
        return file
    return _head_file(find_weights(given, AESTHETIC_HEAD, "aesthetic.head"))


def _head_file(path: Path) -> Path:
    if path.is_file():
        return path
    files = [file for suffix in ("safetensors", "pth") for file in sorted(path.glob(f"*.{suffix}"))]
    if not files:
        raise ValueError(f"{path}: no aesthetic head here; name a .pth or .safetensors file, or a folder with one")
    return files[0]


def _read_tensors(file: Path) -> dict[str, NDArray[np.float64]]:
    """The tensors of a file in 64 bits; nothing else in it is ever run."""
    import torch
    from safetensors.torch import load_file

    try:
        if file.suffix == ".safetensors":
            state: Any = load_file(file)
        else:  # saved on a GPU, as published
            state = torch.load(file, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        why = " ".join(str(error).split()).split(". ")[0]
        raise ValueError(f"{file}: cannot be read as an aesthetic head ({type(error).__name__}: {why})") from None
    if not isinstance(state, Mapping) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise ValueError(f"{file}: is no aesthetic head: it holds something other than tensors by name")
    return {str(name): tensor.double().numpy() for name, tensor in state.items()}


class LaionWorker(Worker):
    """Decodes and resizes proxies on threads, embeds them in batches and scores the embeddings."""

    def __init__(self, section: Aesthetic, threads: int) -> None:
        """Load CLIP and the head. Raises ValueError: they are not on this machine, or do not fit one another."""
        self._section, self._threads, self._turn = section, threads, Lock()
        self._head = find_head(section.head)
        self._clip = Clip.load(section.clip, "aesthetic.clip", section.chosen_device(), half_on_gpu=True)
        if self._head.dim != self._clip.dim:
            raise ValueError(
                f"aesthetic.head reads {self._head.dim} numbers and aesthetic.clip ({self._clip.name}) gives "
                f"{self._clip.dim}: they belong to different models"
            )
        self._name = f"{self._head.name} on {self._clip.name}"

    def __call__(self, inputs: Mapping[str, pa.Table], progress: Progress) -> Mapping[str, pa.Table]:
        """`proxies` in; `scores` out, and `embeddings` where they are stored. A row without a proxy has nulls."""
        proxies = inputs["proxies"]
        places: list[int] = []
        found: list[Embeddings] = []
        rows = in_batches(
            self._pixels,
            zip(*(proxies[name] for name in ("row_id", "image_id", "jpeg")), strict=True),
            self._clip.embedding_pixels,
            threads=self._threads,
            size=self._section.batch_size,
            turn=self._turn,
        )
        for place, (_, embedding) in enumerate(rows):
            if embedding is not None:
                places.append(place)
                found.append(embedding)
            progress(1)
        embeddings = np.stack(found) if found else np.zeros((0, self._clip.dim), np.float32)
        tables = {"scores": self._scores(proxies, places, self._head(embeddings))}
        if self._section.store_embeddings:
            tables["embeddings"] = self._embeddings(proxies, places, embeddings)
        return tables

    def _pixels(self, values: tuple[Any, ...]) -> Pixels | None:
        row_id, image_id, jpeg = (value.as_py() for value in values)
        if jpeg is None:
            return None
        with naming(f"{image_id} (row {row_id})"):
            return self._clip.pixels(open_rgb(jpeg, cover_px=self._clip.shown.cover_px))

    def _scores(self, proxies: pa.Table, places: list[int], scores: NDArray[np.float32]) -> pa.Table:
        column: list[float | None] = [None] * proxies.num_rows
        names: list[str | None] = [None] * proxies.num_rows
        for place, score in zip(places, scores.tolist(), strict=True):
            column[place], names[place] = score, self._name
        values = [proxies["row_id"], proxies["image_id"], pa.array(column, pa.float32()), pa.array(names, pa.string())]
        return pa.Table.from_arrays(values, schema=schema_of("scores"))

    def _embeddings(self, proxies: pa.Table, places: list[int], embeddings: Embeddings) -> pa.Table:
        there = np.zeros(proxies.num_rows, bool)
        there[places] = True
        offsets = np.concatenate([[0], np.cumsum(there) * self._clip.dim]).astype(np.int32)
        flat = pa.array(embeddings.astype(np.float16).ravel())
        lists = pa.ListArray.from_arrays(pa.array(offsets), flat, mask=pa.array(~there))
        models = pa.array([self._clip.name if here else None for here in there], pa.string())
        return pa.Table.from_arrays(
            [proxies["row_id"], proxies["image_id"], models, lists], schema=schema_of("embeddings")
        )
