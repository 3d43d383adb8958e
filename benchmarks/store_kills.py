"""kill -9 before every request that writes to a store, in each command that writes: run again, the bytes are those of
an undisturbed run.

`python -m benchmarks.store_kills [SCENARIO ...]` also names every request after which they were not. The store is one
in memory, whose answers are quick; what real servers answer is a matter of `tests/engine/place`.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from curation.upkeep.find import Wanted
from curation.upkeep.purge import show_and_purge
from curation.upkeep.repair import repair
from curation.work import Share, work
from engine.dataset import Dataset
from engine.place.store import Store
from schemas.recipe import DataRecipe
from schemas.training import TrainingRecipe
from tests.building import Told, build, picture, recipe, steps, write_pictures
from tests.dying import Died
from tests.memory_store import URL, Memory
from tests.training.encoding import encode

PROMISED = ("tables", "shards", "paid", "features")
SIZES = [(96, 64)] * 3 + [(64, 96)] * 2 + [(80, 80), (48, 96)]

Command = Callable[[DataRecipe], object]


def stricter(made: DataRecipe) -> DataRecipe:
    """A recipe that drops one of the pictures, so that every shard is planned anew."""
    return made.model_copy(update={"select": made.select.model_copy(update={"min_short_side_px": 50})})


def purge(made: DataRecipe) -> None:
    """Take out a picture; where that was interrupted, finish it."""
    dataset = Dataset(made.out_path())
    picture = (Path(made.all_sources()[0].location()) / "001.jpg").read_bytes()
    wanted = Wanted(sha256s=(hashlib.sha256(picture).hexdigest(),))
    for _ in show_and_purge(dataset, steps(made), wanted, "a benchmark", [], False, made.run):
        pass


def one_share(made: DataRecipe) -> None:
    """Two tasks of a job array caption what a build left, and a build does the rest."""
    dataset = Dataset(made.out_path())
    for place in range(2) if not dataset.held().is_whole("captions") else ():
        with dataset.lock(shared=True):
            work(dataset, steps(made), "caption", Share(place, 2))
    build(made)


def mend(made: DataRecipe) -> None:
    """Delete a tar and mend it."""
    Store.at(URL).delete(["shards/1.0/1.0-000000.tar"])
    for _ in repair(made, steps(made), Told()):
        pass


def unreadable(made: DataRecipe) -> None:
    """Build while one of the pictures is a link that leads nowhere."""
    folder = Path(made.all_sources()[0].location())
    (folder / ".later.jpg").unlink(missing_ok=True)
    (folder / "late.jpg").symlink_to(folder / ".later.jpg")
    build(made)


def retry(made: DataRecipe) -> None:
    """Look at it again, now that it is there."""
    picture(9).save(Path(made.all_sources()[0].location()) / ".later.jpg")
    build(made, retry_failed=True)


def encode_all(made: DataRecipe) -> None:
    """Encode pictures and captions into the store."""
    values = {"dataset": made.out, "out": "x", "text": {"channels": 8, "max_tokens": 8}}
    encode(TrainingRecipe.from_mapping(values | {"stages": [{"name": "one", "resolution": 32, "steps": 1}]}))


SCENARIOS: dict[str, tuple[tuple[Command, ...], Command]] = {
    "a first build": ((), build),
    "a build after a changed threshold": ((build,), lambda made: build(stricter(made), redo=["select"])),
    "back to the first threshold": (
        (build, lambda made: build(stricter(made), redo=["select"])),
        lambda made: build(made, redo=["select"]),
    ),
    "--redo shard": ((build,), lambda made: build(made, redo=["shard"])),
    "--redo caption": ((build,), lambda made: build(made, redo=["caption"])),
    "--redo ingest": ((build,), lambda made: build(made, redo=["ingest"])),
    "purge": ((build,), purge),
    "work, then build": ((lambda made: build(made, upto="select"),), one_share),
    "doctor --repair": ((build,), mend),
    "encode": ((build,), encode_all),
    "--retry-failed": ((unreadable,), retry),
}
"""What is killed, after what was done before."""


def walk(folder: Path, made: DataRecipe, scenario: str) -> Iterator[tuple[int, str]]:
    """Kill a command before each of its writes and run it again; the number of the write, and what is then wrong.

    Every second time the command is run again on another machine, whose scratch folder is empty.
    """
    before, command = SCENARIOS[scenario]
    base = Memory({})
    with base.used(tempfile.mkdtemp(dir=folder)):
        for each in before:
            each(made)
    begun, whole = base.objects(), Memory(base.objects())
    with whole.used(tempfile.mkdtemp(dir=folder)) as left:
        num_before = left[0]
        command(made)
        num_writes = num_before - left[0]
    wanted = whole.content(PROMISED)
    for number in range(num_writes):
        machine, scratch = Memory(begun), tempfile.mkdtemp(dir=folder)
        try:
            with machine.used(scratch, number, backwards=number % 3 == 0):
                command(made)
            yield number, "did not die"
        except Died:
            pass
        machine = Memory(machine.objects())
        with machine.used(tempfile.mkdtemp(dir=folder) if number % 2 else scratch):
            try:
                command(made)
            except Exception as error:  # noqa: BLE001 - whatever it is, the command does not go on
                yield number, f"{type(error).__name__}: {error}"
                continue
        found = machine.content(PROMISED)
        differ = sorted(key for key in {*wanted, *found} if wanted.get(key) != found.get(key))
        yield number, ", ".join(differ)


def store_kills(folder: Path, scenarios: tuple[str, ...] = tuple(SCENARIOS)) -> Iterator[str]:
    """One row per command, and one per write after whose loss the bytes were others."""
    write_pictures(folder / "photos", SIZES)
    made = recipe(folder / "photos", Path("x"), shard={"max_samples": 2}).model_copy(update={"out": URL})
    yield "| what was killed | writes | bytes of an undisturbed run | other |"
    yield "|---|---|---|---|"
    for scenario in scenarios:
        done = list(walk(folder, made, scenario))
        wrong = [(number, what) for number, what in done if what]
        yield f"| {scenario} | {len(done)} | {len(done) - len(wrong)} | {len(wrong)} |"
        for number, what in wrong:
            yield f"{scenario}: killed before write {number}: {what[:300]}"


BENCHMARKS = (store_kills,)


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        for line in store_kills(Path(folder), tuple(sys.argv[1:]) or tuple(SCENARIOS)):
            print(line, flush=True)


if __name__ == "__main__":
    main()
