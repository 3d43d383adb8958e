"""Every external weight the project knows: where it is published, how large it is, and under which licence."""

from __future__ import annotations

import shlex
from dataclasses import dataclass


@dataclass(frozen=True)
class Weight:
    """One published set of weights.

    Attributes:
        what: what it is, in a few words.
        hub_id: repository on the Hugging Face hub.
        pattern: the files of it that are needed, as `hf download --include` takes them; `*` is all of them.
        size: about how much is downloaded.
        licence: as the repository states it.
        revision: the commit it is pinned to. None: no commit is pinned yet, so the repository's newest is meant.
    """

    what: str
    hub_id: str
    pattern: str
    size: str
    licence: str
    revision: str | None = None

    @property
    def command(self) -> str:
        """What to type to get it into a folder of its own name."""
        pinned = f" --revision {self.revision}" if self.revision else ""
        return (
            f"hf download {self.hub_id}{pinned} --include {shlex.quote(self.pattern)} "
            f"--local-dir {self.hub_id.rpartition('/')[2]}"
        )

    @property
    def folder(self) -> str:
        """The folder that `command` makes."""
        return self.hub_id.rpartition("/")[2]


SDXL_VAE = Weight(
    what="the SDXL autoencoder, in the weights that are safe in 16 bit",
    hub_id="PixArt-alpha/pixart_sigma_sdxlvae_T5_diffusers",
    pattern="vae/*",
    size="0.34 GB",
    licence="MIT",
)
T5_XXL = Weight(
    what="the T5-v1.1-XXL encoder (4.76 billion parameters, float32) and its tokenizer",
    hub_id="PixArt-alpha/pixart_sigma_sdxlvae_T5_diffusers",
    pattern="t*/*",  # text_encoder/ and tokenizer/
    size="19 GB",
    licence="Apache-2.0",
)
SIGMA_256 = Weight("PixArt-Σ-XL/2 at 256 px", "PixArt-alpha/PixArt-Sigma", "*256x256.pth", "2.4 GB", "openrail++")
SIGMA_512 = Weight("PixArt-Σ-XL/2 at 512 px", "PixArt-alpha/PixArt-Sigma", "*512-MS.pth", "2.4 GB", "openrail++")
SIGMA_1024 = Weight("PixArt-Σ-XL/2 at 1024 px", "PixArt-alpha/PixArt-Sigma", "*1024-MS.pth", "2.4 GB", "openrail++")
SIGMA_2K = Weight("PixArt-Σ-XL/2 at 2048 px", "PixArt-alpha/PixArt-Sigma", "*2K-MS.pth", "2.4 GB", "openrail++")
ALPHA_256 = Weight(
    what="PixArt-α-XL/2 at 256 px, from which the paper's VAE adaptation starts",
    hub_id="PixArt-alpha/PixArt-alpha",
    pattern="PixArt-XL-2-256x256.pth",
    size="2.4 GB",
    licence="openrail++",
)
LLAVA = Weight(
    what="LLaVA-1.5-7B, for the LLaVA that captioned PixArt-α's data",
    hub_id="llava-hf/llava-1.5-7b-hf",
    pattern="*",
    size="14 GB",
    licence="Llama 2 Community License",
)
SHARE_CAPTIONER = Weight(
    what="Share-Captioner (8.4 billion parameters, bfloat16) and its tokenizer",
    hub_id="Lin-Chen/ShareCaptioner",
    pattern="*[!i]?",  # everything but .bin, which holds the same tensors again
    size="16.8 GB",
    licence="not checked: see the repository",
    revision="4a825ed7b2e2bff57237b0bee887fe6cc9d91c91",  # where the tensors are safetensors; main has .bin alone
)
XCOMPOSER = Weight(
    what="InternLM-XComposer-7B, Share-Captioner's v1 base (bfloat16), and its tokenizer",
    hub_id="internlm/internlm-xcomposer-7b",
    pattern="*",
    size="18.6 GB",
    licence="not checked: see the repository",
)

WEIGHTS = (
    SDXL_VAE, T5_XXL, SIGMA_256, SIGMA_512, SIGMA_1024, SIGMA_2K, ALPHA_256, LLAVA, SHARE_CAPTIONER, XCOMPOSER,
)  # fmt: skip
"""All of them. A revision is pinned only where one was recorded: none could be checked without the hub."""


def missing_weights(weight: Weight, key: str, given: str | None = None) -> ValueError:
    """The error for weights that are not on this machine; nothing is ever downloaded unasked.

    Args:
        key: the knob to set, such as `text.weights`.
        given: what the knob is set to now; None where it is not set.
    """
    here = "" if given is None else f"; {given} holds none, or is neither a folder nor in the local hub cache"
    return ValueError(
        f"weights missing: {weight.hub_id} ({weight.what}, {weight.size}){here}: get them with `{weight.command}`, "
        f"then set {key}{' ' if key.startswith('--') else '='}{weight.folder}"
    )
