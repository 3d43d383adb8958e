"""One state of an evaluation: its prompts and results as they are, its pictures by their rows and no others."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from engine.ahead import of_each
from engine.dataset import Dataset, read_parquet
from engine.duck import Row
from engine.names import names_in
from engine.one_state import Replaced
from evaluation.picture_files import pictures_table, read_picture
from schemas.files import find_files
from schemas.ids import unit_interval
from schemas.lru import Lru
from schemas.opening import open_file
from schemas.pixels import DECODER_ERRORS, PixelError, open_rgb
from viewer.cards import thumbnail
from viewer.rows import rows_at

SHOWN = ("prompts", "pictures", "agreement", "answers", "results")
"""The tables, or families of tables, that pages read."""
SHOWN_AS_THEY_ARE = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
"""Pillow's names of the formats that every browser shows, and what they are called on the way."""
MOST_PART_BYTES = 256_000_000
"""Memory for the columns that are read whole, in bytes."""

_parts = Lru[tuple[Path, tuple[str, ...]], pa.Table](MOST_PART_BYTES, size_of=lambda table: table.nbytes)
"""Columns of parts that were read before: a part never changes under its name."""


class Key(NamedTuple):
    row_id: int
    number: int = 0


class Evaluation:
    """An evaluation, finished or half done. No file of a picture is opened but those that its tables name."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset, self.signature = dataset, signature(dataset)
        self.held = dataset.held()
        self._standing = dict[str, tuple[list[tuple[Key, float]], dict[Key, str]]]()

    def _columns(self, table: str, *columns: str) -> Iterable[Row]:
        def read(path: Path) -> pa.Table:
            return _parts.get((path, columns), lambda: read_parquet(path, list(columns)))

        for part in of_each(read, self.held.paths(table)):
            yield from part.to_pylist()

    @cached_property
    def prompts(self) -> dict[int, Row]:
        """The prompts by their row_id, in order."""
        rows = self._columns("prompts", "row_id", "prompt_id", "prompt", "category", "reason", "detail")
        return {row["row_id"]: row for row in rows}

    @cached_property
    def results(self) -> list[Row]:
        return [row for path in self.held.paths("results") for row in read_parquet(path).to_pylist()]

    @cached_property
    def models(self) -> list[str]:
        """Models that have pictures, in the order of the results, then by name and step."""
        found = {table.partition("/")[2] for table, _ in self.signature if table.startswith("pictures/")}
        first = [*dict.fromkeys(row["model"] for row in self.results if row["model"] in found)]
        return first + sorted(found - {*first}, key=_by_step)

    @cached_property
    def chosen_models(self) -> list[str]:
        """Of a series its last checkpoint, then all models that are no series."""
        last = {model.rpartition("@")[0]: model for model in sorted(self.models, key=_by_step) if "@" in model}
        return [model for model in self.models if last.get(model.rpartition("@")[0], model) == model]

    @cached_property
    def categories(self) -> list[str | None]:
        """The categories of the prompts by name, then None where some have none."""
        found = {row["category"] for row in self.prompts.values()}
        return [*sorted(found - {None}), *([None] if None in found else [])]

    @cached_property
    def draw(self) -> list[Key]:
        """The first picture of every prompt, in an order that depends on their ids alone."""
        coins = ((unit_interval(row["prompt_id"], "shown"), row_id) for row_id, row in self.prompts.items())
        return [Key(row_id) for _, row_id in sorted(coins)]

    def measured(self, family: str, model: str) -> list[str]:
        """The tables of a family about a model's pictures; of several those that the results are made from."""
        tables = sorted({table for table, _ in self.signature if table.startswith(f"{family}/{model}/")})
        record = self.dataset.record("results") if len(tables) > 1 else None
        return [table for table in tables if record is None or table in record.inputs]

    def agreement(self, model: str) -> str | None:
        """The table of how well a model's pictures fit their prompts."""
        return next(iter(self.measured("agreement", model)), None)

    def ranked(self, model: str) -> list[Key]:
        """Pictures by how well they fit their prompts, the best first; empty where nothing has measured it."""
        return [key for key, _ in self._looked_through(model)[0]]

    def missing(self, model: str) -> dict[Key, str]:
        """The pictures that are not there, in order, and why."""
        return self._looked_through(model)[1]

    def _looked_through(self, model: str) -> tuple[list[tuple[Key, float]], dict[Key, str]]:
        if model not in self._standing:
            table = self.agreement(model)
            value = "width" if table is None else "cosine"
            fits, lost = list[tuple[Key, float]](), dict[Key, str]()
            for row in self._columns(table or pictures_table(model), "row_id", "number", value, "reason"):
                key = Key(row["row_id"], row["number"])
                if row[value] is None:
                    lost[key] = row["reason"]
                elif table is not None:
                    fits.append((key, row["cosine"]))
            fits.sort(key=lambda pair: (-pair[1], pair[0]))
            self._standing[model] = fits, lost
        return self._standing[model]

    def cosines(self, model: str) -> dict[int, float]:
        """How well the first picture of each prompt fits it, by row_id; empty where nothing has measured it."""
        return {key.row_id: cosine for key, cosine in self._looked_through(model)[0] if key.number == 0}

    def cards(self, model: str, keys: Sequence[Key]) -> list[Row]:
        """All that a page says of these pictures, in their order."""
        wanted = {key.row_id for key in keys if key.row_id in self.prompts}
        pictures, table = self._rows(pictures_table(model), wanted), self.agreement(model)
        fits = self._rows(table, wanted) if table is not None else {}
        answers = {table: self._rows(table, wanted) for table in self.measured("answers", model)}
        absent = {"width": None, "height": None, "seed": None, "reason": "not drawn yet", "detail": None}
        found = []
        for key in [key for key in keys if key.row_id in self.prompts]:
            row = pictures.get(key, absent)
            shown = {name: row[name] for name in absent} | {"model": model, "cosine": fits.get(key, {}).get("cosine")}
            said = [
                {"benchmark": table.rpartition("/")[2].partition("-")[0]} | rows[key]
                for table, rows in answers.items()
                if key in rows and rows[key]["share"] is not None
            ]
            found.append(self.prompts[key.row_id] | shown | {"number": key.number, "answers": said})
        return found

    def _rows(self, table: str, row_ids: Iterable[int]) -> dict[Key, Row]:
        rows = rows_at(self.held, table, sorted(row_ids)).to_pylist()
        return {Key(row["row_id"], row["number"]): row for row in rows}

    def numbers(self, model: str, row_id: int) -> list[int]:
        return sorted(key.number for key in self._rows(pictures_table(model), [row_id]))

    def picture(self, model: str, key: Key) -> tuple[str, bytes] | None:
        """The name of a picture's content, and its file; None where there is none that can be read."""
        row = self._rows(pictures_table(model), [key.row_id]).get(key) if model in self.models else None
        if row is None or row["file"] is None or row["width"] is None:
            return None
        try:
            return row["image_id"], read_picture(self.dataset.root, row)
        except OSError:
            return None

    def thumbnail(self, model: str, key: Key, longest_px: int) -> bytes | None:
        """A small JPEG of a picture; None where there is none that can be read."""
        found = self.picture(model, key)
        return None if found is None else thumbnail(found[1], longest_px)


@contextmanager
def unchanged(evaluation: Evaluation) -> Iterator[None]:
    """Say that the evaluation is being written, where that is why it cannot be read inside. Raises Replaced: parts were
    written or deleted since it was opened, and something could not be read."""
    try:
        yield
    except ValueError as error:
        if signature(evaluation.dataset) == evaluation.signature:
            raise
        root = evaluation.dataset.root
        raise Replaced(f"{root}: the evaluation is being written anew; wait for it, or try again") from error


def for_browsers(data: bytes) -> tuple[str, bytes] | None:
    """The media type of a picture and its bytes, as they are where every browser shows them, else as a PNG; None where
    they are no picture."""
    try:
        media_type = SHOWN_AS_THEY_ARE.get(open_file(data, header_only=True).format or "")
        if media_type is not None:
            return media_type, data
        file = io.BytesIO()
        open_rgb(data).save(file, "PNG")
    except (PixelError, *DECODER_ERRORS):
        return None
    return "image/png", file.getvalue()


def signature(dataset: Dataset) -> tuple[tuple[str, str], ...]:
    """The tables that were begun, each with the parts that are on the disk: another one when anything is written."""
    records = dataset.tables / ".records"
    tables = sorted(path.relative_to(records).as_posix().removesuffix(".json") for path in find_files(records))
    shown = [table for table in tables if table.partition("/")[0] in SHOWN]
    return tuple((table, ",".join(name.file for name in names_in(dataset.folder(table)))) for table in shown)


def _by_step(model: str) -> tuple[Any, ...]:
    """Order of names in which ours@2 comes before ours@10."""
    name, _, step = model.rpartition("@")
    return (name, int(step)) if name and step.isdigit() else (model, -1)
