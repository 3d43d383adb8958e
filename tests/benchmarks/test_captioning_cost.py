"""The cost of captioning by formula: the documentation has its table, and its limits are those of the device."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import captioning_cost
from benchmarks.captioning_cost import GPUS, QWEN, SHARE_CAPTIONER, Choice, images_per_s

H100 = GPUS["h100"]


def test_the_documentation_has_the_tables() -> None:
    docs = (Path(__file__).parents[2] / "docs" / "captioning.md").read_text()
    assert "\n".join(captioning_cost.table(H100)) in docs
    assert "\n".join(captioning_cost.served_table(H100)) in docs
    assert f"room for {captioning_cost.room(H100)} captions" in docs


def test_the_limit_is_the_bandwidth_where_few_are_in_flight() -> None:
    one = Choice("vllm", "greedy, sampled", 1)
    of_token = H100.bytes_per_s / (SHARE_CAPTIONER.weights + SHARE_CAPTIONER.cached * (SHARE_CAPTIONER.prompt + 90))
    assert images_per_s(one, H100, limit=True) == pytest.approx(of_token / 180, rel=0.05)
    many = Choice("vllm", "greedy, sampled", 10**6)
    assert images_per_s(many, H100, limit=True) < H100.flop_per_s / SHARE_CAPTIONER.prompt_flop


def test_the_sizes_are_those_of_the_models() -> None:
    assert SHARE_CAPTIONER.weights == pytest.approx(13.8e9, rel=0.01)
    assert SHARE_CAPTIONER.cached == 2 * 2 * 32 * 4096 and SHARE_CAPTIONER.prompt == 282
    assert QWEN.weights == pytest.approx(2 * (7.62e9 - 152_064 * 3584), rel=0.01), "without the embeddings"
    assert QWEN.cached == 2 * 2 * 28 * 4 * 128


def test_a_static_batch_runs_to_its_longest_caption() -> None:
    assert captioning_cost.longest_of(1) == 180
    assert captioning_cost.longest_of(64) == pytest.approx(180 + 2.4 * 40, rel=0.02)
    beams, greedy = (Choice("transformers", name, 16) for name in ("published", "greedy, sampled"))
    assert images_per_s(beams, H100) < images_per_s(greedy, H100) < images_per_s(Choice("vllm", "", 16), H100)


def test_the_command_prints_another_gpu(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["captioning_cost", "--gpu", "a100", "--price", "1", "--pictures", "1000000"])
    captioning_cost.main()
    shown = capsys.readouterr().out
    assert shown.startswith("1,000,000 pictures on A100 80 GB at 1.0 an hour, 180 tokens a caption")
    assert shown.count("| vllm |") == 3 and shown.count("rented") == 2
