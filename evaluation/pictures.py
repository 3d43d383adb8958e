"""The pictures of an evaluation: those that are drawn, in tars of their own, and those that others have drawn."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from engine.ahead import ahead
from engine.dataset import Dataset
from engine.job import State
from engine.map_job import MapJob, naming
from engine.names import Held
from engine.paid import Paid
from engine.runner import Progress
from evaluation.painters import Painter, Plan
from evaluation.picture_files import Pixels, facts_of, named, pictures_by_name, pixel_digest, read_picture
from evaluation.picture_files import pictures_table as pictures_table
from schemas.commit import atomic_write
from schemas.evaluation import Draw, Run
from schemas.files import entries_in, remove_folder
from schemas.ids import counter, image_id
from schemas.reasons import ImageError, PictureReason
from schemas.shard import END_OF_ARCHIVE, encode_json, member_header, padding
from schemas.strict import fingerprint
from schemas.tables import schema_of

SAFE_KEY = re.compile(r"[A-Za-z0-9_-]{1,60}")
SAMPLES = "samples"
"""Folder of the tars of drawn pictures, below the evaluation."""


@dataclass(frozen=True, kw_only=True)
class PicturesJob(MapJob):
    """The pictures of a model, as a job. What was drawn once stays below `samples/` until it is drawn anew."""

    def delete(self, dataset: Dataset) -> None:
        super().delete(dataset)
        remove_folder(samples_folder(dataset.root, self.outputs[0]))


def samples_folder(root: Path, table: str) -> Path:
    return root / SAMPLES / table.partition("/")[2]


def pictures_job(root: Path, plan: Plan, draw: Draw, run: Run) -> MapJob:
    """The job that draws the pictures of a plan, or looks at those that are there."""
    if plan.folder is not None:
        return take_job(plan.name, plan.folder, draw.pictures_per_prompt, run, plan.how)
    assert plan.load is not None
    table = pictures_table(plan.name)
    knobs = {"draw.seed": draw.seed, "draw.pictures_per_prompt": draw.pictures_per_prompt, "draw.batch": draw.batch}
    how = {f"models.{name}": value for name, value in plan.how.items()}
    return PicturesJob(
        job=f"draw-{plan.name}",
        inputs=("prompts",),
        outputs=(table,),
        knobs=knobs | how,
        build=partial(DrawnPictures, root, table, partial(plan.load, run.device), fingerprint(plan.how)[:16], draw),
        rows_per_input=draw.pictures_per_prompt,
        pays=True,
        num_gpus=None,
        workers=run.workers,
    )


class DrawnPictures:
    """The worker: it draws batch by batch, and each batch is a tar and a note before the next begins."""

    def __init__(self, root: Path, table: str, load: Callable[[], Painter], drawn: str, draw: Draw) -> None:
        self._root, self._table, self._drawn, self._draw = root, table, drawn, draw
        self._load = load
        self._painter: Painter | None = None
        self._folder = samples_folder(root, table)

    def __call__(self, inputs: Mapping[str, pa.Table], progress: Progress, paid: Paid) -> dict[str, pa.Table]:
        """Draw the pictures of a part that were not drawn before."""
        rows = [
            {"number": number, "seed": counter(prompt["prompt_id"], f"evaluate/{self._draw.seed}/{number}"), **prompt}
            for prompt in inputs["prompts"].to_pylist()
            for number in range(self._draw.pictures_per_prompt)
        ]
        known = self._known(paid)
        wanted = [row for row in rows if row["reason"] is None and _key(row) not in known]
        per_prompt = self._draw.pictures_per_prompt
        progress((len(rows) - len(wanted)) // per_prompt)
        for start in range(0, len(wanted), self._draw.batch):
            batch = wanted[start : start + self._draw.batch]
            with naming(batch[0]["prompt_id"]):
                found = self._paint(batch)
            paid.note(pa.Table.from_pylist(found, schema=schema_of("pictures/")))
            known |= {_key(row): row for row in found}
            progress(0, {"images": len(batch)})
        progress(len(wanted) // per_prompt)
        return {self._table: _as_table([_with_place(row, known.get(_key(row))) for row in rows])}

    def _known(self, paid: Paid) -> dict[tuple[str, int, int], dict[str, Any]]:
        """Pictures that were drawn before in the same way, and whose tars are there."""
        found = [*paid.earlier().to_pylist(), *paid.noted().to_pylist()]
        there = {f"{SAMPLES}/{self._folder.name}/{name}" for name in entries_in(self._folder)}
        return {_key(row): row for row in found if row["drawn"] == self._drawn and row["file"] in {None, *there}}

    def _paint(self, batch: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        if self._painter is None:
            self._painter = self._load()
        drawn = self._painter([row["prompt"] for row in batch], [row["seed"] for row in batch])
        return _written(
            self._folder, [_made(row, picture) for row, picture in zip(batch, drawn, strict=True)], self._drawn
        )


def _key(row: Mapping[str, Any]) -> tuple[str, int, int]:
    return row["prompt_id"], row["number"], row["seed"]


def _made(row: Mapping[str, Any], picture: Pixels | PictureReason) -> tuple[dict[str, Any], bytes | None]:
    """The row of a drawn picture without its place, and its PNG."""
    made = named(row) | {"seed": row["seed"], "prompt": row["prompt"]}
    if isinstance(picture, PictureReason):
        return made | {"reason": picture.value}, None
    facts = made | {
        "width": picture.shape[1],
        "height": picture.shape[0],
        "format": "PNG",
        "pixel_sha256": pixel_digest(picture),
    }
    if (picture == picture[:1, :1]).all():
        facts["reason"] = PictureReason.CONSTANT.value
    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="PNG", compress_level=4)
    data = file.getvalue()
    return facts | {"image_id": image_id(hashlib.sha256(data).hexdigest())}, data


def _written(folder: Path, made: Sequence[tuple[dict[str, Any], bytes | None]], drawn: str) -> list[dict[str, Any]]:
    """The rows of a batch once its pictures are in a tar, which is named by its content."""
    parts, offset, rows = list[bytes](), 0, list[dict[str, Any]]()
    for facts, png in made:
        prompt = facts.pop("prompt")
        row = {"drawn": drawn, **facts}
        if png is not None:
            named = {"prompt_id": facts["prompt_id"], "number": facts["number"], "seed": facts["seed"]}
            for suffix, data in (("png", png), ("txt", prompt.encode()), ("json", encode_json(named))):
                parts += [member_header(f"{_member(facts)}.{suffix}", len(data)), data, bytes(padding(len(data)))]
                if suffix == "png":
                    row |= {"offset": offset + len(parts[-3]), "size": len(png)}
                offset += sum(map(len, parts[-3:]))
        rows.append(row)
    if not parts:
        return rows
    content = b"".join([*parts, END_OF_ARCHIVE])
    name = f"{rows[0]['row_id']:08d}.{hashlib.sha256(content).hexdigest()[:12]}.tar"
    with atomic_write(folder / name) as file:
        file.write(content)
    return [row | {"file": f"{SAMPLES}/{folder.name}/{name}"} if "size" in row else row for row in rows]


def _member(row: Mapping[str, Any]) -> str:
    """The key of a picture in its tar: its prompt's id where a tar can hold it."""
    wanted = row["prompt_id"]
    safe = wanted if SAFE_KEY.fullmatch(wanted) else hashlib.sha256(wanted.encode()).hexdigest()[:16]
    return f"{safe}_{row['number']}"


def _with_place(row: Mapping[str, Any], found: Mapping[str, Any] | None) -> dict[str, Any]:
    """The row of a picture as it is in this part: rows may have moved since it was drawn."""
    return {**(found or {"reason": row["reason"], "detail": row["detail"]}), **named(row)}


def _as_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(
        [{name: row.get(name) for name in schema_of("pictures/").names} for row in rows], schema=schema_of("pictures/")
    )


@dataclass(frozen=True, kw_only=True)
class TakeJob(MapJob):
    """Pictures that others have made, as a job. It looks at them anew, unasked, where they may be others."""

    def state(self, held: Held, redo: bool = False) -> State:
        return super().state(held, redo=True)


def take_job(name: str, inputs_from: str | None, per_prompt: int, run: Run, knobs: Mapping[str, Any]) -> MapJob:
    """The job that looks at pictures which others have made, where they are. `inputs_from`: a folder whose files are
    named by the ids of prompts; None takes what each prompt names. `knobs`: what tells that they are others now: of a
    folder the names, sizes and times of its files."""
    table = pictures_table(name)
    return TakeJob(
        job=f"draw-{name}",
        inputs=("prompts",),
        outputs=(table,),
        knobs=dict(knobs),
        build=partial(TakenPictures, table, inputs_from, per_prompt, run.threads),
        rows_per_input=per_prompt,
        workers=run.workers,
    )


class TakenPictures:
    """The worker: it reads each picture once, and notes what it is and where."""

    def __init__(self, table: str, folder: str | None, per_prompt: int, threads: int) -> None:
        self._table, self._per_prompt, self._threads = table, per_prompt, threads
        self._found = None if folder is None else pictures_by_name(Path(folder))

    def __call__(self, inputs: Mapping[str, pa.Table], progress: Progress) -> dict[str, pa.Table]:
        rows = [{"number": number, **prompt} for prompt in inputs["prompts"].to_pylist()
                for number in range(self._per_prompt)]  # fmt: skip
        found = list[dict[str, Any]]()
        for row in ahead(self._look, rows, self._threads):
            found.append(row)
            if len(found) % self._per_prompt == 0:
                progress(1)
        return {self._table: _as_table(found)}

    def _look(self, row: Mapping[str, Any]) -> dict[str, Any]:
        known = named(row)
        place = {name: row[name] for name in ("file", "offset", "size")}
        if row["reason"] is not None:
            return known | {"reason": row["reason"], "detail": row["detail"]}
        if self._found is not None:
            names = [f"{row['prompt_id']}_{row['number']}", *([row["prompt_id"]] if row["number"] == 0 else [])]
            path = next((self._found[name] for name in names if name in self._found), None)
            if path is None:
                return known | {"reason": PictureReason.NOT_GENERATED.value, "detail": f"no {names[0]}.*"}
            place = {"file": str(path), "offset": None, "size": None}
        try:
            data = read_picture(Path(), place)
        except OSError as error:
            return known | place | {"reason": ImageError.UNREADABLE.value, "detail": str(error.strerror or error)}
        return known | place | facts_of(data)
