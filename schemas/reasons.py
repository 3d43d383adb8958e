"""The closed vocabulary of reasons in tables: rejections, errors and caption failures."""

from __future__ import annotations

from enum import StrEnum

PURGED = "purged"
"""The image was taken out (`sigma purge`): the reason of its row in every table that has reasons, and its outcome in
the ledger. `purged.jsonl` records for whom and when."""

OUTCOMES = ("kept", "rejected", "error", PURGED, "pending")
"""Every outcome that an input can have in the ledger, in the order in which all tables and pages list them."""


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
    """The decoder refused the data for another reason (it is in the detail)."""
    ANIMATED = "animated"
    """More than one frame."""
    HDR = "hdr"
    """Its numbers hold more light than a screen shows (PQ, HLG, floats beyond white), and nothing says how to show
    it."""
    TOO_MANY_PIXELS = "too_many_pixels"
    """A pixel bomb: refused from the header, before decoding."""


class FetchError(StrEnum):
    """Why an input could not be fetched over the network; ends as outcome 'error' in the ledger."""

    NOT_FOUND = "not_found"
    """404 or 410: it is not there any more."""
    FORBIDDEN = "forbidden"
    """401, 403 or 451."""
    RATE_LIMITED = "rate_limited"
    """429: the server wants fewer requests."""
    SERVER_ERROR = "server_error"
    """5xx."""
    TIMEOUT = "timeout"
    """No answer in time, or one that stopped half way."""
    UNREACHABLE = "unreachable"
    """No connection: refused, reset, no such host, a bad certificate."""
    OPTED_OUT = "opted_out"
    """The owner's X-Robots-Tag header forbids the use."""
    BAD_URL = "bad_url"
    """The text is no address that can be fetched."""
    FETCH_FAILED = "fetch_failed"
    """Anything else; the downloader's message is in the detail."""


TRANSIENT = frozenset({FetchError.RATE_LIMITED, FetchError.SERVER_ERROR, FetchError.TIMEOUT, FetchError.UNREACHABLE})
"""Reasons of the network that may pass."""

RETRIED = TRANSIENT | {ImageError.UNREADABLE}
"""Reasons for which `sigma ingest --retry-failed` reads inputs again, and no others: a disk may be back."""


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
    TRANSPARENT = "transparent"
    """More than `select.max_transparency` of the picture is see-through: it is a white page."""
    LOW_AESTHETIC = "low_aesthetic"
    """The aesthetic score is under `select.min_aesthetic`."""
    TOO_COMMON = "too_common"
    """Every noun of its caption is in more images than `balance.most_images`, and the coin, which is the threshold, is
    not under its weight, which is the value."""
    BLURRED = "blurred"
    """The sharpness is under `select.min_sharpness`."""
    UPSCALED = "upscaled"
    """The picture looks enlarged by more than `select.max_upscale`."""
    BORDERED = "bordered"
    """More than `select.max_border` of the picture is frame or bars."""
    NSFW = "nsfw"
    """The classifier `nsfw` gives more than `select.max_nsfw`."""
    WATERMARKED = "watermarked"
    """The classifier `watermark` gives more than `select.max_watermark`."""
    CAPTION_OFF = "caption_off"
    """CLIP sees the raw caption in the picture less than `select.min_clip_similarity`."""
    TEXT = "text"
    """More than `select.max_text_area` of the picture is writing."""
    FACES = "faces"
    """The picture shows more faces than `select.max_faces`."""
    LARGE_FACE = "large_face"
    """A face covers more of the picture than `select.max_face_area`."""
    DUPLICATE = "duplicate"
    """Another image of the same group was kept; `duplicate_of` names it."""
    IN_OTHER_DATASET = "in_other_dataset"
    """A dataset of `dedup.against` holds the picture; `other_dataset` and `duplicate_of` name it."""
    NO_CAPTION = "no_caption"
    """Neither a raw nor a synthetic caption is left to train on."""


class CaptionReason(StrEnum):
    """Why a row has no synthetic caption."""

    NOT_SELECTED = "not_selected"
    """The image was not kept, so no captioner was called."""
    EMPTY_CAPTION = "empty_caption"
    """The captioner gave no text."""
    CAPTIONER_FAILED = "captioner_failed"
    """The captioner raised on this image (the detail is in the log)."""
    REFUSAL = "refusal"
    """The captioner declined or spoke of itself: that it is sorry, that it is an AI, that it sees no image."""
    PROMPT_ECHO = "prompt_echo"
    """The caption repeats the prompt, or plays both sides of a conversation."""
    MARKUP = "markup"
    """The caption holds HTML, Markdown, JSON, control tokens, or a URL that is no writing in the picture."""
    BOXES = "boxes"
    """The caption holds coordinates of boxes or points; older tables call it `markup`."""
    TAGS = "tags"
    """A list of keywords or tags, not sentences; older tables call it `keywords`."""
    REPETITION = "repetition"
    """The caption repeats words, phrases or sentences."""
    NOT_LANGUAGE = "not_language"
    """The caption is digits, signs or broken characters rather than words."""
    OTHER_LANGUAGE = "other_language"
    """The caption, a sentence of it or letters in it are surely in none of `clean.languages`."""
    CUT = "cut"
    """The captioner reached its limit of tokens in the middle of a sentence, or wrote more than any caption has."""


class RawCaptionReason(StrEnum):
    """Why a row has no raw caption to train on; the original text is kept in `images`."""

    NO_RAW_CAPTION = "no_raw_caption"
    """Nothing came with the image."""
    NOTHING_LEFT = "nothing_left"
    """White space, tags, hashtags: no text is left once they are taken out."""
    FILE_NAME = "file_name"
    """The name of a file, as a camera or a phone gives it."""
    CAMERA_NAME = "camera_name"
    """The name of a camera, or the text that a camera writes in place of a description."""
    PLACEHOLDER = "placeholder"
    """A placeholder for no text: "untitled", "image", "no description available"."""
    ONLY_URL = "only_url"
    """An address and no other text."""
    KEYWORDS = "keywords"
    """A list of keywords or hashtags."""
    GIBBERISH = "gibberish"
    """Digits, signs or broken characters rather than words, or the same words again and again."""
    TOO_SHORT = "too_short"
    """Fewer words than `clean.min_words`."""
    OTHER_LANGUAGE = "other_language"
    """Surely none of `clean.languages`."""


class Fallback(StrEnum):
    """Why the mix took the caption that the coin had not chosen."""

    SYNTHETIC_MISSING = "synthetic_missing"
    """The captioner gave none, or failed."""
    SYNTHETIC_REFUSED = "synthetic_refused"
    """The captioner gave one, and the quality gate refused it."""
    RAW_MISSING = "raw_missing"
    """Nothing came with the image."""
    RAW_REFUSED = "raw_refused"
    """The text that came with the image is no caption to train on."""


class PromptReason(StrEnum):
    """Why a source of prompts has none where one should be."""

    BLANK = "blank"
    """Nothing that can be seen."""
    NUL = "nul"
    """The text holds a NUL character, which many programs take for its end."""
    TOO_LONG = "too_long"
    """It has more than 300 words and marks, so that no text encoder reads all of it."""


class PictureReason(StrEnum):
    """Why there is no picture of a prompt to be measured; also the reasons of `ImageError`."""

    NOT_GENERATED = "not_generated"
    """The folder has none of this name."""
    NSFW_BLACKED_OUT = "nsfw_blacked_out"
    """The pipeline's own filter has put black in its place."""
    CONSTANT = "constant"
    """Every pixel has the same colour. It is measured all the same: early checkpoints draw such pictures."""


class AnswerReason(StrEnum):
    """Why a picture has no answers to the questions of a benchmark; also the reasons of `PictureReason`."""

    REFUSED = "refused"
    """The content filter of the server has held an answer back."""
    UNPARSED = "unparsed"
    """A reply is neither yes nor no."""
    NO_QUESTIONS = "no_questions"
    """The benchmark's file has no question about the prompt."""


class PixelError(ValueError):
    """The bytes do not hold one whole picture."""
