"""The captioner `vlm`: puts one question about each picture to an image-text-to-text model of transformers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText, LogitsProcessor, LogitsProcessorList

from captioning.captioners.base import Answer, Generated, InBatches, Plain
from captioning.captioners.fitting import batch_size_for
from captioning.captioners.local_model import find_vlm
from captioning.captioners.processors import LOCAL, load_config, load_processor
from models.device import choose_device
from models.weights import load_frozen, one_line
from schemas.captioners import Vlm

ALPHA_PROMPT = "Describe this image and its style in a very detailed manner"
"""PixArt-α's prompt for LLaVA, from its paper."""

OWN_PROMPT = {"florence2": "<MORE_DETAILED_CAPTION>", "blip": "", "blip-2": "", "git": "", "kosmos-2": "<grounding>"}
"""Type of a model that was not trained on questions -> the prompt it was trained on; '' is none."""

WITHOUT_TEMPLATE = {
    "llava": "USER: <image>\n{prompt} ASSISTANT:",
    "vipllava": "USER: <image>\n{prompt} ASSISTANT:",
    "instructblip": "{prompt}",
}
"""Type of a model whose files hold no chat template -> the text around the question; other types get it bare."""

TEXT_HOLDS_IMAGE = {"blip-2", "instructblip"}
"""Models whose processor puts the picture's tokens into the text, an empty one too."""

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
LARGEST = Image.new("RGB", (1024, 1024))
"""The picture that takes most memory: proxies have a longest side of 1024 px unless the recipe says otherwise."""
WINDOW_BATCHES = 4
"""Batches per call of `caption`, so that pictures of similar size can go through the model together."""


class VlmCaptioner(InBatches):
    """Puts one question about each picture to the model. In fp32 an answer depends on its picture and seed alone; in 16
    bit the batch moves the last digits of the logits, which can turn a word where two are equally likely."""

    def __init__(self, section: Vlm, device: str = "auto") -> None:
        """Load the model. `device`: auto, cpu, mps, cuda or cuda:N. Raises ValueError: it is not on this machine, is
        damaged, takes no pictures, or there is no such device."""
        self._device = choose_device(device, "caption.vlm.device")
        self._section = section
        found = find_vlm(section)
        config = load_config(found.folder)
        self._processor = load_processor(found.folder, config)
        self._kind: str = config.model_type
        self._starts_anew = bool(config.is_encoder_decoder or config.get_text_config().is_encoder_decoder)
        self.name, self.revision = found.name, found.revision
        prompt = OWN_PROMPT.get(self._kind, ALPHA_PROMPT) if section.prompt is None else section.prompt
        self.prompt: str | None = prompt or None
        try:  # a model takes minutes to load; a processor that does not fit shows at once
            self._inputs([Image.new("RGB", (64, 48))])
        except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
            raise ValueError(
                f"{found.folder}: its processor takes no picture with this prompt ({one_line(error)})"
            ) from (None)
        dtype = section.dtype
        if dtype == "auto":
            dtype = "bf16" if self._device.type == "cuda" else "fp32"
        knobs = {**LOCAL, "dtype": DTYPES[dtype], "use_safetensors": None}  # None takes `.bin` as well
        self._model = load_frozen(AutoModelForImageTextToText.from_pretrained, found.folder, **knobs).to(self._device)
        settings = self._model.generation_config
        self._ends = _as_ids(settings.eos_token_id, self._processor.tokenizer.eos_token_id)
        self.retries_help = section.decoding == "sampled"
        self.parameters: dict[str, Plain] = {
            "decoding": section.decoding,
            "dtype": dtype,
            "max_new_tokens": section.max_new_tokens,
        }
        if self.retries_help:
            self.parameters |= {"temperature": section.temperature, "top_p": section.top_p}
        for knob, neutral in (("repetition_penalty", 1.0), ("no_repeat_ngram_size", 0)):
            value = getattr(settings, knob, None)  # the model's own, which its makers found it needs
            if value is not None and value != neutral:
                self.parameters[knob] = value
        settings.temperature = settings.top_p = settings.top_k = None  # of sampling, which is done here
        self._at_once = section.batch_size or batch_size_for(
            self._device, section.max_new_tokens, lambda tokens: self._write([LARGEST], [0], tokens, tokens)
        )
        self.batch_size = self._at_once * WINDOW_BATCHES

    def caption(self, images: Sequence[Image.Image], seeds: Sequence[int]) -> list[Answer]:
        """One answer per picture, in order. Pictures of like size go through the model together. Raises ValueError: a
        picture cannot be prepared. Raises RuntimeError: the device fails, for example for lack of memory."""
        answers: dict[int, Answer] = {}
        for rows in by_size([image.size for image in images], self._at_once):
            try:
                batch = self._write([images[row] for row in rows], [seeds[row] for row in rows])
            except torch.OutOfMemoryError:
                self._at_once = max(1, len(rows) // 2)
                self.batch_size = self._at_once * WINDOW_BATCHES
                raise
            answers |= zip(rows, batch, strict=True)
        return [answers[row] for row in range(len(images))]

    @torch.inference_mode()
    def _write(
        self, images: list[Image.Image], seeds: list[int], least_tokens: int = 0, most_tokens: int | None = None
    ) -> list[Generated]:
        """One answer per picture of a batch; the tokens are those of the recipe where they are not given."""
        inputs = self._inputs(images).to(self._device)
        for name, value in inputs.items():
            if torch.is_tensor(value) and value.is_floating_point():
                inputs[name] = value.to(self._model.dtype)
        sampling = LogitsProcessorList()
        if self.retries_help:
            sampling.append(SeededSampler(seeds, self._section.temperature, self._section.top_p))
        written = self._model.generate(
            **inputs,
            do_sample=False,
            num_beams=1,
            max_new_tokens=most_tokens or self._section.max_new_tokens,
            min_new_tokens=least_tokens or None,
            logits_processor=sampling,
            pad_token_id=self._processor.tokenizer.pad_token_id,
        )
        # an encoder-decoder does not repeat the prompt; its first token is the start, and may equal the end
        head = 1 if self._starts_anew else prompt_length(inputs.get("input_ids"), written)
        written = written[:, head:]
        return [self._answer(row) for row in written.tolist()]

    def _inputs(self, images: list[Image.Image]) -> Any:
        """Model inputs of a batch: a chat of one question where the model has a template, else its plain prompt."""
        if getattr(self._processor, "chat_template", None):
            question = [] if self.prompt is None else [{"type": "text", "text": self.prompt}]
            chats = [[{"role": "user", "content": [{"type": "image", "image": image}, *question]}] for image in images]
            return self._processor.apply_chat_template(
                chats,
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
                processor_kwargs={"padding": True},
            )
        text = WITHOUT_TEMPLATE.get(self._kind, "{prompt}").replace("{prompt}", self.prompt or "")
        words = {"text": [text] * len(images), "padding": True} if text or self._kind in TEXT_HOLDS_IMAGE else {}
        return self._processor(images=images, return_tensors="pt", **words)

    def _answer(self, tokens: list[int]) -> Generated:
        end = next((place for place, token in enumerate(tokens) if token in self._ends), None)
        text = self._processor.tokenizer.decode(tokens[:end], skip_special_tokens=True)
        return Generated(text, end is not None, len(tokens) if end is None else end)


class SeededSampler(LogitsProcessor):
    """Draws each row's next token with the row's own generator, and leaves the search no other choice. One uniform
    number per row and step is looked up in the cumulative probabilities, largest first: exact sampling from
    softmax(logits / temperature) cut to `top_p`. A row draws the same whatever else is in its batch."""

    def __init__(self, seeds: Sequence[int], temperature: float, top_p: float) -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._temperature, self._top_p = temperature, top_p

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """(B, vocabulary) logits -> the same shape, 0 for the token drawn and -inf for all others."""
        drawn = torch.stack([torch.rand((), generator=own, dtype=torch.float64) for own in self._generators])
        probabilities, tokens = (
            (scores.float() / self._temperature).softmax(-1).sort(dim=-1, descending=True, stable=True)
        )
        cumulative = probabilities.double().cumsum(-1)  # (B, vocabulary)
        kept = (cumulative - probabilities < self._top_p).sum(-1, keepdim=True)  # (B, 1), at least 1
        mass = cumulative.gather(-1, kept - 1)
        place = torch.searchsorted(cumulative, drawn.to(scores.device)[:, None] * mass, right=True)
        token = tokens.gather(-1, place.minimum(kept - 1))
        return torch.full_like(scores, -torch.inf).scatter_(-1, token, 0.0)


def by_size(sizes: Sequence[tuple[int, int]], batch_size: int) -> list[list[int]]:
    """Batches of positions, largest pictures first: where a picture's tokens follow its size, few are padding, and
    the batch that needs most memory is the first."""
    order = sorted(range(len(sizes)), key=lambda row: (-sizes[row][0] * sizes[row][1], sizes[row], row))
    return [order[begin : begin + batch_size] for begin in range(0, len(order), batch_size)]


def prompt_length(prompt: Tensor | None, written: Tensor) -> int:
    """Tokens at the head of the output that repeat the prompt: all, or none where a model writes the answer alone."""
    if prompt is None or written.shape[1] < prompt.shape[1]:
        return 0
    length = prompt.shape[1]
    return length if torch.equal(written[:, :length], prompt) else 0


def _as_ids(*ends: int | list[int] | None) -> frozenset[int]:
    return frozenset(token for end in ends if end is not None for token in (end if isinstance(end, list) else [end]))
