"""The captioners a recipe can name."""

from __future__ import annotations

from collections.abc import Callable

from captioning.captioners.base import Captioner
from captioning.captioners.local_model import find_share_captioner, find_vlm
from schemas import recipe


def _attributes(section: recipe.Caption) -> Captioner:
    from captioning.captioners.attributes import AttributesCaptioner

    return AttributesCaptioner()


def _share_captioner(section: recipe.Caption) -> Captioner:
    from captioning.captioners.share_captioner import RecipeCaptioner  # imports torch and transformers

    own = section.share_captioner
    return RecipeCaptioner(own, section.chosen_device())


def _vlm(section: recipe.Caption) -> Captioner:
    from captioning.captioners.vlm import VlmCaptioner  # imports torch and transformers

    return VlmCaptioner(section.vlm, section.chosen_device())


def _endpoint(section: recipe.Caption) -> Captioner:
    from captioning.captioners.endpoint import EndpointCaptioner

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
        from captioning.captioners.endpoint import read_key

        read_key(section.endpoint.api_key_env)
