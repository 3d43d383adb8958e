"""The log of takedowns, `purged.jsonl`: which inputs were taken out and why; `ingest` never lets them in again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from engine.dataset import Dataset
from schemas.commit import write_bytes
from schemas.files import is_file, read_file
from schemas.late import late
from schemas.reasons import PURGED
from schemas.seal import BrokenSeal, from_json, to_json

with late(__name__):
    import pyarrow as pa

    from curation.dedup.fingerprint import hamming, proxy_phash
    from schemas.tables import schema_of

IDENTITY = frozenset({"row_id", "image_id", "source", "source_name", "member", "byte_offset", "num_bytes", "sha256"})
"""Columns that a purged row keeps: they name the input, and the hash of the bytes that must not come in again."""

REASONS = ("reason", "rejected_by")
"""Columns that hold `purged` in a purged row."""


@dataclass(frozen=True)
class TakedownEntry:
    """One input that was taken out, or one hash that is refused before anything has matched it."""

    matched_by: str
    """The selector, such as `url=https://...`."""
    why: str
    when: str
    """UTC, ISO 8601."""
    row_id: int | None = None
    """None where no input of the dataset matched."""
    image_id: str | None = None
    """None where no byte of the input was read yet, or where only a pHash is refused."""
    sha256: str | None = None
    name: str | None = None
    """`<name of the source>/<member>`."""
    phash: str | None = None
    """16 hex digits: pictures within `distance` bits of it are refused too."""
    distance: int = 0
    features: tuple[str, ...] = ()
    """Folders of stored features outside the dataset that were to be cleaned too."""
    heirs: tuple[tuple[int, str], ...] = ()
    """(row_id, image_id) of pictures that stay and had taken over its raw caption."""
    finished: bool = False
    """Whether nothing of it is left in the dataset."""


def log_path(dataset: Dataset) -> Path:
    return dataset.root / "purged.jsonl"


def read_log(dataset: Dataset) -> list[TakedownEntry]:
    """Every entry, oldest first; none where nothing was ever taken out. Raises ValueError: the log is damaged."""
    path = log_path(dataset)
    if not is_file(path):
        return []
    entries = []
    for number, line in enumerate(read_file(path).removesuffix(b"\n").split(b"\n"), start=1):
        try:
            values = from_json(line.decode())
            heirs = tuple((row_id, image_id) for row_id, image_id in values.get("heirs", ()))
            entries.append(TakedownEntry(**values | {"features": tuple(values["features"]), "heirs": heirs}))
        except (ValueError, TypeError, KeyError, BrokenSeal) as error:
            raise ValueError(f"{path}: line {number} is damaged ({error}); put the file back from a copy") from None
    return entries


def write_log(dataset: Dataset, entries: Iterable[TakedownEntry]) -> None:
    lines = (to_json(asdict(entry), ensure_ascii=False, sort_keys=True) + "\n" for entry in entries)
    write_bytes(log_path(dataset), "".join(lines).encode())


def finished(entries: Iterable[TakedownEntry]) -> list[TakedownEntry]:
    """The same entries, carried out."""
    return [replace(entry, finished=True) for entry in entries]


def refuse_unfinished(dataset: Dataset) -> None:
    """Refuse to compute over a takedown that was interrupted. Raises ValueError: with the command that finishes it."""
    if any(not entry.finished for entry in read_log(dataset)):
        raise ValueError(
            f"{dataset.root}: a takedown was interrupted; finish it first: sigma purge {dataset.root} --resume"
        )


def blank(field: pa.Field) -> Any:
    """The value of a column in a purged row: an empty one, or `KeepValue` where the contract allows none."""
    if field.name in REASONS:
        return PURGED
    if field.nullable:
        return None
    if pa.types.is_list(field.type):
        return []
    return False if pa.types.is_boolean(field.type) else KeepValue


class KeepValue:
    """Marks a value that a purged row keeps: a column of `IDENTITY`, or one that may not be null."""


def blank_row(row: Mapping[str, Any], schema: pa.Schema, why: str) -> dict[str, Any]:
    """A row of a table with nothing of the image left in it."""
    values: dict[str, Any] = {}
    for field in schema:
        value = KeepValue if field.name in IDENTITY else blank(field)
        values[field.name] = row.get(field.name) if value is KeepValue else value
    return values | ({"detail": why} if "detail" in schema.names else {})


class Withheld:
    """Inputs that `ingest` must not let in, known by their number, by the hash of their bytes, or by their pHash."""

    def __init__(self, entries: Iterable[TakedownEntry]) -> None:
        entries = list(entries)
        self._rows = {entry.row_id: entry.why for entry in entries if entry.row_id is not None}
        self._images = {entry.image_id: entry.why for entry in entries if entry.image_id is not None}
        self._pictures = {(int(entry.phash, 16), entry.distance): entry.why for entry in entries if entry.phash}

    def hold_back(self, proxy: dict[str, Any], image: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Rows of `proxies` and `images` as they are, or emptied where the log names them."""
        why = self._rows.get(image["row_id"]) or self._images.get(image.get("image_id") or "")
        if why is None and self._pictures and proxy.get("jpeg") is not None:
            found = proxy_phash(proxy["jpeg"])
            why = next((why for (near, bits), why in self._pictures.items() if hamming(near, found) <= bits), None)
        if why is None:
            return proxy, image
        return blank_row(proxy, schema_of("proxies"), why), blank_row(image, schema_of("images"), why)


NOTHING_WITHHELD = Withheld(())
