"""Train PixArt-Σ on the shards of a dataset with stock `webdataset` and a loop of your own.

    python examples/own_training_loop.py my-dataset/shards

The loop uses the model, its loss and its optimizer, and nothing else of the trainer. The codec and the text encoder
are the small offline ones; replace them with the SDXL VAE and T5 to train for real.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import webdataset
from PIL import Image
from torch import Tensor

from training.came import CAME
from training.diffusion import NUM_TIMESTEPS, q_sample, training_loss
from training.encoders.offline import BlockDCT, HashedText
from training.model import PixArt, PixArtConfig

SIZE_PX = 64
CODEC = BlockDCT(channels=12)
TEXT = HashedText(channels=64, max_tokens=32)


def to_tensors(image: Image.Image, caption: str) -> tuple[Tensor, Tensor]:
    """Turn one sample into its latents (12, 8, 8) and its caption (L, 64); the picture is cut to a square."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side)).resize((SIZE_PX, SIZE_PX), Image.Resampling.LANCZOS)
    pixels = torch.from_numpy(np.array(square)).permute(2, 0, 1) / 127.5 - 1  # (3, H, W) in [-1, 1]
    return CODEC.encode(pixels[None])[0], TEXT.encode(caption)


def batches(shards: Path, size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield latents (B, 12, 8, 8), captions (B, L, 64) and their mask (B, L) for ever, in the order of the tars."""
    tars = sorted(str(tar) for tar in shards.glob("*/*.tar"))
    # Every sample holds the original picture, its mixed caption (.txt) and its facts (.json).
    samples = (
        webdataset.WebDataset(tars, shardshuffle=False).decode("pilrgb").to_tuple("jpg;png;webp;avif", "txt").repeat()
    )
    while True:
        pairs = [to_tensors(image, caption) for image, caption in islice(samples, size)]
        lengths = torch.tensor([len(caption) for _, caption in pairs])
        captions = torch.nn.utils.rnn.pad_sequence([caption for _, caption in pairs], batch_first=True)
        mask = torch.arange(captions.shape[1]) < lengths[:, None]
        yield torch.stack([latents for latents, _ in pairs]), captions, mask


def train(shards: Path, steps: int, batch_size: int = 8) -> list[float]:
    """Train a toy PixArt-Σ and return the loss of every step."""
    torch.manual_seed(0)
    model = PixArt(
        PixArtConfig(
            depth=2,
            hidden_size=64,
            num_heads=4,
            in_channels=12,
            caption_channels=64,
            max_caption_tokens=32,
            image_size=SIZE_PX,
        )
    )
    optimizer = CAME(model.parameters(), lr=2e-4)
    losses = []
    for latents, captions, mask in islice(batches(shards, batch_size), steps):
        noise = torch.randn_like(latents)
        timestep = torch.randint(NUM_TIMESTEPS, (len(latents),))
        predicted = model(q_sample(latents, timestep, noise), timestep, captions, mask)
        loss = training_loss(predicted, latents, noise, timestep).loss.mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


if __name__ == "__main__":
    for step, loss in enumerate(train(Path(sys.argv[1]), steps=100), start=1):
        print(f"step {step:>4}  loss {loss:.3f}")
