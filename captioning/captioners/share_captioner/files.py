"""The weight files of a checkpoint folder, read tensor by tensor: safetensors or `.bin`, one file or shards."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from captioning.captioners.local_model import weight_paths


class WeightFiles:
    """Random access to the tensors of one folder; a tensor is read when `read` is called. Safetensors are preferred
    where the folder holds both kinds. `.bin` files are unpickled with `weights_only`, and mapped rather than read, so
    that memory never holds a checkpoint twice."""

    def __init__(self, folder: Path) -> None:
        """Open every file. Raises ValueError: there are no weights, a shard of the index is missing, or a file is
        damaged."""
        self.folder = folder
        self._mapped: dict[str, Tensor] = {}
        self._safetensors: dict[str, Path] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.paths = weight_paths(folder)
        for path in self.paths:
            shapes = self._open_safetensors(path) if path.suffix == ".safetensors" else self._open_bin(path)
            twice = sorted(self.shapes.keys() & shapes.keys())
            if twice:
                raise ValueError(f"{path}: {twice[0]} is in another file as well")
            self.shapes |= shapes

    def read(self, name: str) -> Tensor:
        """One tensor, on the CPU, in the file's own dtype."""
        if name in self._mapped:
            return self._mapped[name]
        with safe_open(self._safetensors[name], framework="pt") as file:
            return file.get_tensor(name)

    def _open_safetensors(self, path: Path) -> dict[str, tuple[int, ...]]:
        try:
            with safe_open(path, framework="pt") as file:
                shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path}: not a whole safetensors file ({error}); download it again") from None
        self._safetensors |= dict.fromkeys(shapes, path)
        return shapes

    def _open_bin(self, path: Path) -> dict[str, tuple[int, ...]]:
        try:
            tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(f"{path}: not a whole torch file of tensors alone ({reason}); download it again") from None
        if not isinstance(tensors, Mapping) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
            raise ValueError(f"{path}: holds no state dict (name -> tensor)")
        self._mapped |= tensors
        return {name: tuple(tensor.shape) for name, tensor in tensors.items()}
