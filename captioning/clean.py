"""The job `clean`: the raw caption of every image, cleaned, with its language; or the reason why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from engine.map_job import MapJob
from engine.runner import Progress
from schemas import recipe
from schemas.late import late
from schemas.reasons import RawCaptionReason
from schemas.texts import LONGEST_CAPTION

with late(__name__):
    import pyarrow as pa

    from captioning.texts import junk, markup, text
    from captioning.texts.gate import is_language
    from captioning.texts.language import LanguageGuesser
    from captioning.texts.repetition import repeats_itself
    from schemas import tables

ROWS_PER_PROGRESS = 1024

HTML, URLS, HASHTAGS, EXTENSION, END = "html", "urls", "hashtags", "extension", "end"
"""Kinds of text that cleaning takes out of a caption, as named in the column `removed`; the end is what a text has
beyond `LONGEST_CAPTION` characters."""


@dataclass(frozen=True)
class CleanedCaption:
    caption: str | None
    """None where there is a reason."""
    reason: RawCaptionReason | None = None
    removed: tuple[str, ...] = ()
    """The kinds that were taken out; white space and characters that print nothing are not noted."""
    language: str | None = None
    """ISO 639 code; None where the language is not sure."""


def map_job(data_recipe: recipe.DataRecipe) -> MapJob:
    section = data_recipe.clean
    return MapJob(
        job="clean",
        outputs=("raw_captions",),
        inputs=("images",),
        build=partial(Cleaner, section),
        knobs={f"clean.{name}": value for name, value in section.resolved().items()},
    )


class Cleaner:
    """The worker: it cleans and judges the raw captions of one part at a time."""

    def __init__(self, section: recipe.Clean) -> None:
        """Check the section. Raises ValueError: the recipe names a language that is never found."""
        self._section = section
        self._guesser = LanguageGuesser()
        unknown = sorted({*(section.languages or ())} - {*self._guesser.languages()}) if section.languages else []
        if unknown:
            known = ", ".join(self._guesser.languages())
            raise ValueError(f"clean.languages: {unknown[0]!r} is no language the model knows; choose from {known}")

    def __call__(self, inputs: Mapping[str, pa.Table], progress: Progress) -> dict[str, pa.Table]:
        """Clean the raw captions of one part, also of images that are refused later: it depends on no threshold."""
        images = inputs["images"]
        raws = images["raw_caption"].to_pylist()
        found = []
        for begin in range(0, len(raws), ROWS_PER_PROGRESS):
            some = [self.clean(raw) for raw in raws[begin : begin + ROWS_PER_PROGRESS]]
            found += some
            progress(len(some))
        return {
            "raw_captions": pa.table(
                {
                    "row_id": images["row_id"],
                    "image_id": images["image_id"],
                    "caption": [row.caption for row in found],
                    "language": [row.language for row in found],
                    "removed": [list(row.removed) for row in found],
                    "reason": [row.reason for row in found],
                },
                schema=tables.schema_of("raw_captions"),
            )
        }

    def clean(self, raw: str | None) -> CleanedCaption:
        """Take out what is no caption, then judge what is left."""
        if raw is None:
            return CleanedCaption(None, RawCaptionReason.NO_RAW_CAPTION)
        end = (END,) if len(raw) > LONGEST_CAPTION else ()
        raw = markup.beginning(raw)
        caption, removed = cleaned_text(raw)
        removed += end
        reason = junk_reason(raw, caption, self._section.min_words)
        if caption is None or reason is not None:
            return CleanedCaption(None, reason, removed)
        guess = self._guesser.guess(caption)
        wanted = self._section.languages
        if wanted is not None and guess.rules_out(wanted):
            return CleanedCaption(None, RawCaptionReason.OTHER_LANGUAGE, removed, guess.language)
        return CleanedCaption(caption, None, removed, guess.language)


def cleaned_text(raw: str) -> tuple[str | None, tuple[str, ...]]:
    """A raw caption without HTML, addresses, trailing hashtags and the extension of a descriptive file name. Returns
    the text, normalised, or None where nothing is left; and what was taken out."""
    removed = []
    caption = raw
    for name, take_out in (
        (HTML, markup.without_html),
        (URLS, markup.without_urls),
        (HASHTAGS, junk.without_hashtags),
        (EXTENSION, junk.without_extension),
    ):
        before = text.clean(caption) or ""
        caption = take_out(before)
        if caption != before:
            removed.append(name)
    return text.clean(caption), tuple(removed)


def junk_reason(raw: str, caption: str | None, min_words: int) -> RawCaptionReason | None:
    """The reason why a raw caption cannot be trained on; None where it can. `raw`: as it came with the image.
    `caption`: what `cleaned_text` made of it."""
    given = text.clean(markup.without_html(raw))
    if given is None:
        return RawCaptionReason.NOTHING_LEFT
    if not text.words(caption or "") and markup.without_urls(given) != given:
        return RawCaptionReason.ONLY_URL
    if junk.is_keywords(given):  # before its hashtags are taken out
        return RawCaptionReason.KEYWORDS
    if caption is None:
        return RawCaptionReason.NOTHING_LEFT
    if junk.is_file_name(caption):
        return RawCaptionReason.FILE_NAME
    if junk.is_camera_name(caption):
        return RawCaptionReason.CAMERA_NAME
    if junk.is_placeholder(caption):
        return RawCaptionReason.PLACEHOLDER
    if junk.is_keywords(caption):
        return RawCaptionReason.KEYWORDS
    if not is_language(caption) or repeats_itself(caption):
        return RawCaptionReason.GIBBERISH
    if len(text.words(caption)) < min_words:
        return RawCaptionReason.TOO_SHORT
    return None
