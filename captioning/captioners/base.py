"""The protocol of captioners: pictures in, one answer per picture out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from schemas.ids import counter

CAPTIONER_ERRORS = (ValueError, OSError, RuntimeError)
"""Errors a captioner may raise on a picture it cannot caption: a value it cannot use, a file that fails, or a device
that gives up (out of memory is a RuntimeError in torch). Anything else is a defect and stops the job."""

Plain = str | int | float | bool | None


class CaptionerUnusable(ValueError):
    """The captioner can caption no picture at all: a wrong key, a server that is not there. It stops the job."""


@dataclass(frozen=True)
class Generated:
    """The text a captioner wrote about one picture."""

    text: str
    """as the model gave it; may be empty"""
    ended: bool = True
    """False where the limit of tokens cut it"""
    num_tokens: int | None = None
    """tokens of the captioner's own tokenizer; None where it does not count them"""


@dataclass(frozen=True)
class CaptionFailure:
    """The reason why one picture got no answer, while the others of its batch did."""

    reason: str


Answer = Generated | CaptionFailure


class Captioner(Protocol):
    """A captioner describes pictures in words. Each worker builds one, so its constructor loads the weights."""

    @property
    def name(self) -> str:
        """The author of the caption: the model, and the first 8 digits of its revision where it has one."""
        ...

    @property
    def revision(self) -> str | None:
        """The commit of the model's repository, or the digest of its folder; None where it has neither."""
        ...

    @property
    def prompt(self) -> str | None:
        """The prompt of the model; None where it takes none. A caption of another prompt is another caption."""
        ...

    @property
    def parameters(self) -> Mapping[str, Plain]:
        """Everything else that shapes a caption: decoding, limits, precision."""
        ...

    @property
    def retries_help(self) -> bool:
        """True if another seed can change the text about a picture."""
        ...

    @property
    def batch_size(self) -> int:
        """The largest number of pictures that one call of `caption` takes."""
        ...

    def caption(self, images: Sequence[Image.Image], seeds: Sequence[int]) -> Sequence[Answer]:
        """One answer per picture, in order; the same picture and seed always give the same one.

        Args:
            images: upright sRGB pictures of mode RGB, of any size.
            seeds: one per picture, from its identity (`seed_of`), 0 to 2^53 - 1.

        Raises:
            CaptionerUnusable: it cannot work at all; the job stops.
            ValueError, OSError, RuntimeError: it fails on one of these pictures (`CAPTIONER_ERRORS`). The caller
                then tries one picture at a time, and the picture that fails alone gets no caption.
        """
        ...


def seed_of(image_id: str, attempt: int = 0) -> int:
    """The seed of an image: 53 bits of sha256, the same on every machine; another attempt has another one."""
    return counter(image_id, f"caption {attempt}")
