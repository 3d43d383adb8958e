"""Datasets of older versions: what has another name there is read as it is, and renamed by the next build."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.tables import BESIDE, BESIDE_ONCE

if TYPE_CHECKING:
    from engine.dataset import Dataset


def placed(folder: Path, name: str) -> Path:
    """Path of something of a table in a folder: captions of an extra captioner may still be in that of `captions`."""
    path = folder / name
    if BESIDE not in name or path.exists():
        return path
    old = folder / name.replace(BESIDE, BESIDE_ONCE, 1)
    return old if old.exists() else path


def rename_old_captions(dataset: Dataset) -> None:
    """Give the captions of extra captioners their own folder. Only `Dataset.sweep` calls this, which holds the lock."""
    folders = (dataset.tables, dataset.tables / ".records", dataset.tables / ".previous", dataset.root / ".paid")
    for folder in folders:
        for path in [*(folder / BESIDE_ONCE).glob("[!.]*")]:
            of_first = path.name.startswith("part-") or (path.suffix == ".json" and folder.name != ".records")
            if not of_first:
                target = folder / BESIDE / path.name
                target.parent.mkdir(exist_ok=True)
                path.rename(target)
    renamed = {BESIDE_ONCE + table.removeprefix(BESIDE): table for table in dataset.extra_captions()}
    for table in dataset.recorded() if renamed else []:
        record = dataset.record(table)
        if record is not None and renamed.keys() & record.upstream.keys():
            upstream = {renamed.get(name, name): made_by for name, made_by in record.upstream.items()}
            dataset.write_record(table, replace(record, upstream=upstream))
