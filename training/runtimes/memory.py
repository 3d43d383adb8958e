"""Memory that drawing with an exported model takes, by formula: said, and refused where there is less, beforehand."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from models.memory import GIB, require_memory
from models.weights import read_json
from schemas.training import LATENT_DOWNSAMPLING, Latents, Text
from training.encoders import stripes
from training.encoders.alone import is_streamed, t5_bytes
from training.encoders.pretrained import DTYPES
from training.encoders.weights import vae_folder
from training.runtimes import openvino_runtime
from training.runtimes.manifest import Manifest

log = logging.getLogger("training")

LIBRARIES = GIB // 2
"""What torch, transformers or diffusers, and a runtime take before any weights."""
LOADED = 2.0
"""Memory of a loaded graph over its file: runtimes keep the weights once more, in the order that they multiply in."""
LIVE, LIVE_OF_SIZE = 22, 12
"""Numbers per token and channel that a runtime holds, in a graph of any size and in one of the picture's own size:
measured with OpenVINO at 4K. The hidden state, queries, keys and values, and the MLP's inner width twice are 12."""
FP32 = 4
WHOLE_MAPS = 3
"""Maps of all pixels that the VAE's last stage holds at once where it decodes a picture whole."""
STRIPES = 5
"""Stripes that it holds at once otherwise."""


def needed(latents: Latents, text: Text, manifest: Manifest, folder: Path, shape: tuple[int, int]) -> dict[str, int]:
    """Bytes of each part of drawing one picture of (height, width) px; the parts come one after the other."""
    return {
        "text encoder": LIBRARIES + text_bytes(text),
        "model": LIBRARIES + model_bytes(manifest, folder, shape),
        "picture": LIBRARIES + picture_bytes(latents, shape),
    }


def require_parts(parts: Mapping[str, int], shape: tuple[int, int]) -> None:
    """Say what drawing takes, and raise a ValueError where this machine has less free than the largest part."""
    height, width = shape
    listed = ", ".join(f"{name} {size / GIB:.1f} GiB" for name, size in parts.items())
    log.info("memory by formula: %dx%d px take %s, one after the other", height, width, listed)
    largest = max(parts, key=parts.__getitem__)
    mend = {
        "text encoder": "set text.precision=bf16",
        "model": "choose a smaller --size, or export the model with a smaller --recipe",
        "picture": "choose a smaller --size, or set latents.precision=bf16",
    }[largest]
    require_memory(parts[largest], f"of a picture of {height}x{width} px the {largest}", mend)


def text_bytes(text: Text) -> int:
    if text.encoder != "t5":
        return 0
    whole, streamed = t5_bytes(text)
    return 2 * streamed if is_streamed(text) else whole  # a block as it is stored, and as it is used


def model_bytes(manifest: Manifest, folder: Path, shape: tuple[int, int]) -> int:
    """The graph, and what one block holds of a picture, as `openvino_runtime.load` compiles it.

    ONNX and ExecuTorch multiply out attention's scores, of every token with every key, and their softmax.
    """
    config = manifest.config
    element, live = FP32, LIVE
    if manifest.runtime == "openvino":
        is_large = openvino_runtime.is_large(*(side // LATENT_DOWNSAMPLING for side in shape))
        element = DTYPES[openvino_runtime.computed_in(manifest.recipe, is_large)].itemsize
        live = LIVE_OF_SIZE if is_large else LIVE
    rows, columns = (side // manifest.sizes.multiple_px for side in shape)
    held = live * element * config.hidden_size * rows * columns
    if manifest.runtime != "openvino":
        ratio = min(config.kv_ratio(layer) for layer in range(config.depth))
        held += 2 * FP32 * config.num_heads * rows * columns * (rows // ratio) * (columns // ratio)
    stored = sum((folder / name).stat().st_size for name in manifest.files)
    return int(LOADED * stored) + held


def picture_bytes(latents: Latents, shape: tuple[int, int]) -> int:
    """What decoding takes: the maps of the VAE, whole or in stripes, and the pixels."""
    pixels = shape[0] * shape[1]
    shown = 3 * FP32 * pixels * 3  # decoded, scaled to 0..255, and in the file
    if latents.codec != "sdxl":
        return shown
    folder = vae_folder(latents)
    first, second = read_json(folder / "config.json")["block_out_channels"][:2]
    element = DTYPES[latents.precision].itemsize
    weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    if pixels > stripes.WHOLE_PX:
        maps = element * pixels * (first + second // 4) + STRIPES * FP32 * stripes.STRIPE_NUMBERS
    else:
        maps = WHOLE_MAPS * element * pixels * second
    return shown + weights + maps
