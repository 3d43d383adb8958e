"""Tars that others wrote: what a folder of them is, the source that reads it, and the caption of a sample."""

from __future__ import annotations

from pathlib import Path

from schemas.sources import TarCaptions
from schemas.texts import NotText, captions_in, clean_text, decode, parse_json

IMG2DATASET_STATS = "_stats.json"
"""The end of the name of a file that img2dataset writes for each of its tars."""


def kind_of_tars(folder: Path) -> str | None:
    """The `kind` of source that reads the tars of a local folder; None where it holds none."""
    try:
        names = {path.name for path in folder.iterdir()}
    except OSError:
        return None
    stems = {name.removesuffix(".tar") for name in names if name.endswith(".tar") and not name.startswith(".")}
    if not stems:
        return None
    is_img2dataset = any({stem + IMG2DATASET_STATS, f"{stem}.parquet"} & names for stem in stems)
    return "img2dataset" if is_img2dataset else "webdataset"


def as_source(kind: str, place: Path | str) -> str:
    """The entry of a data recipe that reads a folder of tars, or another kind of source."""
    knob = "urls" if kind == "webdataset" else "path"
    return f"sources: [{{kind: {kind}, {knob}: {place}}}]"


def caption_of(text: bytes, metadata: bytes) -> str | None:
    """The caption in a sample's `.txt`, else in the first field of its `.json` that holds text; None without one."""
    caption = clean_text(decode(text)) if text else None
    words = decode(metadata) if metadata and caption is None else None
    if words is None:
        return caption
    try:
        facts = parse_json(words)
    except NotText:
        return None
    return next(iter(captions_in(facts, TarCaptions().json_fields)), None) if isinstance(facts, dict) else None
