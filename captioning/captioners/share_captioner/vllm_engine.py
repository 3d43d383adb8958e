"""Starts vLLM on a folder of a Llama, feeds it prompts as embeddings, and takes the ids that it has written."""

from __future__ import annotations

import os
import warnings
import weakref
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import torch
from torch import Tensor

from captioning.captioners.base import CaptionerUnusable, CaptionFailure
from captioning.captioners.share_captioner.generation import Decoding
from models.weights import one_line, quiet, read_json

LEFT_FREE = 0.08
"""Share of a GPU's memory that vLLM is not given: for the vision tower's work, and for the graphs that vLLM records."""

ENVIRONMENT = {
    # In this process: the memory of the GPU is free again when the process ends, however it ends.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",  # nothing is sent
    "HF_HUB_OFFLINE": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
}
"""What vLLM reads from the environment; a variable that is set already is left as it is."""

Written = Sequence[int] | CaptionFailure
"""The ids of a caption, or why it has none."""


class LanguageEngine(Protocol):
    """Writes captions for prompts, each as soon as it ends."""

    def add(self, name: str, prompt: Tensor, seed: int) -> None:
        """Take a prompt, (L, hidden). Raises ValueError: the engine refuses it."""

    def step(self) -> Sequence[tuple[str, Written]]:
        """Write one more token of every caption; returns those that have ended. Raises CaptionerUnusable: it has
        failed."""

    def drop(self, names: Collection[str]) -> None:
        """Forget prompts whose captions nobody waits for."""

    def close(self) -> None:
        """Free what the engine holds."""


class VllmEngine:
    """vLLM in this process. A prompt is embeddings alone, so it needs no tokenizer."""

    def __init__(
        self,
        folder: Path,
        decoding: Decoding,
        stops: Sequence[int],
        *,
        dtype: torch.dtype,
        device: torch.device,
        at_once: int,
        prompt_length: int,
        memory_share: float | None = None,
    ) -> None:
        """Load the language model of a folder, a `LlamaForCausalLM`. `stops`: the ids after which a caption is
        complete; without any, each is as long as may be. `at_once`: captions written at once, where memory has room.
        `prompt_length`: of every prompt. `memory_share`: of the GPU, for vLLM; None takes what is free, less
        `LEFT_FREE`. Raises ValueError: vLLM cannot be imported or is for another device, or there is no room."""
        vllm = _imported(device)
        self._embeds, self._errors = vllm.embeds_input, (vllm.VLLMError, RuntimeError, ValueError)
        self._sampling = _sampling(vllm.SamplingParams, vllm.RequestOutputKind, decoding, stops)
        length, on_cpu = prompt_length + decoding.max_new_tokens, device.type == "cpu"
        room = _room_on_cpu(folder, dtype, at_once, length) if on_cpu else _share_of_gpu(device, memory_share)
        arguments = vllm.EngineArgs(
            model=str(folder),
            skip_tokenizer_init=True,
            enable_prompt_embeds=True,
            enable_prefix_caching=False,  # no two pictures begin alike
            generation_config="vllm",
            dtype=str(dtype).removeprefix("torch."),
            max_model_len=length,
            max_num_seqs=at_once,
            enforce_eager=on_cpu,  # compiling takes longer than a test
            disable_log_stats=True,
            use_tqdm_on_load=False,
            **room,
        )
        try:
            with quiet(), warnings.catch_warnings():  # transformers would have longrope written in another way
                warnings.simplefilter("ignore", FutureWarning)
                self._engine = vllm.LLMEngine.from_engine_args(arguments)
        except self._errors as error:
            raise ValueError(
                f"caption.share_captioner.engine=vllm cannot start on {device}: {one_line(error)}; it wants about 17 "
                "GB for the weights and 0.2 to 0.4 GB per caption: free the GPU of other programs, or set "
                "caption.share_captioner.gpu_memory_utilization or batch_size"
            ) from None
        self.close = weakref.finalize(self, self._engine.engine_core.shutdown)

    def add(self, name: str, prompt: Tensor, seed: int) -> None:
        try:
            self._engine.add_request(name, self._embeds(prompt), self._sampling(seed=seed))
        except self._errors as error:
            raise ValueError(f"vLLM refuses the prompt: {one_line(error)}") from None

    def step(self) -> list[tuple[str, Written]]:
        try:
            requests = self._engine.step()
        except self._errors as error:
            raise CaptionerUnusable(
                f"vLLM has failed ({one_line(error)}); the same command goes on from here"
            ) from error
        return [(request.request_id, _written(request.outputs[0])) for request in requests if request.finished]

    def drop(self, names: Collection[str]) -> None:
        self._engine.abort_request(list(names))

    @property
    def num_running(self) -> int:
        """Captions that the last step wrote at."""
        return len(self._engine.engine_core.engine_core.scheduler.running)


def _imported(device: torch.device) -> SimpleNamespace:
    """What is used of vLLM. Raises ValueError: it cannot be imported, or is one for another device."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        from vllm import EngineArgs, SamplingParams
        from vllm.exceptions import VLLMError
        from vllm.inputs.engine import embeds_input
        from vllm.platforms import current_platform
        from vllm.sampling_params import RequestOutputKind
        from vllm.v1.engine.llm_engine import LLMEngine
    except (ImportError, OSError) as error:
        raise ValueError(
            f"caption.share_captioner.engine=vllm: vllm cannot be imported ({one_line(error)}); install it with "
            "constraints of its own: `pip install 'sigma-pipeline[vllm]' -c constraints-vllm.txt`"
        ) from None
    if current_platform.is_cpu() != (device.type == "cpu"):
        raise ValueError(
            f"caption.share_captioner.device is {device.type}, and this vllm is one for "
            f"{current_platform.device_type or 'no device of this machine'}; set device=auto or install the other"
        )
    return SimpleNamespace(
        EngineArgs=EngineArgs,
        SamplingParams=SamplingParams,
        VLLMError=VLLMError,
        embeds_input=embeds_input,
        RequestOutputKind=RequestOutputKind,
        LLMEngine=LLMEngine,
    )


def _sampling(kind: Any, when: Any, decoding: Decoding, stops: Sequence[int]) -> Callable[..., Any]:
    """Makes vLLM's settings of a caption from its seed."""
    drawn = {"temperature": 1.0, "top_k": decoding.top_k} if decoding.mode == "sampled" else {"temperature": 0.0}
    return partial(
        kind,
        **drawn,
        repetition_penalty=decoding.repetition_penalty,
        max_tokens=decoding.max_new_tokens,
        min_tokens=1 if stops else 0,
        stop_token_ids=list(stops),
        ignore_eos=True,  # the stops have it where it counts
        detokenize=False,
        output_kind=when.FINAL_ONLY,
    )


def _written(output: Any) -> Written:
    if output.finish_reason not in ("stop", "length"):
        return CaptionFailure(f"vLLM ended it with {output.finish_reason!r}")
    return list(output.token_ids)


def _share_of_gpu(device: torch.device, given: float | None) -> dict[str, float]:
    """vLLM's knob for the memory of a GPU, where the vision tower is already."""
    torch.cuda.empty_cache()  # else vLLM takes for its own what is freed while it measures
    if given is None:
        free, whole = torch.cuda.mem_get_info(device)
        given = max(0.01, round(free / whole - LEFT_FREE, 3))
    return {"gpu_memory_utilization": given}


def _room_on_cpu(folder: Path, dtype: torch.dtype, at_once: int, length: int) -> dict[str, int]:
    """vLLM's knob for the key-value cache on a CPU: as many bytes as all captions can need."""
    config = read_json(folder / "config.json")
    of_token = 2 * config["num_hidden_layers"] * config["hidden_size"] * dtype.itemsize
    return {"kv_cache_memory_bytes": (at_once + 1) * (length + 256) * of_token}
