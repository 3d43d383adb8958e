"""Metrics: lines that a resumed run will write again are cut off, and a torn last line is no error."""

from __future__ import annotations

import math

from training.metrics import METRICS_FILE, Metrics, read_metrics, smoothed_ends


def test_lines_after_the_resumed_step_are_cut(tmp_path):
    metrics = Metrics(tmp_path, 0)
    for step in (2, 4, 6):
        metrics.write(step, {"loss": 1 / step})
    metrics.close()
    with (tmp_path / METRICS_FILE).open("a") as file:
        file.write('{"step": 8, "lo')
    assert [line["step"] for line in read_metrics(tmp_path)] == [2, 4, 6]
    again = Metrics(tmp_path, 4)
    again.write(6, {"loss": 0.5})
    again.sync()
    again.close()
    assert [(line["step"], line["loss"]) for line in read_metrics(tmp_path)] == [(2, 0.5), (4, 0.25), (6, 0.5)]
    assert list((tmp_path / "tensorboard").iterdir())


def test_ends_are_means_of_a_tenth(tmp_path):
    lines = [{"step": i, "loss": float(i)} for i in range(20)]
    assert smoothed_ends(lines) == (0.5, 18.5)
    assert all(math.isnan(value) for value in smoothed_ends([]))
    assert read_metrics(tmp_path) == []
