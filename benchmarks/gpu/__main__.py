"""`python -m benchmarks.gpu`: the command line of the measurements on a GPU."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

BEGUN = time.monotonic()
"""Before torch is imported, which counts too."""
DESCRIPTION = """\
Measures on one GPU, with random weights of the published sizes, in nine minutes: the training step against
diffusers, whole steps of every stage, KV compression, CAME against came-pytorch, the SDXL VAE, T5-XXL and CLIP
ViT-L/14 in pictures or captions per second and as a share of the card's bf16 peak, Share-Captioner, drawing
pictures, and memory.

The most telling measurements come first. Each row is written to OUT/results.jsonl and OUT/table.md as it comes;
what the time or the memory does not suffice for is a row that says so."""
NEEDS = """\
It needs torch for the GPU, numpy, safetensors and transformers, and no more of Sigma's packages. Where one of
these is missing, the rows that need it say so; to a machine without a network they travel as wheels:
  diffusers, importlib-metadata and zipp   the peer of the training step, and the VAE
  came-pytorch                             the peer of CAME
  pillow                                   CLIP and Share-Captioner
  pip download --no-deps -d wheels diffusers importlib-metadata zipp came-pytorch pillow   # here
  pip install --no-index --no-deps --target site wheels/*.whl                              # there
  PYTHONPATH=site python -m benchmarks.gpu

--device cpu --tiny runs the same code on toys in seconds."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what the command line says and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=DESCRIPTION, epilog=NEEDS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--device", default="cuda", help="as torch names it (default: %(default)s)")
    parser.add_argument("--tiny", action="store_true", help="toy models, to see that everything runs")
    parser.add_argument("--out", type=Path, default=Path("bench-gpu"), help="folder (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=9.0, help="for everything (default: %(default)s)")
    parser.add_argument("--only", default="", help="sections whose name holds this, such as vae or step")
    options = parser.parse_args(arguments)

    import torch

    from benchmarks.gpu import running

    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("there is no GPU here; --device cpu --tiny shows that everything runs")
    if device.type == "cuda":
        device = torch.device("cuda", device.index or 0)
        torch.cuda.set_device(device)
    bench = running.tiny(device) if options.tiny else running.xl(device)
    running.run(bench, options.out, options.only, BEGUN + 60 * options.minutes)
    print((options.out / "table.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
