"""What captioning 33 million pictures with Share-Captioner costs, by formula: not measured, for want of a GPU.

`python -m benchmarks.captioning_cost` prints the table of docs/captioning.md; `--gpu a100`, `--price`, `--pictures` and
`--tokens` print it for others. A step of decoding reads all weights and the keys and values of every sequence in
flight; prompts cost multiplications. Real programs reach a share of what the device can.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

from benchmarks.captioning_speed import FULL, IDS, NUM_PICTURES


@dataclass(frozen=True)
class Gpu:
    """What a GPU can do at most."""

    name: str
    bytes_per_s: float
    flop_per_s: float
    """in bfloat16, dense, as matrix products reach it"""
    memory_bytes: float
    per_hour: float
    """US dollars"""


GPUS = {
    "h100": Gpu("H100 80 GB", 3.35e12, 800e12, 80e9, 2.5),
    "a100": Gpu("A100 80 GB", 2.04e12, 280e12, 80e9, 1.5),
}
BANDWIDTH_SHARE, FLOP_SHARE = 0.65, 0.65
"""The shares of the device's best that programs reach."""
VLLM_STEP_S, TRANSFORMERS_STEP_S = 0.0015, 0.030
"""Python and launches per step: graphs replayed, or some 500 kernels launched one by one."""
TOKENS, TOKENS_SPREAD = 180, 40
"""Mean and standard deviation of a caption's tokens."""
LAYERS = FULL.num_layers * (4 * FULL.hidden_size**2 + 3 * FULL.hidden_size * FULL.intermediate_size)
"""Weights of the language model's layers."""
WEIGHTS = 2 * (LAYERS + FULL.vocab_size * FULL.hidden_size)
"""Bytes that a step of decoding reads: all layers and the head, bfloat16."""
CACHED = 2 * 2 * FULL.num_layers * FULL.hidden_size
"""Bytes of keys and values per position of a sequence."""
PROMPT = len(IDS[0]) + 2 + FULL.num_queries + len(IDS[1])
"""Positions of a prompt: 282."""
BESIDE_WEIGHTS = 2.8e9
"""Bytes of the tower, the resampler and the embeddings."""


@dataclass(frozen=True)
class Choice:
    """A way of captioning: engine, decoding, and pictures in flight."""

    engine: str
    decoding: str
    at_once: int

    @property
    def beams(self) -> int:
        """Sequences per picture."""
        return 3 if self.decoding == "published" else 1


CHOICES = (
    Choice("transformers", "published", 4),
    Choice("transformers", "published", 16),
    Choice("transformers", "greedy, sampled", 4),
    Choice("transformers", "greedy, sampled", 64),
    Choice("vllm", "greedy, sampled", 32),
    Choice("vllm", "greedy, sampled", 128),
    Choice("vllm", "greedy, sampled", 256),
)


def prompt_flop() -> float:
    """Operations of the vision tower, the resampler and the language model's reading of the prompt, per picture."""
    patches = (FULL.image_size // FULL.patch_size) ** 2 + 1
    width = FULL.vision_width
    block = 2 * patches * (4 * width**2 + 2 * width * FULL.vision_mlp) + 4 * patches**2 * width
    hidden = FULL.hidden_size
    resampler = 2 * patches * (width * hidden + 2 * hidden**2) + 2 * FULL.num_queries * 3 * hidden**2
    return FULL.vision_depth * block + resampler + PROMPT * 2 * LAYERS


def images_per_s(choice: Choice, gpu: Gpu, tokens: int = TOKENS, *, limit: bool = False) -> float:
    """Pictures per second; `limit` takes the whole of what the device can, and no time for launches.

    vLLM writes as many steps per caption as it has tokens. A static batch runs to its longest caption, copies its
    cache with every token (read and written once more), and again for beams that change places.
    """
    on_vllm = choice.engine == "vllm"
    sequences = choice.at_once * choice.beams
    steps = tokens if on_vllm else longest_of(sequences, tokens)
    passes = 1 if on_vllm else 5 if choice.beams > 1 else 3
    read = WEIGHTS + passes * sequences * CACHED * (PROMPT + steps / 2)
    step_s = read / gpu.bytes_per_s
    prompt_s = prompt_flop() / gpu.flop_per_s
    if not limit:
        step_s = step_s / BANDWIDTH_SHARE + (VLLM_STEP_S if on_vllm else TRANSFORMERS_STEP_S)
        prompt_s /= FLOP_SHARE
    return 1 / (steps * step_s / choice.at_once + prompt_s)


def longest_of(count: int, tokens: int = TOKENS) -> float:
    """Expected tokens of the longest of some captions (Blom 1958: the largest of normal draws)."""
    spread = TOKENS_SPREAD * tokens / TOKENS
    return tokens + spread * NormalDist().inv_cdf((count - 0.375) / (count + 0.25))


def room(gpu: Gpu, tokens: int = TOKENS) -> int:
    """Captions in flight that the memory has room for, half written on average."""
    return int((0.92 * gpu.memory_bytes - WEIGHTS - BESIDE_WEIGHTS - 3e9) / (CACHED * (PROMPT + tokens / 2)))


def table(gpu: Gpu, pictures: int = NUM_PICTURES, tokens: int = TOKENS) -> Iterator[str]:
    """Markdown lines: what each choice may reach, and what it costs."""
    yield "| `engine` | `decoding` | in flight | images/s, at most | images/s, likely | GPU-days | US dollars |"
    yield "|---|---|---|---|---|---|---|"
    for choice in CHOICES:
        most, likely = (images_per_s(choice, gpu, tokens, limit=limit) for limit in (True, False))
        days = pictures / likely / 86_400
        yield (
            f"| {choice.engine} | {choice.decoding} | {choice.at_once} | {most:.1f} | {likely:.1f} | {days:,.0f} | "
            f"{round(days * 24 * gpu.per_hour, -2):,.0f} |"
        )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpu", choices=GPUS, default="h100")
    parser.add_argument("--price", type=float, help="of an hour of it")
    parser.add_argument("--pictures", type=int, default=NUM_PICTURES)
    parser.add_argument("--tokens", type=int, default=TOKENS, help="mean of a caption")
    given = parser.parse_args()
    gpu = GPUS[given.gpu]
    if given.price is not None:
        gpu = Gpu(gpu.name, gpu.bytes_per_s, gpu.flop_per_s, gpu.memory_bytes, given.price)
    print(f"{given.pictures:,} pictures on {gpu.name} at {gpu.per_hour} an hour, {given.tokens} tokens a caption; its "
          f"memory has room for {room(gpu, given.tokens)} captions\n")  # fmt: skip
    for line in table(gpu, given.pictures, given.tokens):
        print(line)


if __name__ == "__main__":
    main()
