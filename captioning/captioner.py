"""What a captioner is, and the captioners a recipe can name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from PIL import Image

from captioning.attributes import AttributesCaptioner
from schemas import recipe

CAPTIONER_ERRORS = (ValueError, OSError, RuntimeError)
"""What a captioner may raise on a picture it cannot caption: a value it cannot use, a server or file that fails, or
a device that gives up (out of memory is a RuntimeError in torch). Anything else is a defect and stops the job."""


class Captioner(Protocol):
    """Describes pictures in words. Built once per worker, so its constructor loads the weights."""

    @property
    def name(self) -> str:
        """Who wrote the caption, as the `captions` table records it: the model and its revision."""
        ...

    @property
    def prompt(self) -> str | None:
        """What the model was asked; null where it takes no prompt. A caption of another prompt is another caption."""
        ...

    @property
    def batch_size(self) -> int:
        """Most pictures that `caption` is given at once."""
        ...

    def caption(self, images: Sequence[Image.Image]) -> list[str]:
        """One caption per picture, in order; the same picture always gives the same text.

        Args:
            images: upright sRGB pictures of mode RGB, of any size.

        Raises:
            ValueError, OSError, RuntimeError: it fails on one of these pictures (`CAPTIONER_ERRORS`). The caller
                then asks again for one picture at a time, and the picture that fails alone gets no caption.
        """
        ...


CAPTIONERS: dict[str, Callable[[recipe.Caption], Captioner]] = {
    "attributes": lambda section: AttributesCaptioner(),
}
"""The captioners by their name in the recipe (`caption.captioner`), made from the recipe's section."""


def make_captioner(section: recipe.Caption) -> Captioner:
    """The captioner that the recipe names.

    Raises:
        ValueError: there is none of that name, or its weights are missing; the message says what to do.
    """
    make = CAPTIONERS.get(section.captioner)
    if make is None:
        raise ValueError(f"caption.captioner: no captioner {section.captioner!r}; there are {', '.join(CAPTIONERS)}")
    return make(section)
