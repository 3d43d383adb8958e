"""Look for what jobs need besides recipe and inputs (weights, packages, keys) before anything is read or made."""

from __future__ import annotations

from collections.abc import Iterable

from engine.job import Job


class NeedsMissing(ValueError):
    """Something that a job will load is not on this machine; a line for each, with how to get it."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


def check_needs(steps: Iterable[Job]) -> None:
    """See that everything which these steps will load is there. Nothing is loaded or downloaded, no server is asked.
    What a file holds is only seen when it is loaded: one that is damaged still stops its own job. Raises NeedsMissing:
    with all that is missing."""
    lines: list[str] = []
    for step in steps:
        for need in step.needs:
            try:
                need()
            except ValueError as error:
                lines.append(" ".join(str(error).split()))
    if lines:
        raise NeedsMissing(list(dict.fromkeys(lines)))  # mix and nouns count with the same tokenizer
