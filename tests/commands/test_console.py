from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from commands import console
from commands.console import JobProgress, stage_bars, throughput_text
from commands.tables import duration, ledger_table, rows_table
from curation.ingest.listing import Listed
from engine.run_log import JobResult, throughput


def paper(terminal: bool = False, width: int = 160) -> Console:
    return Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None)


def text_of(shown: Console) -> str:
    assert isinstance(shown.file, io.StringIO)
    return shown.file.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (1.44, "1.4 s"),
        (59.94, "59.9 s"),
        (59.97, "1 min 00 s"),
        (60, "1 min 00 s"),
        (192, "3 min 12 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 00 min"),
        (18_180, "5 h 03 min"),
        (360_000, "100 h 00 min"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def result(**more: Any) -> JobResult:
    values: dict[str, Any] = {
        "job": "ingest",
        "tables": ("proxies", "images"),
        "parts": 3,
        "computed": 3,
        "rows": 12_000,
    }
    return JobResult(**(values | {"seconds": 4.0} | more))


def test_a_job_that_ended_is_one_line() -> None:
    shown = paper()
    with JobProgress(shown) as progress:
        progress.begin("ingest", 12_000)
        progress.advance("ingest", 12_000)
        progress.end("ingest", result(reasons={"empty": 3, "truncated": 1_200}, computed=2))
        progress.end("select", None)
    (line,) = text_of(shown).splitlines()
    assert " ".join(line.split()) == (
        "✓ ingest 12,000 rows of images 4.0 s 3,000/s 3 empty, 1,200 truncated, 1 of 3 parts unchanged"
    )
    assert progress.seconds == {"ingest": 4.0}


def test_inputs_without_captions_are_said_to_make_an_all_synthetic_mix() -> None:
    shown = paper()
    with JobProgress(shown) as progress:
        progress.end("clean", result(reasons={"no_raw_caption": 11_999}))
    assert "synthetic" not in text_of(shown)
    with JobProgress(shown) as progress:
        progress.end("clean", result(reasons={"no_raw_caption": 12_000}))
    assert text_of(shown).endswith("no input has a caption of its own: the mix will be all synthetic\n")


def test_seconds_of_a_job_with_two_tables_add_up() -> None:
    with JobProgress(paper()) as progress:
        progress.end("shard", result(seconds=1.5))
        progress.end("shard", result(seconds=0.0))
    assert progress.seconds == {"shard": 1.5}


def test_what_lies_beside_the_inputs_is_said_and_is_no_markup() -> None:
    shown = paper()
    progress = JobProgress(shown)
    progress.listed(Listed(1234, 0, {"txt (captions)": 1200, "[red]": 1, "[/oops": 2}))
    progress.listed(Listed(1, 0, {}))
    assert text_of(shown) == "1,234 inputs (not counted: 1,200 txt (captions), 1 [red], 2 [/oops)\n1 input\n"
    progress.listed(Listed(9, 9, {}, {"to files of the folder": 4, "to no file": 1}))
    assert text_of(shown).endswith("9 inputs\ninputs that are links: 4 to files of the folder, 1 to no file\n")


def test_a_file_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(console.time, "monotonic", lambda: clock.now)
    shown = paper()
    with JobProgress(shown) as progress:
        progress.begin("caption", 1000)
        for clock.now in (10.0, 20.0, 31.0, 40.0, 62.0):
            progress.advance("caption", 100)
    assert [" ".join(line.split()) for line in text_of(shown).splitlines()] == [
        "caption 300 of 1,000, 9.7/s, 1 min 12 s left",
        "caption 500 of 1,000, 8.1/s, 1 min 02 s left",
    ]


def test_each_job_in_progress_has_its_own_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(console.time, "monotonic", lambda: clock.now)
    shown = paper()
    with JobProgress(shown) as progress:
        progress.begin("ingest", 1000)
        clock.now = 20.0
        progress.advance("ingest", 400)
        progress.begin("aesthetic", 1000)
        clock.now = 40.0
        progress.advance("aesthetic", 100)
        progress.end("ingest", result(rows=1000, seconds=50.0))
        clock.now = 80.0
        progress.advance("aesthetic", 200)
    assert [" ".join(line.split()) for line in text_of(shown).splitlines()] == [
        "ingest 400 of 1,000, 10.0/s, 1 min 00 s left",
        "aesthetic 100 of 1,000, 5.0/s, 3 min 00 s left",
        "✓ ingest 1,000 rows of images 50.0 s 20/s",
        "aesthetic 300 of 1,000, 5.0/s, 2 min 20 s left",
    ]


def test_a_terminal_gets_a_bar_for_each_job_and_one_for_captioners_at_once() -> None:
    shown = paper(terminal=True)
    with JobProgress(shown) as progress:
        for job, rows in (("caption", 10), ("caption", 30), ("mix", 20)):
            progress.begin(job, rows)
        progress.advance("caption", 4)
        progress.advance("mix", 2)
        assert [(bar.description, bar.completed, bar.total) for bar in progress._bars.tasks] == [
            ("caption", 4, 40),
            ("mix", 2, 20),
        ]
        progress.end("caption", result(job="caption"))
        assert len(progress._bars.tasks) == 2, "the other captioner goes on"
        progress.end("caption", result(job="caption"))
        assert [bar.description for bar in progress._bars.tasks] == ["mix"]
    assert progress.seconds == {"caption": 8.0}


def test_time_left_is_not_shown_before_anybody_knows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(console.time, "monotonic", lambda: clock.now)
    shown, drawn = paper(), paper(terminal=True)
    with JobProgress(shown) as progress, JobProgress(drawn) as bars:
        progress.begin("caption", 1000)
        bars.begin("caption", 1000)
        clock.now = 31.0
        progress.advance("caption", 0, {"gpu_workers": 1.0})
        bars.advance("caption", 0)
        bars._bars.refresh()
    assert text_of(shown).split() == ["caption", "0", "of", "1,000"]
    assert "0/1000" in text_of(drawn) and "left" not in text_of(drawn) and "-:--" not in text_of(drawn)


def test_a_terminal_gets_a_bar_with_rate_and_time_left() -> None:
    shown = paper(terminal=True)
    with JobProgress(shown) as progress:
        progress.begin("caption", 10)
        for _ in range(5):
            progress.advance("caption", 1)
        progress._bars.refresh()
        seen = text_of(shown)
    assert "caption" in seen
    assert " 5/10 " in seen
    assert "/s" in seen


def test_the_ledger_ends_with_its_sum() -> None:
    shown = paper()
    counts = [("kept", None, None, 1500), ("rejected", "select", "too_small", 2), ("error", "ingest", "empty", 1)]
    shown.print(ledger_table([*counts, ("pending", "mix", None, 4)], 1507))
    assert [line.split() for line in text_of(shown).splitlines()] == [
        ["Ledger"],
        ["outcome", "stage", "reason", "count"],
        ["kept", "1,500"],
        ["rejected", "select", "too_small", "2"],
        ["error", "ingest", "empty", "1"],
        ["pending", "mix", "4"],
        ["inputs", "1,507"],
    ]


def test_data_is_shown_as_it_is_and_never_as_markup() -> None:
    shown = paper()
    rows = [("[bold]cat[/]", None), ("[/nothing]", 3.5), ("😀 :smile:", b"\x00"), ("", True)]
    shown.print(rows_table(["[red]caption[/]", "value"], rows))
    lines = [line.rstrip() for line in text_of(shown).splitlines()]
    assert [line.split() for line in lines] == [
        ["[red]caption[/]", "value"],
        ["[bold]cat[/]", "NULL"],
        ["[/nothing]", "3.5"],
        ["😀", ":smile:", "b'\\x00'"],
        ["True"],
    ]


def test_training_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(console.time, "monotonic", lambda: clock.now)
    shown = paper()
    with stage_bars(shown) as show:
        for clock.now, step in ((1.0, 10), (31.0, 20), (32.0, 30)):
            show(SimpleNamespace(stage="align-256", step=step, total_steps=1000, loss=0.1234, images_per_s=1234.5))
    assert [" ".join(line.split()) for line in text_of(shown).splitlines()] == [
        "align-256 step 20 of 1,000, loss 0.123, 1,234 images/s"
    ]


def test_captions_show_images_tokens_and_cost() -> None:
    shown = paper()
    counts = {"images": 40.0, "tokens": 4_000.0, "model_s": 9.0, "worker_s": 10.0, "gpu_s": 10.0, "cost": 1.5}
    with JobProgress(shown) as progress:
        progress.begin("caption", 40)
        progress.advance("caption", 40, counts)
        progress.end("caption", result(job="caption", tables=("captions",), rows=40, counts=counts))
    (line,) = text_of(shown).splitlines()
    assert line.endswith("10.0 images/s, 1,000 tokens/s, cost 1.50")


def test_throughput_is_of_all_workers_together() -> None:
    counts = {"images": 40.0, "tokens": 4_000.0, "model_s": 18.0, "worker_s": 20.0, "gpu_s": 20.0}
    assert throughput(counts, 10.0) == {
        "images_per_s": 4.0,
        "tokens_per_s": 400.0,
        "model_share": 0.9,
        "gpu_hours": 20 / 3600,
    }
    assert throughput({}, 10.0) == {} and throughput_text({}) == ""
