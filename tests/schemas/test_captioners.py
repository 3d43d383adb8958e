"""The recipe's section `caption`: one captioner is chosen, and only what shapes its captions counts."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.captioners import Caption
from schemas.recipe import DataRecipe

SERVER = {"url": "http://gpu-7:8000/v1/", "model": "qwen"}


def caption(**values: Any) -> Caption:
    return DataRecipe.from_mapping({"images": "a", "out": "b", "caption": values}).caption


def test_the_offline_captioner_has_one_knob() -> None:
    assert caption().knobs() == {"captioner": "attributes"}


def test_the_section_of_another_captioner_counts_for_nothing() -> None:
    settings = {"vlm": {"weights": "llava", "batch_size": 2}, "endpoint": SERVER}
    assert caption(**settings).knobs() == {"captioner": "attributes"}
    knobs = caption(captioner="endpoint", **settings).knobs()
    assert knobs["endpoint.model"] == "qwen"
    assert not any(name.startswith("vlm") for name in knobs)


@pytest.mark.parametrize(
    ("captioner", "knob", "value", "counts"),
    [
        ("vlm", "prompt", "Name it.", True),
        ("vlm", "max_new_tokens", 3, True),
        ("vlm", "dtype", "fp32", True),
        ("vlm", "decoding", "sampled", True),
        ("vlm", "temperature", 1.0, False),  # greedy has none
        ("vlm", "batch_size", 1, False),
        ("vlm", "device", "cpu", False),
        ("share_captioner", "rotary", "exact", True),
        ("share_captioner", "batch_size", 1, False),
        ("share_captioner", "gpu_memory_utilization", 0.4, False),
        ("endpoint", "model", "other", True),
        ("endpoint", "temperature", 1.0, True),
        ("endpoint", "image_px", 64, True),
        ("endpoint", "url", "https://elsewhere/v1", False),
        ("endpoint", "concurrency", 1, False),
        ("endpoint", "timeout_s", 1, False),
        ("endpoint", "api_key_env", "KEY", False),
    ],
)
def test_knobs_that_shape_a_caption_count_and_speed_knobs_do_not(
    captioner: str, knob: str, value: object, counts: bool
) -> None:
    usual = {"endpoint": SERVER}
    changed = {**usual, captioner: {**usual.get(captioner, {}), knob: value}}
    assert (caption(captioner=captioner, **usual).knobs() != caption(captioner=captioner, **changed).knobs()) == counts


def test_temperature_counts_where_captions_are_drawn() -> None:
    drawn = {"decoding": "sampled", "temperature": 1.0}
    assert caption(captioner="vlm", vlm=drawn).knobs()["vlm.temperature"] == 1.0


def test_a_knob_that_came_later_counts_where_it_is_set() -> None:
    """Captions from before there was another engine stay up to date."""
    usual, on_vllm = ({"decoding": "greedy", **engine} for engine in ({}, {"engine": "vllm"}))
    assert "share_captioner.engine" not in caption(captioner="share_captioner", share_captioner=usual).knobs()
    knobs = caption(captioner="share_captioner", share_captioner=on_vllm).knobs()
    assert knobs["share_captioner.engine"] == "vllm"
    set_to_usual = {**SERVER, "token_limit_field": "max_tokens", "extra_body": {}}
    assert caption(captioner="endpoint", endpoint=set_to_usual).knobs() == (
        caption(captioner="endpoint", endpoint=SERVER).knobs()
    )


def test_workers_and_gpus_count_for_nothing() -> None:
    assert caption(captioner="vlm", workers=7, gpus_per_worker=1).knobs() == caption(captioner="vlm").knobs()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"captioner": "endpoint"}, "captioner endpoint needs endpoint.url"),
        ({"captioner": "endpoint", "endpoint": {"url": "http://a/v1"}}, "captioner endpoint needs endpoint.model"),
        ({"endpoint": {"url": "gpu-7:8000"}}, "caption.endpoint.url: write it as http://HOST:PORT/v1"),
        ({"endpoint": {"url": "http://a:99999/v1"}}, "caption.endpoint.url: port out of range"),
        ({"endpoint": {"urls": ["http://a:8000/v1", "http://a:80O0/v1"]}}, "caption.endpoint.urls: port could not be"),
        ({"endpoint": {"url": "http://a:0/v1"}}, "caption.endpoint.url: write it as http://HOST:PORT/v1"),
        ({"endpoint": {"url": "http://me:secret@a/v1"}}, "no key, user or query belongs in it"),
        ({"vlm": {"promt": "x"}}, "unknown key 'caption.vlm.promt'; did you mean 'prompt'?"),
        ({"vlm": {"temperature": 0}}, "caption.vlm.temperature"),
        ({"vlm": {"device": "tpu"}}, "caption.vlm.device"),
        ({"captioner": "poet"}, "caption.captioner"),
        (
            {"share_captioner": {"engine": "vllm", "decoding": "published"}},
            "caption.share_captioner: engine vllm cannot decode as published: vLLM has no beam search that samples",
        ),
        ({"share_captioner": {"gpu_memory_utilization": 0}}, "caption.share_captioner.gpu_memory_utilization"),
        ({"gpus_per_worker": 1.5}, "caption.gpus_per_worker: above 1 it is a whole number (got 1.5)"),
    ],
)
def test_the_impossible_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as refused:
        caption(**values)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    "url", ["http://a:1/v1", "http://a:1/v1/", " http://a:1/v1 ", "http://a:1/v1/chat/completions"]
)
def test_a_url_is_taken_however_it_begins_and_ends(url: str) -> None:
    assert caption(endpoint={"url": url}).endpoint.url == "http://a:1/v1"


def test_gpus_are_taken_where_a_model_runs_here() -> None:
    assert caption().num_gpus() == 0
    assert caption(captioner="vlm").num_gpus() is None
    assert caption(captioner="vlm", vlm={"device": "cpu"}).num_gpus() == 0
    assert caption(captioner="vlm", gpus_per_worker=0.5).num_gpus() == 0.5
    assert caption(captioner="endpoint", endpoint=SERVER).num_gpus() == 0


def test_one_worker_suffices_for_a_server() -> None:
    assert caption(captioner="endpoint", endpoint=SERVER).num_workers() == 1
    assert caption(captioner="endpoint", endpoint=SERVER, workers=3).num_workers() == 3
    assert caption(captioner="vlm").num_workers() is None


@pytest.mark.parametrize(
    ("gpus", "given", "device"),
    [(None, "auto", "auto"), (1, "auto", "cuda"), (0, "auto", "cpu"), (0, "cuda:1", "cuda:1"), (1, "cpu", "cpu")],
)
def test_an_automatic_device_follows_gpus_per_worker(gpus: float | None, given: str, device: str) -> None:
    chosen = caption(captioner="vlm", vlm={"device": given}, gpus_per_worker=gpus)
    assert chosen.chosen_device() == device
