"""The recipe's section `caption`: the choice of a captioner, and the knobs of each."""

from __future__ import annotations

import json
from typing import Annotated, Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from schemas.devices import OnDevice
from schemas.strict import StrictModel, matching

Device = Annotated[str, matching(r"auto|cpu|mps|cuda(:\d+)?", "auto, cpu, mps, cuda or cuda:N")]
Dtype = Literal["auto", "fp32", "bf16", "fp16"]


ResamplerKey = Literal["resampler_heads", "resampler_cls", "resampler_key_pos", "resampler_ln_eps"]
CaptionerName = Literal["attributes", "share_captioner", "vlm", "endpoint"]


OWN_FIELDS = frozenset({"messages", "model", "n", "stream"})
OWN_FIELDS_ADVICE = (
    "the model is endpoint.model, and each request holds one picture and wants one whole answer: leave it out"
)
"""Fields of a request that no recipe sets."""


class CaptionerSection(StrictModel):
    """Base of a captioner's own section."""

    how_it_runs: ClassVar[frozenset[str]] = frozenset()
    """Knobs that change how fast captions come, not what they say."""
    only_sampled: ClassVar[frozenset[str]] = frozenset()
    """Knobs that mean nothing unless `decoding` is 'sampled'."""
    newer: ClassVar[frozenset[str]] = frozenset()
    """Knobs that came later. They count only where they are set, so that captions from before stay up to date."""

    def knobs(self) -> dict[str, Any]:
        """The knobs that decide what a caption says."""
        left_out = set(self.how_it_runs)
        if getattr(self, "decoding", "sampled") != "sampled":
            left_out |= self.only_sampled
        left_out |= {name for name in self.newer if getattr(self, name) == type(self).model_fields[name].default}
        return {name: value for name, value in self.resolved().items() if name not in left_out}


class ShareCaptioner(CaptionerSection):
    """Share-Captioner, the captioner of PixArt-Σ."""

    how_it_runs = frozenset({"batch_size", "device", "gpu_memory_utilization"})
    newer = frozenset({"engine"})

    weights: str | None = None
    """Folder, or hub id (`org/name` or `org/name@commit`) in the local hub cache; nothing is downloaded. Null is the
    published one."""
    engine: Literal["transformers", "vllm"] = "transformers"
    """What writes the captions. `vllm` gives the place of a caption that has ended to the next picture, where a batch
    of transformers waits for its longest; it needs the extra `sigma-pipeline[vllm]` and has no `published` decoding."""
    decoding: Literal["published", "greedy", "sampled"] = "greedy"
    """`greedy` takes the likeliest token. `sampled` draws each, seeded per image. `published` is the authors' beam
    search with sampling, on `engine: transformers` alone, and the dearest by far (docs/captioning.md)."""
    rotary: Literal["reference", "exact"] = "reference"
    """`reference` takes the rotary frequencies as the checkpoint rounded them, as published captions were made."""
    dtype: Dtype = "auto"
    """Precision; `auto` is bf16 on a GPU and fp32 on a CPU."""
    device: Device = "auto"
    """auto, cpu, mps, cuda or cuda:N."""
    batch_size: Annotated[int, Field(ge=1)] | None = None
    """Pictures that the model reads at once. Null takes as many as the GPU has room for, at most 64, and 8 on a CPU;
    with `engine: vllm` it takes 256, and 32 on a CPU."""
    max_new_tokens: Annotated[int, Field(ge=1)] = 500
    """Longest caption, in the model's tokens."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the GPU's memory for `engine: vllm`; null takes what is free, less 8 % of the whole. Set it where
    workers share a GPU."""
    overrides: dict[ResamplerKey, bool | int | float | str] = {}
    """Keys of config.json to be taken instead of the file's, as `sigma captioner validate` prints them."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.engine == "vllm" and self.decoding == "published":
            raise ValueError(
                "engine vllm cannot decode as published: vLLM has no beam search that samples; set decoding=greedy or "
                "sampled, or engine=transformers"
            )
        return self


class Vlm(CaptionerSection):
    """Any image-text-to-text model of transformers: LLaVA, Qwen-VL, InternVL, Florence-2, BLIP-2 and their like."""

    how_it_runs = frozenset({"batch_size", "device"})
    only_sampled = frozenset({"temperature", "top_p"})

    weights: str | None = None
    """Folder, or hub id (`org/name` or `org/name@commit`) in the local hub cache; nothing is downloaded. Null is
    LLaVA-1.5-7B, the nearest to the LLaVA that captioned PixArt-α's data."""
    prompt: str | None = None
    """The prompt about each picture. Null is PixArt-α's question, or the prompt that a model without chat was trained
    on (Florence-2's task, nothing for BLIP). An empty text is no prompt."""
    max_new_tokens: Annotated[int, Field(ge=1)] = 512
    """Longest caption, in the model's tokens."""
    decoding: Literal["greedy", "sampled"] = "greedy"
    """`greedy` takes the likeliest token; `sampled` draws, seeded per image, so that a rerun draws the same."""
    temperature: Annotated[float, Field(gt=0, le=5)] = 0.2
    """Temperature of `sampled`; under 1 sharpens. PixArt-α used 0.2."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """`sampled` draws among the likeliest tokens that together have this probability."""
    batch_size: Annotated[int, Field(ge=1)] | None = None
    """Pictures that the model reads at once. Null takes as many as the GPU has room for, at most 64, and 8 on a CPU."""
    dtype: Dtype = "auto"
    """Precision; `auto` is bf16 on a GPU and fp32 on a CPU. In fp32 a caption does not depend on its batch."""
    device: Device = "auto"
    """auto, cpu, mps, cuda or cuda:N."""


class ChatSection(CaptionerSection):
    """A server with OpenAI's API, such as vLLM or SGLang, and how pictures are sent to it."""

    how_it_runs = frozenset({"url", "urls", "concurrency", "timeout_s", "retries", "backoff_s", "api_key_env"})
    newer = frozenset({"token_limit_field", "extra_body", "image_format"})

    url: str | None = None
    """Up to and with /v1: http://gpu-7:8000/v1."""
    urls: list[str] = []
    """Further servers of the same model. A request goes to the server with the fewest in flight; one that fails is left
    out for a while."""
    model: str | None = None
    """The model as the server names it."""
    max_tokens: Annotated[int, Field(ge=1)] = 512
    """Longest answer, in the model's tokens."""
    token_limit_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """The name under which `max_tokens` is sent; some servers want max_completion_tokens."""
    extra_body: dict[str, Any] = {}
    """Further fields of the request, as the server documents them: {chat_template_kwargs: {enable_thinking: false}}
    turns the thinking of Qwen models off. A null takes a field out of the request that sigma would send."""
    temperature: Annotated[float, Field(ge=0, le=5)] = 0.0
    """0 takes the likeliest token; above it draws, with a seed of the picture's own."""
    image_px: Annotated[int, Field(ge=32, le=8192)] = 1024
    """Longest side that is sent, in px; a smaller picture is sent as it is."""
    image_format: Literal["jpeg", "png"] = "jpeg"
    """What pictures are sent as; png is without loss, and several times as large."""
    jpeg_quality: Annotated[int, Field(ge=1, le=100)] = 90
    """Quality of the JPEG that is sent."""
    concurrency: Annotated[int, Field(ge=1, le=1024)] = 32
    """Requests in flight per worker, over all servers."""
    timeout_s: Annotated[float, Field(gt=0)] = 120.0
    """Longest wait for one answer, in s."""
    retries: Annotated[int, Field(ge=0, le=20)] = 5
    """Retries of a request after 429, 5xx, a timeout, a cut connection or an answer that is no JSON."""
    backoff_s: Annotated[float, Field(gt=0)] = 1.0
    """Wait before the first retry, in s; doubled each time up to a minute. A server's Retry-After goes first."""
    api_key_env: Annotated[str, matching("[A-Za-z_][A-Za-z0-9_]*", "the name of a variable")] | None = None
    """Name of the environment variable that holds the key. The key itself is in no recipe, table or log."""

    @field_validator("url")
    @classmethod
    def _plain_url(cls, url: str | None) -> str | None:
        return None if url is None else _checked_url(url)

    @field_validator("urls")
    @classmethod
    def _plain_urls(cls, urls: list[str]) -> list[str]:
        return [_checked_url(url) for url in urls]

    @field_validator("extra_body")
    @classmethod
    def _further(cls, extra: dict[str, Any]) -> dict[str, Any]:
        for name in sorted(extra.keys() & OWN_FIELDS):
            raise ValueError(f"{name} is not for it; {OWN_FIELDS_ADVICE}")
        try:
            json.dumps(extra, allow_nan=False)
        except (TypeError, ValueError):
            raise ValueError("only what JSON can hold can be sent: texts, numbers, true, false, null, lists") from None
        return extra

    def servers(self) -> list[str]:
        """The addresses of all servers, each once."""
        return list(dict.fromkeys([self.url, *self.urls] if self.url else self.urls))


class Endpoint(ChatSection):
    """The captioner `endpoint`."""

    prompt: Annotated[str, Field(min_length=1)] = "Describe this image and its style in a very detailed manner"
    """The prompt about each picture; the default is PixArt-α's."""


def _checked_url(url: str) -> str:
    url = url.strip()
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:  # reading a port checks it
        raise ValueError("write it as http://HOST:PORT/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("no key, user or query belongs in it; name the key's variable in api_key_env")
    return url.rstrip("/").removesuffix("/chat/completions")


class Caption(OnDevice):
    """Write a synthetic caption for every kept picture."""

    captioner: CaptionerName = "attributes"
    """`attributes` says what it measures in the picture (palette, light, framing), without weights; the others are
    models, each with a section below. Only the section of the chosen captioner counts; the others may be there."""
    beside: list[CaptionerName] = []
    """Further captioners, each of which captions the same pictures into the table `captions_beside/<captioner>`, to be
    compared; the mix takes none of theirs, and the sample's json holds them all."""
    max_failed_share: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Largest share of the pictures that may be left without a caption (failed, empty or refused) before the job stops
    at its end. The next run tries only these again."""
    price_per_gpu_hour: Annotated[float, Field(ge=0)] | None = None
    """Price of one GPU, in any currency, to show the cost of the captions so far; null shows none."""
    share_captioner: ShareCaptioner = ShareCaptioner()
    vlm: Vlm = Vlm()
    endpoint: Endpoint = Endpoint()

    @model_validator(mode="after")
    def _possible(self) -> Self:
        names = [self.captioner, *self.beside]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"captioner {twice} is named twice; each captioner writes once")
        if "endpoint" in names:
            for name, given in (("url", self.endpoint.servers()), ("model", self.endpoint.model)):
                if not given:
                    raise ValueError(f"captioner endpoint needs endpoint.{name}")
        return self

    def chosen(self) -> CaptionerSection:
        """The section of the captioner that is chosen; an empty one for `attributes`."""
        section = getattr(self, self.captioner, None)
        return section if isinstance(section, CaptionerSection) else CaptionerSection()

    def for_extra_captioner(self, captioner: CaptionerName) -> Caption:
        """This section with one of the extra captioners chosen."""
        return self.model_copy(update={"captioner": captioner, "beside": []})

    def knobs(self) -> dict[str, Any]:
        """The knobs that decide what a caption says, by dotted key: the captioner, and the knobs of the chosen one."""
        own = {f"{self.captioner}.{name}": value for name, value in self.chosen().knobs().items()}
        return {"captioner": self.captioner, **own}

    def num_workers(self) -> int | None:
        """Workers of the job; None leaves it to the runner."""
        return 1 if self.workers is None and self.captioner == "endpoint" else self.workers

    def model_device(self) -> str:
        """The knob `device` of the captioner that is chosen."""
        return getattr(self.chosen(), "device", "cpu")
