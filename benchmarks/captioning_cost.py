"""What captioning 33 million pictures costs, by formula: with Share-Captioner, with a served Qwen-VL, and rented.

Nothing here is measured, for want of a GPU. `python -m benchmarks.captioning_cost` prints the tables of
docs/captioning.md; `--gpu a100`, `--price`, `--pictures` and `--tokens` print them for others. A step of decoding reads
all weights and the keys and values of every sequence in flight; prompts cost multiplications. Real programs reach a
share of what the device can.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

from benchmarks.share_captioner import FULL, IDS, NUM_PICTURES


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
BESIDE_WEIGHTS = 2.8e9
"""Bytes of Share-Captioner's tower, resampler and embeddings."""


@dataclass(frozen=True)
class Model:
    """What a picture costs in a model."""

    weights: float
    """Bytes that a step of decoding reads: all layers and the head, bfloat16."""
    cached: float
    """Bytes of keys and values per position of a sequence."""
    prompt: int
    """Positions of a prompt with its picture."""
    prompt_flop: float
    """Operations of the vision tower and of reading the prompt."""

    @classmethod
    def of(cls, layers: int, hidden: int, mlp: int, kv_width: int, vocab: int, prompt: int, tower_flop: float) -> Model:
        """A Llama-like model; `kv_width` is what all heads of the keys hold together."""
        per_layer = layers * (2 * hidden**2 + 2 * hidden * kv_width + 3 * hidden * mlp)
        cached = 2 * 2 * layers * kv_width
        return cls(2 * (per_layer + vocab * hidden), cached, prompt, tower_flop + prompt * 2 * per_layer)


def tower_flop(patches: int, width: int, mlp: int, depth: int, matrices: int) -> float:
    """Operations of a vision transformer with `matrices` in its MLP, attention over all patches."""
    return depth * (2 * patches * (4 * width**2 + matrices * width * mlp) + 4 * patches**2 * width)


def _share_captioner() -> Model:
    patches = (FULL.image_size // FULL.patch_size) ** 2 + 1
    width, hidden = FULL.vision_width, FULL.hidden_size
    tower = tower_flop(patches, width, FULL.vision_mlp, FULL.vision_depth, 2)
    resampler = 2 * patches * (width * hidden + 2 * hidden**2) + 2 * FULL.num_queries * 3 * hidden**2
    prompt = len(IDS[0]) + 2 + FULL.num_queries + len(IDS[1])
    return Model.of(FULL.num_layers, hidden, FULL.intermediate_size, hidden, FULL.vocab_size, prompt, tower + resampler)


SHARE_CAPTIONER = _share_captioner()
QWEN = Model.of(28, 3584, 18_944, 512, 152_064, 37 * 28 + 30, tower_flop(4 * 37 * 28, 1280, 3420, 32, 3))
"""Qwen2.5-VL-7B as its config.json has it; a picture of 1024 x 768 px takes 37 x 28 positions of 28 px. Its tower
attends within windows, which is less than is counted here."""


def least_seconds(sequences: int, tokens: int, bytes_per_s: float) -> float:
    """Time in which a device reads what Share-Captioner's decoding reads: at each step the weights, keys and values."""
    model = SHARE_CAPTIONER
    return tokens * (model.weights + sequences * model.cached * (model.prompt + tokens / 2)) / bytes_per_s


@dataclass(frozen=True)
class Choice:
    """A way of captioning: engine, decoding, and pictures in flight."""

    engine: str
    decoding: str
    at_once: int
    model: Model = SHARE_CAPTIONER

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
SERVED = (Choice("vllm", "", 64, QWEN), Choice("vllm", "", 256, QWEN))
RENTED = ((0.2, 0.6), (1.0, 4.0))
"""US dollars for a million tokens read and written: examples of a small and a large model, not anybody's prices."""


def images_per_s(choice: Choice, gpu: Gpu, tokens: int = TOKENS, *, limit: bool = False) -> float:
    """Pictures per second; `limit` takes the whole of what the device can, and no time for launches.

    vLLM writes as many steps per caption as it has tokens. A static batch runs to its longest caption, copies its
    cache with every token (read and written once more), and again for beams that change places.
    """
    on_vllm, model = choice.engine == "vllm", choice.model
    sequences = choice.at_once * choice.beams
    steps = tokens if on_vllm else longest_of(sequences, tokens)
    passes = 1 if on_vllm else 5 if choice.beams > 1 else 3
    read = model.weights + passes * sequences * model.cached * (model.prompt + steps / 2)
    step_s = read / gpu.bytes_per_s
    prompt_s = model.prompt_flop / gpu.flop_per_s
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
    model = SHARE_CAPTIONER
    free = 0.92 * gpu.memory_bytes - model.weights - BESIDE_WEIGHTS - 3e9
    return int(free / (model.cached * (model.prompt + tokens / 2)))


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


def served_table(gpu: Gpu, pictures: int = NUM_PICTURES, tokens: int = TOKENS) -> Iterator[str]:
    """Markdown lines: a model on a server of one's own, and tokens that are rented."""
    yield "| Qwen2.5-VL-7B, pictures of 1024 px | images/s, likely | GPU-days | US dollars |"
    yield "|---|---|---|---|"
    for choice in SERVED:
        likely = images_per_s(choice, gpu, tokens)
        days = pictures / likely / 86_400
        dollars = round(days * 24 * gpu.per_hour, -2)
        yield f"| on vLLM, {choice.at_once} in flight on each GPU | {likely:.1f} | {days:,.0f} | {dollars:,.0f} |"
    for read, written in RENTED:
        dollars = round(pictures * (QWEN.prompt * read + tokens * written) / 1e6, -2)
        yield f"| rented at {read} and {written} dollars for a million tokens read and written | | | {dollars:,.0f} |"


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
    for line in (*table(gpu, given.pictures, given.tokens), "", *served_table(gpu, given.pictures, given.tokens)):
        print(line)


if __name__ == "__main__":
    main()
