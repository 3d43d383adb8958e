"""Turns a batch of prompt embeddings into caption ids: by published beam sampling, by plain sampling, or greedily."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList

from captioning.captioners.share_captioner.language import EOS, InternLM
from captioning.captioners.share_captioner.sampling import DrawOneToken, GumbelDice

Mode = Literal["published", "greedy", "sampled"]
NEVER = 2**31 - 1
"""No token has this id."""


@dataclass(frozen=True)
class Decoding:
    """The way in which ids are chosen. The defaults are those of the published batch script, at temperature 1. Raises
    ValueError: a value is impossible."""

    mode: Mode = "published"
    """`published` samples three beams, `sampled` one; `greedy` takes the likeliest token and needs no seed."""
    max_new_tokens: int = 500
    """Longest caption, in tokens."""
    repetition_penalty: float = 1.5
    """Makes the tokens that were generated before less likely; 1 does not."""
    top_k: int = 50
    """Tokens per beam that sampling may draw."""
    num_beams: int = 3
    """Beams of `published`."""

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise ValueError(f"decoding={self.mode!r}: one of {', '.join(get_args(Mode))}")
        for name, least in (("max_new_tokens", 1), ("top_k", 2), ("num_beams", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)}: at least {least}")
        if self.repetition_penalty <= 0:
            raise ValueError(f"repetition_penalty={self.repetition_penalty}: above 0")


def generate_ids(
    language: InternLM,
    prompt: Tensor,
    decoding: Decoding,
    seeds: Sequence[int],
    ends: Sequence[int],
    static_cache: bool | None = None,
) -> list[list[int]]:
    """The ids of one caption per row of `prompt` (B, L, hidden), each up to and including its first end. Row i depends
    on row i and seed i alone, up to the rounding of the matrix products, which may differ between batch sizes; in
    bfloat16 a near tie can then fall the other way. Every prompt has the same length, as padding would shift the
    repetition penalty. `seeds` (B) are not used by `greedy`. `ends`: the ids after which a row is complete; none comes
    first. Without any, every row is as long as may be. `static_cache`: keep room for the longest caption from the
    start, so that a step has one shape: transformers compiles it on a GPU, where a step of small kernels waits for
    Python. Beams are moved in the cache and keep the growing one. None is true on a GPU."""
    assert len(seeds) == len(prompt), f"{len(seeds)} seeds for {len(prompt)} prompts"
    beams = decoding.mode == "published"
    dice = None if decoding.mode == "greedy" else GumbelDice(seeds, prompt.device)
    config = GenerationConfig(
        max_new_tokens=decoding.max_new_tokens,  # `max_length` would count the prompt too
        min_new_tokens=1 if ends else None,
        repetition_penalty=decoding.repetition_penalty,
        do_sample=beams,
        **({"num_beams": decoding.num_beams, "top_k": decoding.top_k, "length_penalty": 1.0} if beams else {}),
        eos_token_id=list(ends) or [NEVER],
        pad_token_id=EOS,  # the published -1 is no id
    )
    if prompt.device.type == "cuda" if static_cache is None else static_cache:
        config.cache_implementation = None if beams else "static"
    processors = [] if dice is None or beams else [DrawOneToken(dice, decoding.top_k)]
    language.dice, language.top_k = (dice if beams else None), decoding.top_k
    draws_before = language.num_draws
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Passing `repetition_penalty` with `inputs_embeds`")  # as is meant
            rows = language.generate(
                inputs_embeds=prompt,
                attention_mask=torch.ones(prompt.shape[:2], dtype=torch.long, device=prompt.device),
                generation_config=config,
                logits_processor=LogitsProcessorList(processors),
            )
    finally:
        language.dice = None
    assert not beams or language.num_draws > draws_before, "this transformers draws its beams elsewhere"
    return [_up_to_end(row, ends) for row in rows.tolist()]


def _up_to_end(ids: list[int], ends: Sequence[int]) -> list[int]:
    for place, number in enumerate(ids):
        if number in ends:
            return ids[: place + 1]
    return ids
