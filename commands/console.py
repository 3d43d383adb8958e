"""What a terminal shows while jobs run: a bar per job with rate and time left, a line per job where there is none."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.text import Text

from commands.tables import duration
from commands.terminal import handler_of
from curation.build import Observer
from engine.run_log import JobResult, throughput
from schemas.texts import counted

if TYPE_CHECKING:
    from curation.ingest.listing import Listed
    from training.train import StageProgress

QUIET_LINE_EVERY_S = 30.0
"""Seconds between two lines of progress where the output is a file."""


class RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if not speed else f"{speed:,.1f}/s", style="cyan")


class LeftColumn(ProgressColumn):
    """The time left, once there is something to tell it from."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        """The time left of a task; nothing before its first progress."""
        left = task.time_remaining if task.completed else None
        return Text("" if not left else f"{duration(left)} left", style="cyan")


@dataclass
class _Running:
    bar: TaskID
    begun: float
    steps: int = 0
    rows: int = 0
    total: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    def throughput(self, now: float) -> str:
        return throughput_text(throughput(self.counts, now - self.begun))

    def line(self, job: str, now: float) -> str:
        line = f"{job:<12} {self.rows:,} of {self.total:,}"
        if rate := self.rows / max(now - self.begun, 1e-9):  # before the first rows nobody knows
            line += f", {rate:,.1f}/s, {duration((self.total - self.rows) / rate)} left"
        return line + (f", {text}" if (text := self.throughput(now)) else "")


class JobProgress(Observer):
    """An `Observer` that draws; use it as a context."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bars = Progress(
            TextColumn("{task.description:<12}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            RateColumn(),
            LeftColumn(),
            TextColumn("{task.fields[throughput]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._running: dict[str, _Running] = {}
        self._spoke = 0.0
        self.seconds: dict[str, float] = {}
        """Wall-clock seconds by job, of the jobs that had something to do."""

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def listed(self, found: Listed) -> None:
        """Print how many inputs there are, and which other files were ignored."""
        beside = ", ".join(f"{count:,} {kind}" for kind, count in found.ignored.items())
        text = counted(found.num_inputs, "input") + (f" (not counted: {beside})" if beside else "")
        self.console.print(text, markup=False)  # an extension is never markup
        if found.links:
            links = ", ".join(f"{count:,} {where}" for where, count in found.links.items())
            self.console.print(f"inputs that are links: {links}", markup=False)

    def retried(self, rows: int) -> None:
        self.console.print(
            f"tried again: {counted(rows, 'input')}" if rows else "nothing failed that could succeed now"
        )

    def begin(self, job: str, rows: int) -> None:
        """Start a job's bar. Steps of the same job that run at once share one."""
        now = time.monotonic()
        if not self._running:
            self._spoke = now
        if job not in self._running:
            self._running[job] = _Running(self._bars.add_task(job, total=None, throughput=""), now)
        running = self._running[job]
        running.steps += 1
        running.total += rows
        self._bars.update(running.bar, total=running.total or None)

    def advance(self, job: str, rows: int, counts: Mapping[str, float] = {}, /) -> None:
        """Move the bar of a job; where there is none, write a line for each job now and then."""
        running, now = self._running[job], time.monotonic()
        running.rows += rows
        running.counts.update(counts)
        self._bars.update(running.bar, advance=rows, throughput=running.throughput(now))
        if not self.console.is_terminal and now - self._spoke > QUIET_LINE_EVERY_S:
            self._spoke = now
            for name, each in self._running.items():
                self.console.print(each.line(name, now))

    def end(self, job: str, result: JobResult | None) -> None:
        """Replace the bar by a line with the result."""
        if (running := self._running.get(job)) is not None:
            running.steps -= 1
            if not running.steps:
                self._bars.remove_task(self._running.pop(job).bar)
        if result is None:
            return
        self.seconds[job] = self.seconds.get(job, 0.0) + result.seconds
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in result.reasons.items())
        rate = f"{result.rows / result.seconds:,.0f}/s" if result.seconds else ""
        taken = result.parts - result.computed
        reused = f", {taken:,} of {result.parts:,} parts unchanged" if taken else ""
        table = result.tables[-1]
        self.console.print(
            f"[green]✓[/] {job:<12} {result.rows:>9,} rows of {table:<12} {duration(result.seconds):>8}  {rate:>9}"
            + (f"  [yellow]{reasons}[/]" if reasons else "")
            + reused
            + (f"  {text}" if (text := throughput_text(result.rates())) else ""),
            highlight=False,
            soft_wrap=True,
        )
        if job == "clean" and 0 < result.rows == result.reasons.get("no_raw_caption"):
            self.console.print("no input has a caption of its own: the mix will be all synthetic")


def throughput_text(rates: Mapping[str, float]) -> str:
    """What a captioning job has come to, as `engine.run_log.throughput` gives it; '' where nothing was counted."""
    if not rates.get("images_per_s"):
        return ""
    text = f"{rates['images_per_s']:,.1f} images/s, {rates['tokens_per_s']:,.0f} tokens/s"
    return text + (f", cost {rates['cost']:,.2f}" if "cost" in rates else "")


@contextmanager
def logging_to(console: Console, package: str) -> Iterator[None]:
    """Show what a package logs on the console, between its bars."""
    handler = handler_of(console)
    logger = logging.getLogger(package)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


@contextmanager
def stage_bars(console: Console) -> Iterator[Callable[[StageProgress], None]]:
    """Bars of a training run, one per stage; gives what is to be called with each report."""
    bars = Progress(
        TextColumn("{task.description:<18}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}  {task.fields[images_per_s]:,.0f} images/s"),
        LeftColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    tasks: dict[str, TaskID] = {}
    spoke = time.monotonic()

    def show(at: StageProgress) -> None:
        nonlocal spoke
        if at.stage not in tasks:
            tasks[at.stage] = bars.add_task(at.stage, total=at.total_steps, loss=at.loss, images_per_s=0.0)
        bars.update(tasks[at.stage], completed=at.step, loss=at.loss, images_per_s=at.images_per_s)
        now = time.monotonic()
        if not console.is_terminal and now - spoke > QUIET_LINE_EVERY_S:
            spoke = now
            console.print(
                f"{at.stage:<18} step {at.step:,} of {at.total_steps:,}, loss {at.loss:.3f}, "
                f"{at.images_per_s:,.0f} images/s"
            )

    with bars:
        yield show
