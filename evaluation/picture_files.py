"""Files of pictures: finding them in a folder, reading one, and what a row says of it."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curation.images.decode import decode
from curation.images.header import Unreadable
from schemas import files
from schemas.ids import image_id
from schemas.opening import open_file
from schemas.reasons import PictureReason
from schemas.shard import EXTENSIONS
from schemas.strict import fingerprint

Pixels = NDArray[np.uint8]
"""(height, width, 3), RGB."""


def pictures_table(model: str) -> str:
    return f"pictures/{model}"


def named(row: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that say which picture a row is about."""
    return {name: row[name] for name in ("row_id", "prompt_id", "number", "category")}


def read_picture(root: Path, row: Mapping[str, Any]) -> bytes:
    """The bytes of a picture that a row of `pictures/<model>` names, below `root`. Raises OSError: they cannot be
    read."""
    path = root / row["file"]
    with files.open_file(path) as file:
        if row["offset"] is None:
            return file.read()
        file.seek(row["offset"])
        data = file.read(row["size"])
    if len(data) < row["size"]:
        raise OSError(f"{path}: ends before byte {row['offset'] + row['size']:,}")
    return data


def facts_of(data: bytes) -> dict[str, Any]:
    facts: dict[str, Any] = {"image_id": image_id(hashlib.sha256(data).hexdigest())}
    try:
        found = decode(data)
    except Unreadable as error:
        return facts | {"reason": error.reason.value, "detail": str(error)}
    pixels = np.asarray(found.image)
    facts |= {"width": pixels.shape[1], "height": pixels.shape[0], "format": found.header.format}
    facts |= {"pixel_sha256": pixel_digest(pixels), "quality": quantisation(data)}
    return facts | ({"reason": PictureReason.CONSTANT.value} if (pixels == pixels[:1, :1]).all() else {})


def quantisation(data: bytes) -> str | None:
    """The digest of a JPEG's quantisation tables, which its quality decides; None of another format."""
    tables = getattr(open_file(data, header_only=True), "quantization", None)
    return None if not tables else hashlib.sha256(json.dumps(sorted(tables.items())).encode()).hexdigest()[:8]


def as_jpeg(data: bytes) -> bytes:
    """A picture as Pillow and torchvision save a JPEG unless they are asked otherwise; Sana's rows are of such."""
    file = io.BytesIO()
    decode(data).image.save(file, format="JPEG", quality=75)
    return file.getvalue()


def pixel_digest(pixels: Pixels) -> str:
    digest = hashlib.sha256(f"{pixels.shape[1]}x{pixels.shape[0]}".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def pictures_by_name(folder: Path) -> dict[str, Path]:
    """Pictures of a folder and of those below it, by their names without the ending; names hold no `/`. Raises
    ValueError: there is no such folder, it has no picture, or two have one name."""
    found = dict[str, Path]()
    for path in pictures_in(folder):
        if (other := found.setdefault(path.stem, path)) != path:
            raise ValueError(f"{folder}: {other.relative_to(folder)} and {path.relative_to(folder)} have one name")
    return found


def pictures_in(folder: Path) -> list[Path]:
    """The pictures below a folder by their endings, in order; not those of the folder `evaluation` at its top,
    where features are kept. Raises ValueError: there is no such folder, or it has none."""
    endings = {f".{ending}" for ending in (*EXTENSIONS.values(), "jpeg", "tiff")}
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder of pictures")
    files = (path for path in folder.rglob("*") if path.suffix.lower() in endings and path.is_file())
    found = sorted(files, key=lambda path: path.parts)  # paths themselves compare slowly
    found = [path for path in found if path.parts[len(folder.parts)] != "evaluation"]
    if not found:
        raise ValueError(f"{folder}: holds no pictures")
    return found


def folder_stamp(paths: Sequence[Path]) -> str:
    """A digest of the names, sizes and times of files: another one where a file was written since."""
    stats = ((path, path.stat()) for path in paths)
    return fingerprint([[str(path), stat.st_size, stat.st_mtime_ns] for path, stat in stats])[:16]
