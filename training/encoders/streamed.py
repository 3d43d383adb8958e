"""T5 whose blocks are read from disk as they are called and dropped again: it then takes the memory of one block."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from models.weights import UNREADABLE, one_line

if TYPE_CHECKING:  # imported where it is used: it takes seconds
    from transformers import T5EncoderModel


BLOCKS = "encoder.block."
"""What the names of the blocks' tensors begin with; the block's number follows."""


class StoredTensors:
    """The tensors of a folder of safetensors, by their names. Raises ValueError: a file cannot be read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, Path] = {}
        try:
            for path in sorted(folder.glob("*.safetensors")):
                with safe_open(path, "pt") as file:
                    self._files |= dict.fromkeys(file.keys(), path)
        except UNREADABLE as error:
            raise ValueError(f"{folder}: the weights cannot be loaded ({one_line(error)}); get them anew") from None

    def require(self, names: Iterable[str]) -> None:
        """Raise a ValueError where one of these is not there."""
        if missing := sorted(name for name in names if name not in self._files):
            raise ValueError(f"{self._folder}: lacks {missing[0]} and {len(missing) - 1} more tensors; get them anew")

    def numbers(self) -> dict[str, int]:
        """How many numbers each tensor has."""
        found: dict[str, int] = {}
        for path in sorted({*self._files.values()}):
            with safe_open(path, "pt") as file:
                here = [name for name, place in self._files.items() if place == path]
                found |= {name: math.prod(file.get_slice(name).get_shape()) for name in here}
        return found

    def read(self, names: Iterable[str], dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
        """Some of them, which are there."""
        wanted = list(names)
        found: dict[str, Tensor] = {}
        for path in sorted({self._files[name] for name in wanted}):
            with safe_open(path, "pt") as file:
                here = [name for name in wanted if self._files[name] == path]
                found |= {name: file.get_tensor(name).to(device, dtype) for name in here}
        return found


def streamed_t5(folder: Path, dtype: torch.dtype, device: torch.device) -> T5EncoderModel:
    """The T5 encoder of a folder. It answers to the bit as if it were loaded whole, and reads its blocks in each call.
    Raises ValueError: the folder holds no T5 encoder, or a damaged one."""
    from transformers import T5Config, T5EncoderModel

    try:
        with torch.device("meta"):
            model = T5EncoderModel(T5Config.from_pretrained(folder, local_files_only=True)).to(dtype)
    except UNREADABLE as error:
        raise ValueError(f"{folder}: the weights cannot be loaded ({one_line(error)}); get them anew") from None
    stored = StoredTensors(folder)
    names = [name for name, _ in model.named_parameters()]
    kept = [name for name in names if not name.startswith(BLOCKS)]
    stored.require(names)
    model.load_state_dict(stored.read(kept, dtype, device), strict=False, assign=True)
    model.tie_weights()
    model.eval().requires_grad_(False)

    def bring(block: nn.Module, number: int) -> None:
        prefix = f"{BLOCKS}{number}."
        found = stored.read([prefix + name for name, _ in block.named_parameters()], dtype, device)
        block.load_state_dict({name.removeprefix(prefix): tensor for name, tensor in found.items()}, assign=True)

    def drop(block: nn.Module, _given: Any, _made: Any) -> None:
        block.to("meta")

    for number, block in enumerate(model.encoder.block):
        block.register_forward_pre_hook(lambda block, _given, number=number: bring(block, number))
        block.register_forward_hook(drop)
    return model
