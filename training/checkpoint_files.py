"""The checkpoints of a stage's folder, by their names; nothing of them is loaded, so nothing here needs torch."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from schemas.unread import is_unread
from training.model.seal import refuse_damage

log = logging.getLogger(__name__)

CHECKPOINT_NAME = re.compile(r"step-(\d{8})\.pt")


def checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """The checkpoints of a stage folder as (step, path), oldest first."""
    if not folder.is_dir():
        return []
    found = ((CHECKPOINT_NAME.fullmatch(path.name), path) for path in folder.iterdir())
    return sorted((int(match[1]), path) for match, path in found if match)


def latest_checkpoint(folder: Path) -> tuple[int, Path] | None:
    return next(iter(reversed(checkpoints(folder))), None)


def whole(path: Path) -> bool:
    """Whether a checkpoint's bytes are those that were written. Raises OSError: it cannot be read now."""
    try:
        refuse_damage(path)
    except (ValueError, OSError) as error:
        if is_unread(error):
            raise
        return False
    return True


def set_aside(path: Path, why: str) -> Path:
    """Give a checkpoint a name under which no run finds it, and return that."""
    return path.rename(path.with_name(f"{path.name}.{why}"))


def last_good(folder: Path) -> tuple[int, Path] | None:
    """The newest whole checkpoint of a stage; damaged newer ones are set aside."""
    while (last := latest_checkpoint(folder)) is not None and not whole(last[1]):
        log.warning("%s: damaged, set aside as %s", last[1], set_aside(last[1], "damaged").name)
    return last
