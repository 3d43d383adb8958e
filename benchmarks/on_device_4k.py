"""A 4K picture on a machine of 8 GB, whole: the peak memory of text encoder, model and VAE, with random weights.

`sigma sample --runtime` is what draws it, in one step of a few-step model; it believes that 8 GB are free. It takes an
hour of one core, 12 GB of disk and 5 GB of memory while the model is exported, so `python -m benchmarks` leaves it out:

    python -m benchmarks.on_device_4k FOLDER
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from training.runtimes.manifest import Recipe
from training.runtimes.report import peak_bytes

HEIGHT, WIDTH = 2160, 3840
PROMPT = "a lighthouse on the rocks at dawn, " * 8
DEPTH = 28
RECIPE: Recipe = "int8-dynamic"
PARTS = ("make", "draw")
GB = 1e9
FREE = int(8 * GB)


def make(folder: Path) -> None:
    """Random weights of all three parts in their real sizes; the model is exported. Not part of the peak."""
    from diffusers import AutoencoderKL

    from benchmarks.on_device import write_random
    from training.runtimes.export import export_model

    if not (folder / "exported").is_dir():
        write_random(folder / "model.safetensors", DEPTH)
        export_model(folder / "model.safetensors", folder / "exported", "openvino", RECIPE)
    made_t5(folder / "text_encoder")
    made_tokenizer(folder / "tokenizer")
    AutoencoderKL(
        block_out_channels=(128, 256, 512, 512), down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, latent_channels=4, layers_per_block=2, scaling_factor=0.13025,
    ).bfloat16().save_pretrained(folder / "vae")  # fmt: skip


def draw(folder: Path) -> None:
    """The whole picture in this process; prints the peak of each part, and of the whole at the end."""
    from schemas.training import TrainingRecipe
    from training.encoders import alone
    from training.runtimes import drawing

    recipe = TrainingRecipe.from_mapping(
        {
            "dataset": "nowhere",
            "out": "nowhere",
            "latents": {"codec": "sdxl", "weights": str(folder), "precision": "bf16"},
            "text": {"encoder": "t5", "weights": str(folder)},
            "sample": {"steps": 1, "timestep": 999},
            "stages": [{"name": "only", "resolution": 512, "steps": 1}],
        }
    )
    peaks = [0]

    def then(name: str, following: Callable[..., Any]) -> Callable[..., Any]:
        def called(*given: Any, **knobs: Any) -> Any:
            peaks.append(report(name))
            Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak begins anew
            return following(*given, **knobs)

        return called

    vars(alone)["free_bytes"] = lambda: FREE
    vars(drawing)["load_runtime"] = then("text encoder", drawing.load_runtime)
    vars(drawing)["decoded"] = then("model", drawing.decoded)
    drawing.sample_exported(recipe, folder / "exported", [PROMPT], folder / "picture.png", size=(HEIGHT, WIDTH))
    peaks.append(report("VAE and file"))
    print(f"| whole | {max(peaks) / GB:.2f} GB | {time.process_time():.0f} s |")


def made_tokenizer(folder: Path) -> None:
    """A vocabulary of the words of the prompt."""
    import sentencepiece
    from transformers import T5Tokenizer

    folder.mkdir(exist_ok=True)
    (folder / "lines.txt").write_text(f"{PROMPT}\n" * 9, encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "lines.txt"), model_prefix=str(folder / "spiece"), vocab_size=60, hard_vocab_limit=False,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2,
    )  # fmt: skip
    T5Tokenizer.from_pretrained(folder, extra_ids=0).save_pretrained(folder)


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


def report(what: str) -> int:
    """Print the largest resident memory of this process so far, and its CPU time."""
    peak = peak_bytes()
    print(f"| {what} | {peak / GB:.2f} GB | {time.process_time():.0f} s |", flush=True)
    return peak


def main() -> None:
    folder, wanted = Path(sys.argv[1]), sys.argv[2:] or PARTS
    if len(wanted) == 1:
        {"make": make, "draw": draw}[wanted[0]](folder)
        return
    folder.mkdir(parents=True, exist_ok=True)
    print(f"| {WIDTH}x{HEIGHT} px | peak | CPU time |\n|---|---|---|", flush=True)
    for part in wanted:
        subprocess.run([sys.executable, "-m", "benchmarks.on_device_4k", str(folder), part], check=True)


if __name__ == "__main__":
    main()
