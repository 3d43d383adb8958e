"""What pictures are compared with: a dataset, MJHQ-30K or a folder; its features are made once, in its own folder."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from engine.dataset import Dataset
from engine.flow import Observer
from engine.runner import Runner
from engine.steps import run_steps
from evaluation.measuring import Wanted, features_job
from evaluation.picture_files import folder_stamp, pictures_by_name, pictures_in
from evaluation.pictures import pictures_table, take_job
from evaluation.prompt_files import MJHQ_FILE
from evaluation.prompt_table import update_prompts
from evaluation.prompts import read_prompts
from schemas.evaluation import EvaluationRecipe, Reference
from schemas.files import is_file, place_of, shown_place
from schemas.reasons import PictureReason
from schemas.shard_index import INDEX_FILE, ShardIndex
from schemas.strict import fingerprint
from training.data.selection import select_rows

LOWEST = 1e-6
"""How far below zero an eigenvalue of a covariance may be, relative to its trace: rounding of float32."""
NAME = "reference"
"""The model of a reference's folder, which takes pictures as they are."""


@dataclass(frozen=True)
class Against:
    """A reference whose features are there."""

    name: str
    """The place that the recipe names, with its condition."""
    dataset: Dataset | None = None
    """The folder of its features."""
    moments: tuple[np.ndarray, np.ndarray] | None = None
    """In place of pictures."""
    protocol: str | None = None
    """Of the moments."""
    image_ids: frozenset[str] = field(default_factory=frozenset, repr=False)
    """Of its pictures, to be looked for in what a model was trained on."""
    encodings: tuple[str, ...] = ()
    """Formats of its pictures, JPEGs with the digest of their quantisation."""

    def digest(self, wanted: Wanted) -> str:
        """Names the features of a network, or the moments."""
        if self.moments is not None:
            return fingerprint([float(values.sum()) for values in self.moments])[:8]
        assert self.dataset is not None
        parts = self.dataset.held().holding(wanted.table(NAME))
        return fingerprint([name.content for name in parts.values()])[:8]


def bring_reference(
    recipe: EvaluationRecipe, networks: Sequence[Wanted], observer: Observer, runner: Callable[[], Runner]
) -> Against:
    """Make the features of a reference that are not there yet, below the reference itself. Raises ValueError: it is no
    reference, or its features cannot be written next to it."""
    knobs = recipe.reference
    assert knobs is not None
    if knobs.moments is not None:
        assert knobs.moments_protocol is not None
        return Against(knobs.moments, moments=read_moments(Path(knobs.moments)), protocol=knobs.moments_protocol)
    assert knobs.pictures is not None
    place = place_of(knobs.pictures)
    below = "evaluation" if knobs.where is None else f"evaluation-{fingerprint(knobs.where)[:8]}"
    dataset = Dataset(place_of(knobs.features) if knobs.features is not None else place / below)
    rows, stamp = list(_rows_of(place, knobs)), _stamp(place)
    wanted = [each for each in networks if each.missing is None and each.protocol != "clip"]
    steps = [
        take_job(NAME, None, 1, recipe.run, {"pictures": stamp}),
        *(features_job(dataset.root, NAME, each, 1, recipe.run) for each in wanted),
    ]
    try:
        with dataset.lock():
            dataset.sweep()
            update_prompts(dataset, rows, recipe.prompts.per_part, redo=True)
            run_steps(dataset.held(), steps, observer, frozenset(), runner)
    except PermissionError as error:
        raise ValueError(
            f"{shown_place(dataset.root)}: the features of the reference cannot be written ({error.strerror}); name a "
            "folder for them with reference.features"
        ) from None
    pictures = dataset.read_table(pictures_table(NAME), ["prompt_id", "image_id", "format", "quality"])
    known = {*pictures["image_id"].to_pylist(), *pictures["prompt_id"].to_pylist()} - {None}
    name = str(shown_place(place)) + (f" where {knobs.where}" if knobs.where else "")
    return Against(name, dataset, image_ids=frozenset(known), encodings=encodings_of(pictures))


def encodings_of(pictures: pa.Table) -> tuple[str, ...]:
    """The formats in which pictures are stored, a JPEG's with the digest of its quantisation."""
    pairs = zip(pictures["format"].to_pylist(), pictures["quality"].to_pylist(), strict=True)
    return tuple(sorted({kind if quality is None else f"{kind} {quality}" for kind, quality in pairs if kind}))


def _stamp(place: Path) -> str:
    """Another text where the pictures may be others than before."""
    index = place / "shards" / INDEX_FILE
    return "in tars" if is_file(index) else folder_stamp(pictures_in(place))


def _rows_of(place: Path, knobs: Reference) -> Iterator[dict[str, Any]]:
    """A row of the table `prompts` for each picture of a reference."""
    if is_file(place / "shards" / INDEX_FILE):
        yield from _rows_of_dataset(place, knobs.where)
        return
    if knobs.where is not None:
        raise ValueError(f"reference.where: {knobs.where!r} is of a dataset, and {shown_place(place)} has no index")
    if is_file(place / MJHQ_FILE):
        known = pictures_by_name(place)
        for row_id, prompt in enumerate(read_prompts(place, "mjhq")):
            path = known.get(prompt.prompt_id)
            row = {"row_id": row_id, "prompt_id": prompt.prompt_id, "category": prompt.category}
            if path is None:
                yield row | {"reason": PictureReason.NOT_GENERATED.value, "detail": f"no {prompt.prompt_id}.*"}
            else:
                yield row | {"file": str(path.absolute())}
        return
    for row_id, path in enumerate(pictures_in(place)):
        inside = path.relative_to(place)
        category = inside.parts[-2] if len(inside.parts) > 1 else None
        yield {"row_id": row_id, "prompt_id": str(inside.with_suffix("")), "category": category,
               "file": str(path.absolute())}  # fmt: skip


def _rows_of_dataset(place: Path, where: str | None) -> Iterator[dict[str, Any]]:
    index = ShardIndex(place / "shards")
    columns = ["image_id", "shard", "image_offset", "image_size"]
    chosen = (row for part in select_rows(index, where, NAME).parts(columns) for row in part.to_pylist())
    categories = {}
    if is_file(place / MJHQ_FILE):  # of an evaluation set
        categories = {each.prompt_id: each.category for each in read_prompts(place, "mjhq")}
    tars = Path(os.path.normpath(place / "shards" / (index.tars or "")))
    for row_id, row in enumerate(chosen):
        yield {
            "row_id": row_id,
            "prompt_id": row["image_id"],
            "category": categories.get(row["image_id"]),
            "file": str((tars / row["shard"]).absolute()),
            "offset": row["image_offset"],
            "size": row["image_size"],
        }


def read_moments(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """`mu` and `sigma` of an .npz that another program has written. Raises ValueError: it cannot be read, holds pickled
    objects, or is no mean and covariance of 2,048 features."""
    from evaluation.frechet import frechet_distance

    try:
        with np.load(path, allow_pickle=False) as stored:
            mu, sigma = stored["mu"], stored["sigma"]
        if mu.shape != (2048,):
            raise ValueError(f"mu is {mu.shape}, and Inception has 2,048 features")
        frechet_distance(mu, sigma, mu, sigma)  # refuses what is no covariance
        np.linalg.cholesky(sigma.astype(np.float64) + LOWEST * np.trace(sigma) * np.eye(len(sigma)))
    except np.linalg.LinAlgError:
        raise ValueError(f"{path}: is no file of moments (its covariance has an eigenvalue below zero)") from None
    except (OSError, KeyError, TypeError, ValueError, MemoryError, zlib.error, zipfile.BadZipFile, EOFError) as error:
        why = " ".join(str(error).split()).partition(". If you trust")[0]  # its advice to unpickle is left out
        raise ValueError(f"{path}: is no file of moments ({why})") from None
    return mu, sigma
