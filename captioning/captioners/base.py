"""What a captioner is: one answer per picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from schemas.ids import counter

CAPTIONER_ERRORS = (ValueError, OSError, RuntimeError)
"""What a captioner may raise on a picture it cannot caption: a value it cannot use, a file that fails, or a device
that gives up (out of memory is a RuntimeError in torch). Anything else is a defect and stops the job."""

Plain = str | int | float | bool | None


class CaptionerUnusable(ValueError):
    """No picture can be captioned like this: a wrong key, a server that is not there. Stops the job."""


@dataclass(frozen=True)
class Generated:
    """What a captioner wrote about one picture."""

    text: str
    """as the model gave it; may be empty"""
    ended: bool = True
    """False where the limit of tokens cut it"""
    num_tokens: int | None = None
    """tokens of the captioner's own tokenizer; None where it does not tell"""


@dataclass(frozen=True)
class CaptionFailure:
    """Why one picture got no answer, while the others of its batch did."""

    reason: str


Answer = Generated | CaptionFailure


class Captioner(Protocol):
    """Describes pictures in words. Built once per worker, so its constructor loads the weights."""

    @property
    def name(self) -> str:
        """Who wrote the caption: the model, and the first 8 digits of its revision where it has one."""
        ...

    @property
    def revision(self) -> str | None:
        """The commit of the model's repository, or the digest of its folder; None where there is nothing to tell."""
        ...

    @property
    def prompt(self) -> str | None:
        """What the model was asked; None where it takes no prompt. A caption of another prompt is another caption."""
        ...

    @property
    def parameters(self) -> Mapping[str, Plain]:
        """What else shapes a caption: decoding, limits, precision."""
        ...

    @property
    def retries_help(self) -> bool:
        """Whether another seed can change what it writes about a picture."""
        ...

    @property
    def batch_size(self) -> int:
        """Most pictures that `caption` is given at once."""
        ...

    def caption(self, images: Sequence[Image.Image], seeds: Sequence[int]) -> Sequence[Answer]:
        """One answer per picture, in order; the same picture and seed always give the same one.

        Args:
            images: upright sRGB pictures of mode RGB, of any size.
            seeds: one per picture, from its identity (`seed_of`), 0 to 2^53 - 1.

        Raises:
            CaptionerUnusable: it cannot work at all; the job stops.
            ValueError, OSError, RuntimeError: it fails on one of these pictures (`CAPTIONER_ERRORS`). The caller
                then asks again for one picture at a time, and the picture that fails alone gets no caption.
        """
        ...


def seed_of(image_id: str, attempt: int = 0) -> int:
    """The seed of an image: 53 bits of sha256, the same on every machine; another attempt has another one."""
    return counter(image_id, f"caption {attempt}")
