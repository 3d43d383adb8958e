"""A 4K picture on a machine of 8 GB: the peak memory of text encoder, model and VAE, with random weights.

Each part is a process of its own, as the parts of `sigma sample --runtime` come one after the other. It takes hours on
few cores, 10 GB of disk and 5 GB of memory while the model is exported, so `python -m benchmarks` leaves it out:

    python -m benchmarks.on_device_4k FOLDER [text|export|model|vae ...]
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import torch

from training.runtimes.manifest import Recipe

HEIGHT, WIDTH = 2160, 3840
TOKENS = 120
DEPTH = 28
RECIPE: Recipe = "int8-dynamic"
PARTS = ("text", "export", "model", "vae")
GB = 1e9


def text(folder: Path) -> None:
    """A caption through T5-v1.1-XXL's encoder in bf16, read block by block."""
    from training.encoders.streamed import streamed_t5

    torch.set_num_threads(1)
    model = streamed_t5(made_t5(folder / "t5"), torch.bfloat16, torch.device("cpu"))
    with torch.no_grad():
        found = model(torch.arange(TOKENS)[None] + 5).last_hidden_state
    assert found.shape == (1, TOKENS, 4096)


def made_t5(folder: Path) -> Path:
    """A folder of T5-v1.1-XXL's encoder with random weights, a file for each block; made once."""
    from safetensors.torch import save_file
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=32128, d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64, feed_forward_proj="gated-gelu"
    )
    if (folder / "config.json").is_file():
        return folder
    folder.mkdir(parents=True)
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in T5EncoderModel(config).named_parameters()}
    chance = torch.randn(2**24).mul_(0.02).bfloat16()
    groups: dict[str, list[str]] = {}
    for name in shapes:
        groups.setdefault(name.split(".")[2] if name.startswith("encoder.block.") else "rest", []).append(name)
    for group, names in groups.items():
        tensors = {
            name: chance.repeat(-(-shapes[name].numel() // len(chance)))[: shapes[name].numel()].reshape(shapes[name])
            for name in names
        }
        save_file({name: tensor.clone() for name, tensor in tensors.items()}, folder / f"{group}.safetensors")
    config.save_pretrained(folder)
    return folder


def export(folder: Path) -> None:
    """The model of XL/2's width, keys and values compressed in its last half, exported; not part of the peak."""
    from benchmarks.on_device import write_random
    from training.runtimes.export import export_model

    write_random(folder / "model.safetensors", DEPTH)
    export_model(folder / "model.safetensors", folder / "exported", "openvino", RECIPE)


def model(folder: Path) -> None:
    """One pass of the exported model at 4K."""
    from training.runtimes.denoiser import load_runtime

    denoiser = load_runtime(folder / "exported", threads=1)
    report("loaded")
    latents = torch.randn(1, 4, HEIGHT // 8, WIDTH // 8)
    noise = denoiser(latents, torch.tensor([999.0]), torch.randn(1, TOKENS, 4096))
    assert noise.shape == latents.shape and bool(noise.isfinite().all())


@torch.no_grad()
def vae(_folder: Path) -> None:
    """Latents to a picture by the SDXL VAE in bf16, in stripes."""
    from diffusers import AutoencoderKL

    from training.encoders.pretrained import SdxlVae

    made = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512), down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, latent_channels=4, layers_per_block=2, scaling_factor=0.13025,
    ).eval().requires_grad_(False).bfloat16()  # fmt: skip
    report("loaded")
    pixels = SdxlVae(made).decode(torch.randn(1, 4, HEIGHT // 8, WIDTH // 8))
    assert pixels.shape == (1, 3, HEIGHT, WIDTH)


def report(what: str) -> None:
    """Print the largest resident memory of this process so far, and its CPU time."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak = 1024 * int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])
    print(f"| {what} | {peak / GB:.2f} GB | {time.process_time():.0f} s |", flush=True)


def main() -> None:
    folder, wanted = Path(sys.argv[1]), sys.argv[2:] or PARTS
    if len(wanted) == 1:
        {"text": text, "export": export, "model": model, "vae": vae}[wanted[0]](folder)
        report(wanted[0])
        return
    folder.mkdir(parents=True, exist_ok=True)
    print(f"| part of {WIDTH}x{HEIGHT} px | peak | CPU time |\n|---|---|---|", flush=True)
    for part in wanted:
        subprocess.run([sys.executable, "-m", "benchmarks.on_device_4k", str(folder), part], check=True)


if __name__ == "__main__":
    main()
