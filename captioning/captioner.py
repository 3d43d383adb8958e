"""What a captioner is, and the captioners a recipe can name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from captioning.local_model import find_share_captioner, find_vlm
from schemas import recipe
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


def _attributes(section: recipe.Caption) -> Captioner:
    from captioning.attributes import AttributesCaptioner

    return AttributesCaptioner()


def _share_captioner(section: recipe.Caption) -> Captioner:
    from captioning.share_captioner import RecipeCaptioner  # imports torch and transformers

    own = section.share_captioner
    return RecipeCaptioner(own, section.device_of(own.device))


def _vlm(section: recipe.Caption) -> Captioner:
    from captioning.vlm import VlmCaptioner  # imports torch and transformers

    return VlmCaptioner(section.vlm, section.device_of(section.vlm.device))


def _endpoint(section: recipe.Caption) -> Captioner:
    from captioning.endpoint import EndpointCaptioner

    return EndpointCaptioner(section.endpoint)


CAPTIONERS: dict[str, Callable[[recipe.Caption], Captioner]] = {
    "attributes": _attributes,
    "share_captioner": _share_captioner,
    "vlm": _vlm,
    "endpoint": _endpoint,
}
"""The captioners by their name in the recipe (`caption.captioner`), made from the recipe's section. Each is imported
when it is made: a recipe pays for the captioner it names only."""


def make_captioner(section: recipe.Caption) -> Captioner:
    """The captioner that the recipe names.

    Raises:
        ValueError: there is none of that name, or its weights are missing; the message says what to do.
    """
    make = CAPTIONERS.get(section.captioner)
    if make is None:
        raise ValueError(f"caption.captioner: no captioner {section.captioner!r}; there are {', '.join(CAPTIONERS)}")
    return make(section)


def find_captioner(section: recipe.Caption) -> None:
    """See that what the captioner needs is on this machine, by the functions that it finds it with: weights, or a key
    for a server. Nothing is loaded and no server is asked.

    Raises:
        ValueError: it is not; the message says what to do.
    """
    if section.captioner == "share_captioner":
        find_share_captioner(section.share_captioner)
    elif section.captioner == "vlm":
        find_vlm(section.vlm)
    elif section.captioner == "endpoint":
        from captioning.endpoint import read_key

        read_key(section.endpoint.api_key_env)
