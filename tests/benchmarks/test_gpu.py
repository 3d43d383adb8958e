"""The GPU benchmark on a CPU with toy models: every section measures, and what fails or has no time is a row."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import __main__ as command
from benchmarks.gpu import running
from benchmarks.gpu.bench import Bench, Measurement, Row, that_fits
from training.timing import median_seconds

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
OURS_ALONE = (
    "pydantic", "pyarrow", "duckdb", "ray", "spacy", "cv2", "obstore", "skimage", "simplejpeg", "py3langid", "textblob",
    "webdataset", "img2dataset", "cykooz", "sentencepiece", "tensorboard", "accelerate", "starlette", "aiohttp",
)  # fmt: skip
"""Packages of ours that no machine with torch and transformers has to have."""


FOR_SOME_ROWS = ("diffusers", "transformers", "PIL", "yaml")
"""Packages without which there are still rows."""

RUN = f"""
import sys
sys.modules |= dict.fromkeys({(*OURS_ALONE, *FOR_SOME_ROWS)})
from pathlib import Path
import torch
from benchmarks.gpu import running
torch.set_num_threads(1)
assert running.planned(running.xl(torch.device("cpu")))
for package in {FOR_SOME_ROWS}:
    del sys.modules[package]
from benchmarks.gpu.encoders import random_clip, random_t5, random_vae
shapes = running.xl(torch.device("meta"))
models = (random_vae(shapes)._vae, random_t5(shapes)._model, random_clip(shapes)._model)
print("sizes", *(sum(parameter.numel() for parameter in model.parameters()) for model in models))
running.run(running.tiny(torch.device("cpu")), Path(sys.argv[1]))
"""


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> Path:
    """The results of all sections, on a machine that has nothing but what the benchmark needs."""
    out = tmp_path_factory.mktemp("gpu") / "out"
    ran = subprocess.run([sys.executable, "-c", RUN, str(out)], cwd=REPOSITORY, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    (out / "sizes").write_text(ran.stdout.splitlines()[0])
    return out


def rows_of(out: Path) -> list[Row]:
    return [json.loads(line) for line in (out / "results.jsonl").open()]


def test_every_section_measures(measured):
    rows = rows_of(measured)
    assert not [row for row in rows if "failed" in row]
    assert {row["not_run"] for row in rows if "not_run" in row} <= {"came_pytorch is not installed"}
    assert {row["section"] for row in rows} == {section.__name__ for section in running.SECTIONS}
    figures = {row["what"]: row for row in rows}
    assert figures["64 px, batch 3, against diffusers eager"]["ratio"] > 0
    assert figures["64 px, batch 3, compiled against eager"]["relative_difference"] < 1e-2
    assert figures["64 px, batch 3, compiled against eager"]["recompiled"] == 0
    assert figures["64 px, batch 3, compiled against eager"]["ratio_to_diffusers"] > 0
    saved = figures["KV compression, 64 px, 1 of 2 blocks"]
    assert 0 < saved["flops_saved"] < 0.5
    assert len([row for row in rows if row["section"] == "memory" and row["predicted_gib"] > 0]) == 3
    encoders = [row for row in rows if row["section"] in ("vae", "t5", "clip", "captioner", "drawing")]
    assert all(row.get("per_s", 1) > 0 for row in encoders) and len([row for row in encoders if "per_s" in row]) == 10
    limits = [row for row in rows if "limited_by" in row]
    assert len(limits) == 3 and all(0 < row["matrix_time"] < 1 for row in limits)


def test_the_encoders_have_the_published_sizes(measured):
    assert (measured / "sizes").read_text() == "sizes 83653863 4762310656 427616513"


def test_the_drift_from_came_pytorch_is_rounding(tmp_path):
    pytest.importorskip("came_pytorch", reason="make bench-peers")
    figures = {row["what"]: row for row in running.run(running.tiny(CPU), tmp_path, "came")}
    assert figures["CAME against came-pytorch"]["drift_after_100"] < 1e-6


def test_the_table_has_a_line_for_each_row(measured):
    lines = (measured / "table.md").read_text().splitlines()
    assert len(lines) == len(rows_of(measured)) + 2
    assert len({line.count(" | ") for line in lines if not line.startswith("|---")}) == 1
    sections = [line.split(" | ")[0] for line in lines[2:]]
    assert len([1 for a, b in pairwise(sections) if a != b]) == len({*sections}) - 1


def section_of(*makes: Callable[[], Row], cost_s: float = 1.0) -> Callable[[Bench], Iterator[Measurement]]:
    def section(_bench: Bench) -> Iterator[Measurement]:
        for place, make in enumerate(makes):
            yield Measurement("section", f"row {place}", cost_s, place, make)

    return section


def test_a_measurement_that_fails_is_a_row_and_the_others_go_on(tmp_path, monkeypatch):
    def too_large() -> Row:
        raise torch.OutOfMemoryError("tried to allocate 90 GiB")

    def no_peer() -> Row:
        import a_peer_that_is_not_installed  # noqa: F401

        return {}

    def renamed() -> Row:
        raise AttributeError("no such\nattribute")

    section = section_of(too_large, no_peer, renamed, lambda: {"ratio": 2.0, "drift": float("nan")})
    monkeypatch.setattr(running, "SECTIONS", (section,))
    memory, peer, other, fine = running.run(running.tiny(CPU), tmp_path)
    assert memory["failed"] == "out of memory: tried to allocate 90 GiB"
    assert peer["not_run"] == "a_peer_that_is_not_installed is not installed"
    assert other["failed"] == "AttributeError: no such attribute"
    assert (fine["what"], fine["ratio"]) == ("row 3", 2.0)
    assert [json.loads(line, parse_constant=pytest.fail) for line in (tmp_path / "results.jsonl").open()][3] == fine


def test_a_batch_that_does_not_fit_is_halved():
    def measure(batch: int) -> Row:
        if batch > 3:
            raise torch.OutOfMemoryError
        return {"pictures": batch}

    bench = running.tiny(CPU)
    assert that_fits(bench, 2, measure) == {"pictures": 2}
    assert that_fits(bench, 12, measure) == {"pictures": 3, "batch_that_fits": 3}
    with pytest.raises(torch.OutOfMemoryError):
        that_fits(bench, 1, lambda batch: measure(4))


def test_the_plan_fits_into_nine_minutes_with_a_row_of_each_section_in_the_first_five():
    plan = running.planned(running.xl(CPU))
    assert len({(each.section, each.what) for each in plan}) == len(plan)
    spent, early = 0.0, set()
    for each in plan:
        spent += each.cost_s
        if spent < 300:
            early.add(each.section)
    missing = {section.__name__ for section in running.SECTIONS} - early
    assert missing <= {"memory", "compiled_block"}
    assert sum(each.cost_s for each in plan if each.turn < 3) < 535


def test_nothing_begins_after_the_deadline_and_every_row_is_named(tmp_path):
    bench = running.tiny(CPU)
    rows = running.run(bench, tmp_path, deadline=time.monotonic() - 1)
    assert [row["what"] for row in rows] == [each.what for each in running.planned(bench)]
    assert {row["not_run"] for row in rows} == {"out of time"}


def test_what_no_longer_fits_is_left_out_and_what_does_is_measured(tmp_path, monkeypatch):
    sections = (section_of(dict, cost_s=30), section_of(dict, cost_s=1))
    monkeypatch.setattr(running, "SECTIONS", sections)
    long, short = running.run(running.tiny(CPU), tmp_path, deadline=time.monotonic() + running.RESERVE_S + 20)
    assert long["not_run"] == "out of time" and "not_run" not in short


def test_a_long_measurement_is_stopped_and_the_others_go_on(tmp_path, monkeypatch):
    def swallowing() -> Row:
        with suppress(Exception):  # as a compiler does
            time.sleep(30)
        return {}

    monkeypatch.setattr(running, "SHORTEST_S", 0.05)
    monkeypatch.setattr(running, "SECTIONS", (section_of(swallowing, partial(dict, ratio=1.0), cost_s=0.01),))
    stopped, fine = running.run(running.tiny(CPU), tmp_path, deadline=time.monotonic() + 60)
    assert stopped["failed"] == "stopped after 0 s" and stopped["took_s"] < 5
    assert fine["ratio"] == 1.0


def test_a_slower_device_is_taken_to_be_slower_for_all(tmp_path, monkeypatch):
    def section(_bench: Bench) -> Iterator[Measurement]:
        for place in range(4):
            yield Measurement("section", f"row {place}", 0.001, place, lambda: {"slept": time.sleep(0.1)})
        yield Measurement("section", "last", 1, 4, dict)

    monkeypatch.setattr(running, "SECTIONS", (section,))
    *others, last = running.run(running.tiny(CPU), tmp_path, deadline=time.monotonic() + running.RESERVE_S + 9)
    assert not [row for row in others if "not_run" in row] and last["not_run"] == "out of time"


def test_rows_are_whole_after_a_kill(tmp_path, monkeypatch):
    def kill() -> Row:
        os.kill(os.getpid(), signal.SIGKILL)
        return {}

    monkeypatch.setattr(running, "SECTIONS", (section_of(partial(dict, ratio=1.0), kill),))
    child = os.fork()
    if child == 0:
        running.run(running.tiny(CPU), tmp_path)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    (row,) = rows_of(tmp_path)
    assert row["what"] == "row 0"
    assert "| section | row 0 |" in (tmp_path / "table.md").read_text()


def test_the_command_names_what_it_needs_and_refuses_a_machine_without_a_gpu(capsys, tmp_path):
    with pytest.raises(SystemExit):
        command.main(["--help"])
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("diffusers", "came-pytorch", "pillow", "--tiny", "table.md"))
    if not torch.cuda.is_available():
        with pytest.raises(SystemExit):
            command.main(["--out", str(tmp_path)])
        assert "--device cpu --tiny" in capsys.readouterr().err


def test_no_further_run_is_begun_when_the_time_for_it_is_over():
    calls: list[int] = []

    def work() -> None:
        calls.append(1)
        sum(range(100_000))

    median_seconds(work, 3, CPU, most_s=0.0)
    assert len(calls) == 1 + 1, "one that is not counted, and one"
    calls.clear()
    median_seconds(work, 3, CPU)
    assert len(calls) == 1 + 3
