"""Five hundred files gone bad, through ingest in a process that dies if one hangs it or takes a gigabyte."""

from __future__ import annotations

import hashlib

import pytest

from benchmarks import mutations
from schemas.reasons import ImageError
from tests.mutants import SEEDS, mutants
from tests.processes import run_python


@pytest.mark.slow
def test_every_mutant_is_a_picture_or_has_a_reason() -> None:
    outcomes = mutations.run(500, seed=1)
    assert sum(outcomes.values()) == 500
    assert set(outcomes) <= {"picture", *ImageError}
    expected = {"picture", ImageError.TRUNCATED, ImageError.CORRUPT, ImageError.ANIMATED, ImageError.NOT_AN_IMAGE}
    assert expected <= set(outcomes)  # the mutants are neither all dead nor all alive


def test_the_mutants_of_a_seed_are_always_the_same() -> None:
    def digest(seed: int) -> str:
        return hashlib.sha256(repr(list(mutants(60, seed))).encode()).hexdigest()

    assert digest(3) == digest(3) != digest(4)
    assert all(data != SEEDS[name.split(": ")[1].split(",")[0]] for name, data in mutants(36) if "cut" in name)


@pytest.mark.parametrize(
    ("bad", "why"),
    [("while True: pass", "exit -14"), ("bytearray(3 * 2**30)", "MemoryError"), ("assert 0, 'lost'", "lost")],
)
def test_a_broken_limit_ends_the_process(bad: str, why: str) -> None:
    """The limits bite: a loop without end, three gigabytes, a row that says nothing."""
    code = (
        "import tempfile, pathlib; from benchmarks import mutations\n"
        "mutations.LIMIT_S = 0.3\n"
        f"def outcome(folder, number):\n    {bad}\n"
        "mutations._outcome = outcome\n"
        "mutations.limit_this_process()\n"
        "mutations.survey(pathlib.Path(tempfile.mkdtemp()), 1, 0)\n"
    )
    done = run_python("-c", code)
    assert done.returncode != 0
    assert why in f"exit {done.returncode} {done.stderr}"
    assert "0/0: 16 bit PNG" in done.stderr  # the file that it died of
