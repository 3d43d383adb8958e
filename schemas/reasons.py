"""The closed vocabulary of why a row is not what one hoped for: rejections, errors and caption failures."""

from __future__ import annotations

from enum import StrEnum


class ImageError(StrEnum):
    """Why the bytes of an input gave no picture; ends as outcome 'error' in the ledger."""

    UNREADABLE = "unreadable"
    """The file cannot be opened or read: permissions, a vanished file, a broken disk."""
    EMPTY = "empty"
    """Zero bytes."""
    NOT_AN_IMAGE = "not_an_image"
    """The bytes are no image format: an HTML error page named .jpg, text, an archive."""
    UNSUPPORTED = "unsupported"
    """An image format this installation has no decoder for (the detail names it)."""
    TRUNCATED = "truncated"
    """The image ends before its last pixel."""
    CORRUPT = "corrupt"
    """The decoder refused the data for another reason (the detail says which)."""
    ANIMATED = "animated"
    """More than one frame."""
    TOO_MANY_PIXELS = "too_many_pixels"
    """A pixel bomb: refused from the header, before decoding."""


class FetchError(StrEnum):
    """Why an input could not be fetched over the network; ends as outcome 'error' in the ledger."""

    NOT_FOUND = "not_found"
    """404 or 410: it is not there any more."""
    FORBIDDEN = "forbidden"
    """401, 403 or 451."""
    RATE_LIMITED = "rate_limited"
    """429: the server asks for patience."""
    SERVER_ERROR = "server_error"
    """5xx."""
    TIMEOUT = "timeout"
    """No answer in time, or one that stopped half way."""
    UNREACHABLE = "unreachable"
    """No connection: refused, reset, no such host, a bad certificate."""
    OPTED_OUT = "opted_out"
    """The owner's X-Robots-Tag header asks not to be used."""
    BAD_URL = "bad_url"
    """The text is no address that can be fetched."""
    FETCH_FAILED = "fetch_failed"
    """Anything else (the detail says what the downloader said)."""


TRANSIENT = frozenset({FetchError.RATE_LIMITED, FetchError.SERVER_ERROR, FetchError.TIMEOUT, FetchError.UNREACHABLE})
"""What may be over later: `sigma ingest --retry-failed` fetches these again, and no other."""


class ShardError(StrEnum):
    """Why a kept image could not be packed; ends as outcome 'error' in the ledger."""

    SOURCE_CHANGED = "source_changed"
    """The bytes are no longer those that were ingested (another sha256)."""
    SOURCE_MISSING = "source_missing"
    """The original cannot be read any more."""


class Rejection(StrEnum):
    """Which rule of `select` an image failed; ends as outcome 'rejected', with the value and the threshold."""

    TOO_SMALL = "too_small"
    """The short side is under `select.min_short_side_px`."""
    EXTREME_ASPECT = "extreme_aspect"
    """The long side is more than `select.max_aspect` times the short side."""
    LOW_AESTHETIC = "low_aesthetic"
    """The aesthetic score is under `select.min_aesthetic`."""
    DUPLICATE = "duplicate"
    """Another image of the same group was kept; `duplicate_of` names it."""
    NO_CAPTION = "no_caption"
    """Neither a raw nor a synthetic caption is left to train on."""


class CaptionReason(StrEnum):
    """Why a row has no synthetic caption."""

    NOT_SELECTED = "not_selected"
    """The image was not kept, so no captioner was asked."""
    EMPTY_CAPTION = "empty_caption"
    """The captioner gave no text."""
    CAPTIONER_FAILED = "captioner_failed"
    """The captioner raised on this image (the detail is in the log)."""


class Fallback(StrEnum):
    """Why the mix took the other caption than the coin said."""

    SYNTHETIC_MISSING = "synthetic_missing"
    RAW_MISSING = "raw_missing"
