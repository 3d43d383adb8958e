"""The folders of the published encoders that a recipe names, and the digests of what is in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from models.digest import weights_digest
from models.tokenizers import find_vocabulary
from models.weights import SDXL_VAE, T5_XXL, component, find_weights, missing_weights

if TYPE_CHECKING:
    from schemas.training import Latents, Text

DIGESTED_SUFFIXES, DIGESTED_NAMES = (".safetensors", ".model"), ("config.json", "tokenizer.json")
"""The files that name the content of a folder of weights: weights, vocabularies and configurations."""


def weights_digests(latents: Latents, text: Text) -> dict[str, str | None]:
    """The digest of each encoder's weights, by knob; None where they are not on this machine. Others are left out."""
    digests = {}
    if latents.codec == "sdxl":
        digests["latents.weights"] = vae_digest(latents)
    if text.encoder == "t5":
        digests["text.weights"] = t5_digest(text)
    return digests


def vae_digest(latents: Latents) -> str | None:
    """The digest of the VAE that a recipe names, in whatever folder it is; None where this machine does not have it."""
    return _digest(lambda: [vae_folder(latents)])


def t5_digest(text: Text) -> str | None:
    """The digest of the T5 encoder and tokenizer that a recipe names; None where this machine does not have them."""
    return _digest(lambda: t5_folders(text))


def _digest(find: Callable[[], Iterable[Path]]) -> str | None:
    try:
        files = [path for folder in find() for path in sorted(folder.iterdir())]
    except ValueError:  # what find_weights raises where there are none
        return None
    return weights_digest(path for path in files if path.suffix in DIGESTED_SUFFIXES or path.name in DIGESTED_NAMES)


def vae_folder(latents: Latents) -> Path:
    found = find_weights(latents.weights, SDXL_VAE, "latents.weights")
    folder = component(found, "vae")
    if folder is None:
        raise missing_weights(SDXL_VAE, "latents.weights", str(found))
    return folder


def t5_folders(text: Text) -> tuple[Path, Path]:
    found = find_weights(text.weights, T5_XXL, "text.weights")
    folder, vocabulary = component(found, "text_encoder"), find_vocabulary(found)
    if folder is None or vocabulary is None:
        raise missing_weights(T5_XXL, "text.weights", str(found))
    return folder, vocabulary.parent
