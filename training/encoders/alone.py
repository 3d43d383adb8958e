"""Vectors of a few captions from a text encoder that is let go of, so that the model comes into its place."""

from __future__ import annotations

import logging
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor

from models.device import choose_device
from models.memory import GIB, free_bytes, give_back
from schemas.training import Text
from training.encoders.base import TextEncoder
from training.encoders.make import text_encoder_for
from training.encoders.pretrained import DTYPES, forget
from training.encoders.streamed import BLOCKS, StoredTensors
from training.encoders.weights import t5_folders

log = logging.getLogger("training")


@contextmanager
def alone(text: Text) -> Iterator[TextEncoder]:
    """The text encoder that a recipe names; its memory is free when the block is left. Raises ValueError: the text
    encoder is not on this machine, or is damaged."""
    encoder = text_encoder_for(text, streamed=is_streamed(text))
    try:
        yield encoder
    finally:
        forget()


def encoded_alone(text: Text, captions: Sequence[str]) -> list[Tensor]:
    """The vectors of each caption, (L, channels), on the CPU. A caption that is cut is logged."""
    with alone(text) as encoder:
        for caption in captions:
            if (count := encoder.count(caption)) > encoder.max_tokens:
                shown = textwrap.shorten(caption, 60)
                log.warning("a prompt of %d tokens is cut to %d: %s", count, encoder.max_tokens, shown)
        vectors = [encoder.encode(caption).cpu() for caption in captions]
        del encoder
    give_back()
    return vectors


def is_streamed(text: Text) -> bool:
    """Whether T5 is read block by block: on a CPU, where it takes more than half of the memory that is free."""
    if text.encoder != "t5" or choose_device().type != "cpu":
        return False
    whole, _ = t5_bytes(text)
    free = free_bytes()
    if streamed := 2 * whole > free:
        log.info("T5 takes %.1f GiB and %.1f GiB are free: its blocks are read one by one", whole / GIB, free / GIB)
    return streamed


def t5_bytes(text: Text) -> tuple[int, int]:
    """Memory of the T5 encoder that a recipe names, and of the same read block by block."""
    numbers = StoredTensors(t5_folders(text)[0]).numbers()
    blocks: dict[str, int] = {}
    for name, count in numbers.items():
        if name.startswith(BLOCKS):
            block = name.removeprefix(BLOCKS).partition(".")[0]
            blocks[block] = blocks.get(block, 0) + count
    rest = sum(count for name, count in numbers.items() if name.startswith(("shared.", "encoder."))) - sum(
        blocks.values()
    )
    element = DTYPES[text.precision].itemsize
    return element * (rest + sum(blocks.values())), element * (rest + max(blocks.values(), default=0))
