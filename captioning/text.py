"""What a caption is as text: normalised, or missing; and which rows of a part may have one."""

from __future__ import annotations

import unicodedata

import pyarrow as pa
import pyarrow.compute as pc


def clean(text: str | None) -> str | None:
    """A caption in Unicode NFC with single spaces and none at its ends; None where nothing is left of it."""
    if text is None:
        return None
    return " ".join(unicodedata.normalize("NFC", text).split()) or None


def kept_mask(rows: pa.Table, selection: pa.Table) -> list[bool]:
    """For each row of a part, whether `selection` kept it; a row that selection does not know was not kept."""
    kept = selection.filter(selection["kept"])["row_id"]
    mask: list[bool] = pc.is_in(rows["row_id"], value_set=kept.combine_chunks()).to_pylist()
    return mask
