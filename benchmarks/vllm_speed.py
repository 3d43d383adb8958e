"""Share-Captioner on vLLM against our own static batches: the same tiny model, captions of unequal length.

`--full` measures vLLM alone, at the published size with random weights, on a GPU.

vLLM has an environment of its own: `make test-vllm` makes it, and `OMP_NUM_THREADS=1 .venv-vllm/bin/python -m
benchmarks.vllm_speed` measures in it. It is not among `python -m benchmarks`, whose other packages vLLM trips over.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.captioning_cost import GPUS, Choice, images_per_s
from benchmarks.captioning_speed import pictures_of_noise
from benchmarks.share_captioner import FULL, TINY
from benchmarks.share_captioner import NUM_PICTURES as NUM_PICTURES_OF_ALL
from captioning.captioners.base import Generated, Question
from captioning.captioners.share_captioner import RecipeCaptioner, VllmCaptioner
from captioning.captioners.share_captioner.dimensions import Dimensions, ResamplerChoices
from captioning.captioners.share_captioner.generation import Decoding, generate_ids
from captioning.captioners.share_captioner.layout import source_of
from captioning.captioners.share_captioner.model import ShareCaptionerModel
from captioning.captioners.share_captioner.vllm_engine import VllmEngine, Written
from schemas.captioners import ShareCaptioner
from tests.captioning.captioners.share_captioner import conftest as tiny

NUM_PICTURES, AT_ONCE, ROUNDS = 200, 64, 3
BATCHES = (4, 8, 16, 32, 64)
OLD_BATCH = 4
"""The default batch until it was chosen by memory."""
MOST_TOKENS = 200


def lengths() -> list[int]:
    """The tokens of each picture's caption: 20 to 200, 110 on average."""
    draw = random.Random(0)
    return [draw.randint(20, MOST_TOKENS) for _ in range(NUM_PICTURES)]


class UnequalEngine(VllmEngine):
    """vLLM that writes as many tokens as the seed says, and notes how many of its places each step has filled."""

    busy: list[int]

    def add(self, name: str, prompt: Tensor, seed: int) -> None:
        """See `VllmEngine.add`."""
        self._engine.add_request(
            name, self._embeds(prompt), self._sampling(seed=0, max_tokens=seed, min_tokens=seed, stop_token_ids=[])
        )

    def step(self) -> list[tuple[str, Written]]:
        """See `VllmEngine.step`."""
        ended = super().step()
        self.busy.append(self.num_running + len(ended))
        return ended


class UnequalBatches(RecipeCaptioner):
    """transformers, batch by batch: each runs to the longest caption in it, and the others are cut."""

    def caption(self, images: Sequence[Image.Image], seeds: Sequence[int]) -> list[Generated]:
        """See `RecipeCaptioner.caption`; a seed is the number of tokens."""
        decoding = Decoding("greedy", max_new_tokens=max(seeds))
        rows = generate_ids(self.model.model.language, self.model.prompts(images), decoding, seeds, [])
        return [self.model.answer(row[:length]) for row, length in zip(rows, seeds, strict=True)]


def vllm_beside_batches(folder: Path) -> Iterator[str]:
    """Captions per second, by turns; and the share of the steps in which nine in ten places are filled."""
    os.environ["SIGMA_SCRATCH"] = str(folder)
    (weights := folder / "weights").mkdir()
    tiny.write_checkpoint(weights, tiny.train_tokenizer(folder), tiny.random_tensors(404, 128, queries=256))
    section = ShareCaptioner(
        weights=str(weights), decoding="greedy", device="cpu", max_new_tokens=MOST_TOKENS, batch_size=AT_ONCE
    )
    on_vllm = VllmCaptioner(section, "cpu", start=UnequalEngine)
    engine = on_vllm._engine
    assert isinstance(engine, UnequalEngine)
    in_batches = UnequalBatches(section, "cpu")
    questions = [
        Question(str(number), picture, length)
        for number, (picture, length) in enumerate(zip(pictures_of_noise(NUM_PICTURES), lengths(), strict=True))
    ]
    rates: dict[int, list[float]] = {size: [] for size in (0, *BATCHES)}  # 0 is vLLM
    shares = []
    for _ in range(ROUNDS):
        for size in rates:
            engine.busy = []
            in_batches.batch_size = size
            begun = time.perf_counter()
            answers = dict((in_batches if size else on_vllm).stream(iter(questions)))
            rates[size].append(NUM_PICTURES / (time.perf_counter() - begun))
            assert len(answers) == NUM_PICTURES and not any(
                isinstance(answer, Generated) and answer.num_tokens != questions[int(name)].seed
                for name, answer in answers.items()
            )
            if not size:
                shares.append(_busy_share(engine.busy))
    on_vllm.close()
    ours = statistics.median(rates[0])
    best = max(BATCHES, key=lambda size: statistics.median(rates[size]))
    for size, goal in ((best, "2"), (OLD_BATCH, "4")):
        ratios = [mine / theirs for mine, theirs in zip(rates[0], rates[size], strict=True)]
        name = "the old default" if size == OLD_BATCH else "the best static batch"
        yield (
            f"| {NUM_PICTURES} captions of 20 to {MOST_TOKENS} tokens | {AT_ONCE} at once: {ours:.1f} captions/s | "
            f"{name}, {size}: {statistics.median(rates[size]):.1f} captions/s | "
            f"{statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f}) | {goal} |"
        )
    yield (
        f"| share of vLLM's steps with 90 % of {AT_ONCE} places filled, while there are pictures | "
        f"{statistics.median(shares):.3f} | | | 0.95 |"
    )


def _busy_share(busy: Sequence[int]) -> float:
    """From the first full step to the last: afterwards there are fewer pictures left than places."""
    full = [step for step, count in enumerate(busy) if count == AT_ONCE]
    window = busy[full[0] : full[-1] + 1]
    return sum(count >= 0.9 * AT_ONCE for count in window) / len(window)


def full_size(folder: Path, dimensions: Dimensions, device: str, tokens: int, at_once: Sequence[int]) -> Iterator[str]:
    """Pictures per second of the whole captioner by captions at once, beside what an H100 can do at most."""
    os.environ["SIGMA_SCRATCH"] = str(folder)
    (weights := folder / "weights").mkdir()
    write_random_checkpoint(weights, dimensions, torch.float32 if device == "cpu" else torch.bfloat16)
    (weights / "tokenizer.model").write_bytes(tiny.train_tokenizer(folder).read_bytes())
    yield f"{device}, {tokens} tokens a caption\n"
    yield "| captions at once | images/s | GPU-days for 33 million | an H100 at most, images/s | steps 90 % filled |"
    yield "|---|---|---|---|---|"
    for count in at_once:
        section = ShareCaptioner(weights=str(weights), device=device, max_new_tokens=tokens, batch_size=count)
        captioner = VllmCaptioner(section, device, start=UnequalEngine)
        engine = captioner._engine
        assert isinstance(engine, UnequalEngine)
        questions = [
            Question(str(number), picture, tokens) for number, picture in enumerate(pictures_of_noise(8 * count))
        ]
        engine.busy = []
        for _ in captioner.stream(iter(questions[:4])):  # compiles and records what it will run
            pass
        engine.busy, begun = [], time.perf_counter()
        num_answers = sum(isinstance(answer, Generated) for _, answer in captioner.stream(iter(questions)))
        rate = num_answers / (time.perf_counter() - begun)
        captioner.close()
        limit = images_per_s(Choice("vllm", "greedy", count), GPUS["h100"], tokens, limit=True)
        filled = sum(busy >= 0.9 * count for busy in engine.busy) / len(engine.busy)
        yield f"| {count} | {rate:.1f} | {NUM_PICTURES_OF_ALL / rate / 86_400:,.0f} | {limit:.1f} | {filled:.0%} |"


def write_random_checkpoint(folder: Path, dimensions: Dimensions, dtype: torch.dtype) -> None:
    """The published files of a model of that size, but for the tokenizer."""
    with torch.device("meta"):
        shapes = {ours: tensor.shape for ours, tensor in ShareCaptionerModel(dimensions).state_dict().items()}
    tensors: dict[str, Tensor] = {}
    files: dict[str, str] = {}

    def save() -> None:
        file = f"model-{len(set(files.values())):05d}.safetensors"
        save_file(tensors, folder / file)
        files.update(dict.fromkeys(tensors, file))
        tensors.clear()

    for ours, shape in shapes.items():
        names = source_of(ours, (), 1.0).names
        own = torch.Size([shape[0] // 3]) if len(names) > 1 else shape  # query and value have a bias, the key has none
        for name in names:
            is_norm = "norm" in name or ".ln_" in name
            tensors[name] = torch.ones(own, dtype=dtype) if is_norm else torch.empty(own, dtype=dtype).normal_(std=0.05)
        if sum(tensor.nbytes for tensor in tensors.values()) > 2**31:
            save()
    half = dimensions.hidden_size // dimensions.num_heads // 2
    for layer in range(dimensions.num_layers):
        frequencies = dimensions.rope_theta ** (-torch.arange(half) / half)
        tensors[f"internlm_model.model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = frequencies.to(dtype)
    save()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    assert isinstance(dimensions.connector, ResamplerChoices)
    heads = {"vision_heads": dimensions.vision_heads, "num_attention_heads": dimensions.num_heads}
    (folder / "config.json").write_text(json.dumps(heads | dimensions.connector.as_config()))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="vLLM alone, at the published size")
    parser.add_argument("--device", default="cuda", help="of --full")
    parser.add_argument("--tiny", action="store_true", help="a toy model for --full, to try the lines")
    parser.add_argument("--tokens", type=int, default=180, help="of a caption, for --full")
    parser.add_argument("--at-once", type=int, nargs="+", default=[8, 32, 128, 256], help="captions, for --full")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if given.full:
            size = TINY if given.tiny else FULL
            lines = full_size(folder, size, given.device, given.tokens, given.at_once)
        else:
            print("| what | vLLM | beside it | ratio, median of rounds | goal |\n|---|---|---|---|---|")
            lines = vllm_beside_batches(folder)
        for line in lines:
            print(line, flush=True)


if __name__ == "__main__":
    main()
