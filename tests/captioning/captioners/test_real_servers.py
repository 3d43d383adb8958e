"""The captioner `endpoint` at servers that people run, each with a tiny model. `make test-vllm` has them."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image

from captioning.captioners.base import CaptionerUnusable, CaptionFailure, Generated
from captioning.captioners.endpoint import EndpointCaptioner
from captioning.recaption import Recaptioner
from schemas.captioners import Endpoint
from tests.captioning import tiny_models
from tests.captioning.questions import asked

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vllm is not installed: make test-vllm"),
]
MAX_MODEL_LEN = 256
TOKENS = 24
VLLM = [
    *("-m", "vllm.entrypoints.openai.api_server", "--model", "{folder}", "--served-model-name", "tiny"),
    *("--port", "{port}", "--host", "127.0.0.1", "--max-model-len", str(MAX_MODEL_LEN), "--dtype", "float32"),
    *("--enforce-eager", "--gpu-memory-utilization", "0.15", "--max-num-seqs", "16"),
]
TRANSFORMERS = ["-m", "transformers.cli.transformers", "serve", "{folder}", "--port", "{port}", "--host", "127.0.0.1"]
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "OMP_NUM_THREADS": "1",
}


class Served:
    """A server in a process of its own: its address, and the name of its model."""

    def __init__(self, command: list[str], folder: Path, log: Path, model: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        told = [word.format(folder=folder, port=port) for word in command]
        self.url, self.model, self.log = f"http://127.0.0.1:{port}/v1", model, log
        self.process = subprocess.Popen(
            [sys.executable, *told],
            stdout=log.open("w"),
            stderr=subprocess.STDOUT,
            env=os.environ | ENVIRONMENT,
            start_new_session=True,
        )

    def wait(self) -> None:
        """Until it listens; a model takes it a minute."""
        deadline = time.monotonic() + 150
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            try:
                with urllib.request.urlopen(f"{self.url}/models", timeout=5):
                    return
            except urllib.error.HTTPError:  # transformers without a hub cache fails at its list of models
                return
            except OSError:
                time.sleep(0.5)
        raise AssertionError(self.log.read_text()[-3000:])

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="module", params=["vllm", "transformers"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "vllm":  # its attention takes heads of 32 and more on a CPU
        model = tiny_models.blip2(folder / "tiny", width=128)
        server = Served(VLLM, model, folder / "log", "tiny")
    else:
        model = tiny_models.llava(folder / "tiny")
        server = Served(TRANSFORMERS, model, folder / "log", str(model))
    try:
        server.wait()
        yield server
    finally:
        server.stop()


def captioner(served: Served, **knobs: Any) -> EndpointCaptioner:
    section = {"url": served.url, "model": served.model, "max_tokens": TOKENS, "concurrency": 4, "retries": 1}
    return EndpointCaptioner(Endpoint.from_mapping(section | knobs))


def test_real_photographs_are_captioned(
    served: Served,
    photos: dict[str, Image.Image],
    part: Callable[..., pa.Table],
    jpeg: Callable[[Image.Image], bytes],
    image_ids: Callable[[int], list[str]],
) -> None:
    pictures = list(photos.values())
    answers = asked(captioner(served), pictures, range(len(pictures)))
    assert all(isinstance(answer, Generated) and answer.text for answer in answers), answers
    assert len({answer.text for answer in answers if isinstance(answer, Generated)}) > 1, "it looks at the pictures"
    assert answers == asked(captioner(served), pictures, range(len(pictures))), "greedy says the same again"

    ids = image_ids(len(pictures))
    inputs = {
        "proxies": part("proxies", image_id=ids, jpeg=[jpeg(picture) for picture in pictures]),
        "selection": part("selection", image_id=ids, kept=[True] * len(ids)),
    }
    worker = Recaptioner(lambda: captioner(served, concurrency=2), 1, languages=None, max_failed_share=1)
    table = worker(inputs, lambda *_: None)["captions"]
    assert "captioner_failed" not in table["reason"].to_pylist(), "words of random weights, but answers"
    if "vllm" in served.log.parent.name:
        assert all((revision or "").startswith("vllm-") for revision in table["revision"].to_pylist())
        assert {number for number in table["num_tokens"].to_pylist() if number is not None} <= set(range(TOKENS + 1))


def test_another_seed_writes_another_text_and_the_same_one_the_same(served: Served) -> None:
    if "vllm" not in served.log.parent.name:
        pytest.skip("transformers serve draws from one generator for all requests")
    picture = Image.new("RGB", (64, 48), (200, 120, 40))
    drawn = captioner(served, temperature=1.0)
    answers = asked(drawn, [picture] * 8, [1, 2, 3, 4, 1, 2, 3, 4])
    texts = [answer.text for answer in answers if isinstance(answer, Generated)]
    assert texts[:4] == texts[4:] and len(set(texts)) > 1


def test_a_mistake_in_the_recipe_stops_before_the_first_picture(served: Served) -> None:
    picture = [Image.new("RGB", (64, 48))]
    with pytest.raises(CaptionerUnusable, match="404"):
        asked(captioner(served, url=served.url.removesuffix("/v1")), picture, [0])
    if "vllm" in served.log.parent.name:  # the other takes every name for the model that it was started with
        with pytest.raises(CaptionerUnusable, match=r"no model other; .* tiny"):
            asked(captioner(served, model="other"), picture, [0])
        with pytest.raises(CaptionerUnusable, match=f"{MAX_MODEL_LEN} tokens"):
            asked(captioner(served, max_tokens=5000), picture, [0])
        (answer,) = asked(captioner(served, max_tokens=MAX_MODEL_LEN - 1), picture, [0])
        assert isinstance(answer, Generated) and not answer.ended, "what the prompt leaves is less, and vLLM says so"


def test_fields_of_the_request_are_taken(served: Served) -> None:
    picture = [Image.new("RGB", (64, 48))]
    if "vllm" in served.log.parent.name:
        extra = {"chat_template_kwargs": {"enable_thinking": False}, "top_p": 0.9, "seed": None}
        (answer,) = asked(
            captioner(served, extra_body=extra, token_limit_field="max_completion_tokens", max_tokens=5), picture, [0]
        )
        assert isinstance(answer, Generated) and answer.num_tokens is not None and answer.num_tokens <= 5
    else:
        (answer,) = asked(captioner(served, extra_body={"top_p": 0.9}), picture, [0])
        assert not isinstance(answer, CaptionFailure)
    assert json.dumps(answer.text)
