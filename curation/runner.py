"""What runs the parts of a stage: the protocol, its errors, and the runner that stays in this process."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from curation.dataset import Dataset
from curation.stage import Stage, Worker, run_part


class PartFailed(Exception):
    """A part could not be computed; finished parts stay."""

    def __init__(self, job: str, part: int, cause: BaseException) -> None:
        self.job, self.part, self.cause = job, part, cause
        super().__init__(f"{job} stopped at part {part}{_where(cause)}: {describe(cause)}")


def describe(error: BaseException) -> str:
    """An error in one line, with what to do about the ones a user can mend."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "no space left on the disk; free some and run the same command again, finished parts stay"
    text = " ".join(str(error).split())
    if isinstance(error, ValueError | OSError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _where(error: BaseException) -> str:
    notes = [note.removeprefix("image: ") for note in getattr(error, "__notes__", []) if note.startswith("image: ")]
    return f" (image {notes[0]})" if notes else ""


@dataclass(frozen=True)
class PartDone:
    """A committed part."""

    number: int
    computed: bool
    """False where an outdated version was taken over unchanged."""


class Runner(Protocol):
    """Runs parts of stages; `close` frees what it holds."""

    def run(
        self, dataset: Dataset, stage: Stage, parts: Sequence[int], on_rows: Callable[[int], None]
    ) -> list[PartDone]:
        """Compute and commit the parts.

        Args:
            on_rows: called with the number of rows finished since the last call.

        Raises:
            PartFailed: the first real error, with the part and the image it happened on.
        """
        ...

    def close(self) -> None:
        """Free workers and connections."""
        ...


class LocalRunner:
    """Runs every part in this process, one after the other; `workers` and `num_gpus` of a stage say nothing here."""

    def run(
        self, dataset: Dataset, stage: Stage, parts: Sequence[int], on_rows: Callable[[int], None]
    ) -> list[PartDone]:
        """See `Runner.run`."""
        worker = once(stage.build)
        done = []
        for number in parts:
            try:
                done.append(PartDone(number, run_part(dataset, stage, worker, number, on_rows)))
            except Exception as error:
                raise PartFailed(stage.job, number, error) from error
        return done

    def close(self) -> None:
        """Nothing is held."""


def once(build: Callable[[], Worker]) -> Callable[[], Worker]:
    """A worker that is built at the first call and kept: weights are loaded once, and only if they are needed."""
    built: list[Worker] = []

    def get() -> Worker:
        if not built:
            built.append(build())
        return built[0]

    return get
