"""A run in a store: its files are written to a folder of this machine, and sent from there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from schemas.locations import is_remote
from schemas.training import Stage, TrainingRecipe
from training.checkpoint_files import CHECKPOINT_NAME, checkpoints
from training.data.tars import Copies


class StoredRun:
    """Copies the folders of stages between a store and this machine. What is in the store holds. Of the checkpoints of
    a stage the newest is copied here, unless all are wanted."""

    def __init__(self, copies: Copies, keep: int) -> None:
        self._copies, self._keep = copies, keep

    def bring(self, stage: Path, every_checkpoint: bool = False) -> None:
        """Make a stage's folder what the store has. Where the store holds just what this machine saw there last, what
        was written here since stays: the checkpoint that could not be sent any more is gone on from. Else another
        machine has trained, and it goes. Raises OSError: the store cannot be read, or the disk not be written."""
        store, below = self._copies.store, self._copies.key(stage)
        there = {found.key: found.etag for found in store.below(below)}
        newest = max((key for key in there if CHECKPOINT_NAME.fullmatch(Path(key).name)), default=None)
        with self._copies.versions() as known:
            seen = {key: etag for key, (etag, _) in known.items() if key.startswith(f"{below}/")}
            aside = self._set_aside(known, below)
            for path in _files(stage) if there != seen else ():
                if self._copies.key(path) not in there:
                    path.unlink()
            for key, etag in there.items():
                path = self._copies.folder / key
                is_here = path.is_file() and seen.get(key) == etag and (there == seen or _is_checkpoint(path))
                if is_here or (seen.get(key) == etag and key in aside):
                    continue
                is_wanted = key == newest or every_checkpoint or not _is_checkpoint(path)
                if is_wanted:
                    store.fetch(key, path)
                known[key] = (etag, path.stat().st_mtime_ns if is_wanted else 0)
            for key in seen.keys() - there.keys():
                del known[key]

    def send(self, stage: Path) -> None:
        """Send what changed in a stage's folder, its checkpoint last, and delete the oldest checkpoints in the store.
        Raises ValueError: the store does not take it, after many tries; everything is still here."""
        store, below = self._copies.store, self._copies.key(stage)
        with self._copies.versions() as known:
            try:
                for path in sorted(_files(stage), key=lambda path: (_is_checkpoint(path), path)):
                    key, written = self._copies.key(path), path.stat().st_mtime_ns
                    if known.get(key, (None, 0))[1] == written:
                        continue
                    self._copies.remember(known)  # a kill while a checkpoint is sent leaves what this machine sent
                    data = path if _is_checkpoint(path) else path.read_bytes()  # lines may be added meanwhile
                    known[key] = (store.put(key, data).etag, written)
                stored = sorted(key for key in known if key.startswith(f"{below}/") and _is_checkpoint(Path(key)))
                gone = {*stored[: -self._keep], *self._set_aside(known, below)}
                store.delete(gone)
                for key in gone:
                    del known[key]
            except (OSError, ValueError) as error:
                why = (error.strerror if isinstance(error, OSError) else None) or error
                raise ValueError(
                    f"{store.url(below)}: cannot be stored ({why}); this machine has all of it: run the same command "
                    "here once the store can be written"
                ) from None

    def _set_aside(self, known: dict[str, Any], below: str) -> set[str]:
        """The keys of checkpoints that were here and were set aside, and none of their name has come since."""
        were_here = [key for key, (_, written) in known.items() if written and key.startswith(f"{below}/")]
        paths = [self._copies.folder / key for key in were_here if _is_checkpoint(Path(key))]
        return {
            self._copies.key(path) for path in paths if not path.is_file() and any(path.parent.glob(f"{path.name}.*"))
        }


def bring_stage(recipe: TrainingRecipe, stage: Stage, every_checkpoint: bool = False) -> None:
    """Copy what a stage goes on from, where the run is in a store; see `StoredRun.bring`."""
    if is_remote(recipe.out):
        _stored(recipe).bring(recipe.stage_folder(stage), every_checkpoint)


def sender(recipe: TrainingRecipe, stage: Stage) -> Callable[[], None]:
    """What sends a stage, where the run is in a store; see `StoredRun.send`."""
    return partial(_stored(recipe).send, recipe.stage_folder(stage)) if is_remote(recipe.out) else lambda: None


def _stored(recipe: TrainingRecipe) -> StoredRun:
    return StoredRun(Copies.of(recipe.out, recipe.out_folder), recipe.keep_checkpoints)


@contextmanager
def places_named(recipe: TrainingRecipe) -> Iterator[None]:
    """Errors name the store in place of the folder of copies."""
    try:
        yield
    except ValueError as error:
        said = str(error)
        for place, folder in ((recipe.dataset, recipe.dataset_folder), (recipe.out, recipe.out_folder)):
            said = said.replace(str(folder), place) if is_remote(place) else said
        if said == str(error):
            raise
        raise ValueError(said) from None


def trained_checkpoints(
    recipe: TrainingRecipe, stage: str | None, every: bool = False
) -> tuple[Stage, dict[int, Path]]:
    """A stage, or the last stage that has a checkpoint, and the file of each step that is kept, the newest last.
    `every`: also those of a run in a store that this machine has no copy of; else the newest is there. Raises
    ValueError: nothing is trained yet, or there is no such stage."""
    candidates = [recipe.stage_named(stage)] if stage is not None else list(reversed(recipe.stages))
    with places_named(recipe):
        for candidate in candidates:
            bring_stage(recipe, candidate, every)
            if found := checkpoints(recipe.stage_folder(candidate)):
                return candidate, dict(found)
    raise ValueError(f"{recipe.out}: no checkpoint of {stage or 'any stage'} here; train first (sigma train)")


def _files(stage: Path) -> list[Path]:
    """What of a stage is kept: not what is half written, nor checkpoints that were set aside."""
    found = (path for path in stage.rglob("*") if path.is_file() and not path.name.startswith("."))
    return [path for path in found if _is_checkpoint(path) or not CHECKPOINT_NAME.match(path.name)]


def _is_checkpoint(path: Path) -> bool:
    return CHECKPOINT_NAME.fullmatch(path.name) is not None
