"""Makes the captioner that a recipe names."""

from __future__ import annotations

from collections.abc import Callable

from captioning.captioners.base import Captioner
from captioning.captioners.local_model import find_share_captioner, find_vlm
from schemas import recipe


def _attributes(section: recipe.Caption) -> Captioner:
    from captioning.captioners.attributes import AttributesCaptioner

    return AttributesCaptioner()


def _share_captioner(section: recipe.Caption) -> Captioner:
    from captioning.captioners.share_captioner import RecipeCaptioner, VllmCaptioner  # imports torch and transformers

    own = section.share_captioner
    return (VllmCaptioner if own.engine == "vllm" else RecipeCaptioner)(own, section.chosen_device())


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
"""Name in the recipe (`caption.captioner`) -> the function that makes the captioner from the recipe's section. Each
function imports its captioner, so that a recipe pays only for the captioner it names."""


def make_captioner(section: recipe.Caption) -> Captioner:
    """The captioner that the recipe names. Raises ValueError, with what to do: there is none, or it lacks its
    weights."""
    make = CAPTIONERS.get(section.captioner)
    if make is None:
        raise ValueError(f"caption.captioner: no captioner {section.captioner!r}; there are {', '.join(CAPTIONERS)}")
    return make(section)


def find_captioner(section: recipe.Caption) -> None:
    """Check, loading and sending nothing, that this machine has the captioner's weights, or the key for its server, by
    the functions by which the captioner finds them. Raises ValueError, with what to do: they are missing."""
    if section.captioner == "share_captioner":
        find_share_captioner(section.share_captioner)
    elif section.captioner == "vlm":
        find_vlm(section.vlm)
    elif section.captioner == "endpoint":
        from captioning.captioners.endpoint import read_key

        read_key(section.endpoint.api_key_env)
