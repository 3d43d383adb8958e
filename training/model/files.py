"""Weights files as people have them: names inside wrappers, variants of a folder, and what is no model."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor

log = logging.getLogger(__name__)

AVERAGES = ("state_dict_ema", "ema_state_dict", "model_ema", "params_ema", "ema")
LAST_WEIGHTS = ("state_dict", "model_state_dict", "model", "module", "params")
"""Names under which training programs store averaged and last weights."""
WRAPPER = re.compile(r"(?:(?<=\.)|^)(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""What torch.compile, FSDP and activation checkpointing put into a name."""
PATCHES = ("x_embedder.proj.weight", "pos_embed.proj.weight")
"""A tensor that every model has, in the official layout and in diffusers'."""
AVERAGE = re.compile(r"(?:^|_)(?:ema|averaged?|shadow)(?:_|$)", re.IGNORECASE)
"""A name under which averages are stored, also by programs that are not known."""
ADDITIONS = {
    "a ControlNet": re.compile(r"control_?net|input_hint_block", re.IGNORECASE),
    "an adapter of pictures": re.compile(r"^(image_proj|ip_adapter|adapter\.body)\b", re.IGNORECASE),
    "a LyCORIS": re.compile(r"lycoris|hada_w|lokr_w|glora|b?oft_(blocks|diag|r\b)", re.IGNORECASE),
    "a LoRA": re.compile(r"lora[._]|dora_scale|vera_lambda|adapter_model", re.IGNORECASE),
}
"""Parts of the names of tensors that change another model or add to it."""
DIFFUSERS_FILE = re.compile(
    r"diffusion_pytorch_model(?:\.(?P<variant>[a-zA-Z]\w*))?(?:-\d{5}-of-(?P<count>\d{5}))?(?:\.(?P<older>[a-zA-Z]\w*))?"
    r"\.(?P<format>safetensors|bin)"
)
"""A weights file of a diffusers folder; libraries have put the variant before and behind the number of a part."""
INDEX = "diffusion_pytorch_model.safetensors.index.json"


TensorSet = tuple[tuple[str, ...], dict[str, Tensor]]
"""Tensors by their names, behind the names that lead to them."""


def plain_weights(content: dict[Any, Any], *, ema: bool, origin: str) -> dict[str, Tensor]:
    """The tensors of a file by their names in the model, out of the containers and wrappers of training programs; what
    is left out is logged. Raises ValueError: the content is no set of weights, several, or a LoRA or the like."""
    found = list(_sets_of_tensors(content))
    for names, tensors in found:
        refuse_additions([*names, *tensors], origin)
    found = [one for one in found if any(key.endswith(PATCHES) for key in one[1])] or found
    averages = [one for one in found if any(AVERAGE.search(name) for name in one[0])]
    last = [one for one in found if not any(AVERAGE.search(name) for name in one[0])]
    chosen = sorted(averages if ema and averages else last, key=_place)
    if not chosen:
        raise ValueError(f"{origin}: holds no weights (expected a dict of tensors, or one under 'state_dict')")
    if len(chosen) > 1 and _place(chosen[0]) == _place(chosen[1]):
        both = " and ".join(".".join(names) for names, _ in chosen[:2])
        raise ValueError(
            f"{origin}: holds several sets of weights ({both}); store the one to read in a file of its own"
        )
    names, content = chosen[0]
    if ema and names and not averages:
        log.info("%s: holds no average of the weights; those under %r are read", origin, ".".join(names))
    weights = {WRAPPER.sub("", key): value for key, value in content.items()}
    prefix = next((key.removesuffix(name) for key in weights for name in PATCHES if key.endswith(f".{name}")), "")
    if not prefix or not all(key.startswith(prefix) for key in weights):
        return weights
    log.info("%s: every name begins with %r, which is left out", origin, prefix)
    return {key.removeprefix(prefix): value for key, value in weights.items()}


def _sets_of_tensors(content: dict[Any, Any], names: tuple[str, ...] = ()) -> Iterator[TensorSet]:
    """The dicts of tensors inside dicts, but for those of an optimizer."""
    if content and all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()):
        yield names, content
    for name, value in content.items():
        if isinstance(name, str) and isinstance(value, dict) and "optim" not in name.lower():
            yield from _sets_of_tensors(value, (*names, name))


def _place(found: TensorSet) -> int:
    """The place of a set among the names that are known; those that are not come last."""
    known = (*AVERAGES, *LAST_WEIGHTS)
    return min((known.index(name) for name in found[0] if name in known), default=len(known))


def refuse_additions(names: Iterable[str], origin: str) -> None:
    """Raise a ValueError where the names of tensors or files are those of a LoRA, a ControlNet and the like."""
    for kind, pattern in ADDITIONS.items():
        part = next((name for name in names if pattern.search(name)), None)
        if part is not None:
            way = "name the weights of that model"
            if kind in ("a LoRA", "a LyCORIS"):
                way = "merge it into that model first (diffusers: fuse_lora, save_pretrained), then name the result"
            raise ValueError(f"{origin}: is {kind} ({part}), a change to another model and no model by itself; {way}")


def refuse_pointer(file: Path) -> None:
    """Raise a ValueError where Git has left a few lines in place of a large file."""
    with suppress(OSError), file.open("rb") as opened:
        if opened.read(24) == b"version https://git-lfs.":
            raise ValueError(f"{file}: is a pointer of Git LFS and not the file; git lfs pull in its folder gets it")


def refuse_other_heads(folder: Path, num_heads: int) -> None:
    """Raise a ValueError where the config.json of a diffusers folder says another number of heads. No tensor has
    another shape for it, so that the model would compute something else and say nothing."""
    for place in filter(Path.is_file, (folder / "transformer" / "config.json", folder / "config.json")):
        try:
            heads = json.loads(place.read_text("utf-8")).get("num_attention_heads", num_heads)
        except (OSError, ValueError, RecursionError, AttributeError):
            continue  # nothing else in it is needed
        if heads != num_heads:
            raise ValueError(f"{place}: says {heads} attention heads, the recipe has model.num_heads={num_heads}")
        return


def diffusers_files(folder: Path, *, ema: bool = True) -> list[Path]:
    """The weights files of a diffusers model folder: those in full precision, else the variant that is there. A variant
    `non_ema` holds the last weights, any other file their average or the only ones. Raises ValueError: the folder holds
    none, or only some parts of them."""
    if (folder / INDEX).is_file():
        try:
            names = sorted(
                {str(name) for name in json.loads((folder / INDEX).read_text("utf-8"))["weight_map"].values()}
            )
        except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{folder / INDEX}: cannot be read as an index of weights ({error!r})") from None
        for name in names:
            if Path(name).name != name or not (folder / name).is_file():
                raise ValueError(f"{folder}: no {name} in this folder; a diffusers model folder is expected")
        return [folder / name for name in names]
    groups: dict[tuple[str, str, int], list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if (match := DIFFUSERS_FILE.fullmatch(path.name)) and path.is_file():
            variant = match["variant"] or match["older"] or ""
            groups.setdefault((variant, match["format"], int(match["count"] or 1)), []).append(path)

    def preference(group: tuple[str, str, int]) -> tuple[bool, bool, bool, bool, str]:
        variant, kind, count = group
        return (len(groups[group]) < count, (variant == "non_ema") == ema, variant != "", kind == "bin", variant)

    if not groups:
        others = [
            path.name for path in sorted(folder.iterdir()) if path.suffix in (".safetensors", ".bin", ".pth", ".pt")
        ]
        refuse_additions(others, str(folder))
        hint = f"; to read {others[-1]}, name that file" if others else ""
        raise ValueError(
            f"{folder}: no diffusion_pytorch_model.safetensors in this folder; a diffusers model folder is expected"
            f"{hint}"
        )
    chosen = min(groups, key=preference)
    variant, _, count = chosen
    if len(groups[chosen]) < count:
        raise ValueError(f"{folder}: holds {len(groups[chosen])} of {count} parts of the weights; get the others")
    if variant:
        log.info("%s: the variant %s is read: %s", folder, variant, groups[chosen][0].name)
    return groups[chosen]
