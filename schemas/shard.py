"""One sample in a tar: the names of its members, their bytes, and the fixed header that makes tars repeatable."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Mapping
from typing import Any, TypedDict

from schemas.texts import parse_json

BLOCK = 512
"""Size of a tar header in bytes; every member is padded to a multiple of it."""

EXTENSIONS = {
    "JPEG": "jpg",
    "MPO": "jpg",
    "PNG": "png",
    "WEBP": "webp",
    "AVIF": "avif",
    "GIF": "gif",
    "TIFF": "tif",
    "BMP": "bmp",
    "JPEG2000": "jp2",
    "PPM": "ppm",
    "TGA": "tga",
    "HEIF": "heic",
    "JXL": "jxl",
    "ICO": "ico",
}
"""Pillow's format name -> the extension of the image member."""


class SyntheticCaption(TypedDict):
    """A caption and the model that wrote it."""

    captioner: str
    caption: str


class SampleMetadata(TypedDict, total=False):
    """The `.json` member. Keys that a sample has nothing for hold null."""

    image_id: str
    caption_raw: str | None
    """The caption that came with the image or a duplicate of it, cleaned; null where none can be trained on."""
    caption_raw_reason: str | None
    """Why `caption_raw` is null (`schemas.reasons.RawCaptionReason`)."""
    caption_raw_from: str | None
    """The image_id of the duplicate that `caption_raw` came with; null where it is the image's own."""
    caption_original: str | None
    """The text that came with the image, unchanged; of a list the first."""
    captions_original: list[str]
    """All texts of the list that came with the image, only where there are several."""
    captions_synthetic: list[SyntheticCaption]
    caption_source: str
    """'synthetic' or 'raw': which one the `.txt` member holds."""
    caption_coin: float
    """unit_interval(image_id, salt); a coin below the synthetic share means 'synthetic'."""
    caption_fallback: str | None
    width: int
    height: int
    """Upright px of the image member."""
    aspect: float
    """height / width."""
    bucket: str
    aesthetic: float | None
    aesthetic_scorer: str | None
    phash: str
    """16 hex digits."""
    subsets: list[str]
    source: str
    """Name of the source and the path inside it."""
    url: str | None
    license: str | None
    sha256: str
    """Hash of the original bytes; the image member has the same bytes unless the recipe resized it."""
    resized: bool
    image_sha256: str
    """Hash of the image member, only where it was re-encoded; older shards lack this key."""
    recipe: str
    """Fingerprint of the knobs that shaped the sample (`DataRecipe.sample_fingerprint`)."""


def extension(image_format: str) -> str:
    """The extension of the image member for a Pillow format name; lower-cased for one not in the list."""
    return EXTENSIONS.get(image_format, "".join(c for c in image_format.lower() if c.isalnum()) or "img")


def encode_json(metadata: SampleMetadata | Mapping[str, Any]) -> bytes:
    """The bytes of the `.json` member: sorted keys, UTF-8, no needless spaces, so equal samples give equal bytes."""
    text = json.dumps(metadata, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-8")


def decode_json(data: bytes) -> SampleMetadata:
    """The `.json` member as a mapping. Raises ValueError: the bytes are not the JSON object of a sample."""
    try:
        value = parse_json(data.decode("utf-8"))
    except ValueError as error:
        raise ValueError(f"not the JSON of a sample: {error}") from None
    if not isinstance(value, dict) or "image_id" not in value:
        raise ValueError("not the JSON of a sample: no image_id")
    return SampleMetadata(**value)


def content_of(image_sha256: str, text: str, facts: SampleMetadata | Mapping[str, Any]) -> str:
    """16 hex digits that digest what training reads of a sample, its picture and its captions. `text`: the `.txt`
    member, or the caption where another member holds it. `facts`: the `.json` member; only its captions count."""
    written: Any = facts.get("captions_synthetic")  # of a damaged sample it may be any JSON
    first = written[0] if isinstance(written, list) and written else None
    parts = [image_sha256, text, facts.get("caption_raw"), first.get("caption") if isinstance(first, dict) else None]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def member_header(name: str, size: int, extension_dots: int = 1) -> bytes:
    """The 512-byte header of a member: mtime 0, owner 0, mode 0644, so that only name and size can differ.
    `extension_dots`: dots of the extension, its first included: `.jpg` has 1, `.raw.npy` 2. Raises ValueError: the name
    needs more than one header block, or holds a dot before its extension."""
    if name.count(".") != extension_dots:
        raise ValueError(f"member {name!r}: a key holds no dot, WebDataset would split it there")
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o644
    header = info.tobuf(format=tarfile.USTAR_FORMAT)
    if len(header) != BLOCK:
        raise ValueError(f"member {name!r}: name too long for a tar header")
    return header


def padding(size: int) -> int:
    """Zero bytes that follow a member of `size` bytes."""
    return -size % BLOCK


END_OF_ARCHIVE = bytes(2 * BLOCK)
"""Two empty blocks end a tar."""
