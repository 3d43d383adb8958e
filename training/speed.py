"""How fast training goes since it was last asked: pictures, waiting, model FLOPs and their share of the GPU's peak."""

from __future__ import annotations

import time

import torch

from training.data.loader import Loader
from training.flops import mfu, peak_flops_per_s, training_flops
from training.inputs import ModelInputs
from training.model import PixArtConfig
from training.parallel.distributed import World


class Speed:
    """Counts what each step computes; a reading covers the steps since the last restart.

    Model FLOPs are those of the step's own bucket and captions: of the tokens of its grid, keys and values after
    compression, and valid text tokens. Padding, and what checkpointing computes again, is no work of the model.
    """

    def __init__(self, config: PixArtConfig, loader: Loader, here: World) -> None:
        self._config, self._loader, self._here = config, loader, here
        is_gpu = here.device.type == "cuda"
        self._peak = peak_flops_per_s(torch.cuda.get_device_name(here.device)) if is_gpu else None
        self.restart()

    def count(self, num_pictures: int, inputs: ModelInputs) -> None:
        """Note this process's share of a step."""
        self._num_pictures += num_pictures
        height, width = inputs.latents.shape[-2:]
        grid = (height // self._config.patch_size, width // self._config.patch_size)
        without_text = training_flops(self._config, grid, 0)
        per_text_token = training_flops(self._config, grid, 1) - without_text
        self._flops += len(inputs) * without_text + int(inputs.lengths.sum()) * per_text_token

    def read(self) -> dict[str, float]:
        """`images_per_s` of all processes, `wait_share` for data, `tflops_per_s` of this process, and, on a GPU whose
        peak is known, `mfu`. Call it when the device has finished, or launches pass for work."""
        elapsed = time.perf_counter() - self._start
        values = {
            "images_per_s": self._num_pictures * self._here.size / elapsed,
            "wait_share": (self._loader.waited_s - self._waited_before) / elapsed,
            "tflops_per_s": self._flops / elapsed / 1e12,
        }
        if self._peak is not None:
            values["mfu"] = mfu(1 / elapsed, self._flops, self._peak)
        return values

    def restart(self) -> None:
        """Forget the steps so far."""
        self._start, self._waited_before = time.perf_counter(), self._loader.waited_s
        self._num_pictures, self._flops = 0, 0
