"""Weights files as people have them: checksums, names inside wrappers, variants of a folder, and what is no model."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from torch import Tensor

log = logging.getLogger(__name__)

END_RECORD, END_BYTES = b"PK\5\6", 22
"""The last record of a zip, which every file of `torch.save` is; its last two bytes count those of a comment."""
NO_COMMENT = bytes(2)
SEAL = b"sha256 "
SEAL_BYTES = 2 + len(SEAL) + 64
"""Of the comment that states the digest of a file as it was without one, and of the two bytes that count it."""
NOT_A_ZIP = (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, RuntimeError, struct.error, OverflowError)
"""What `zipfile` raises on damage."""

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


class SealedFile:
    """A file for `torch.save` that digests what is written, and states the digest at its own end.

    The seal is the comment of a zip, which every reader of such files passes over.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._digest = file, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self._digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()

    def seal(self) -> None:
        """Put the digest in place of the empty comment, once all is written."""
        self._file.seek(-len(NO_COMMENT), os.SEEK_END)
        self._file.write(_seal(self._digest))


def _seal(digest: hashlib._Hash) -> bytes:
    return struct.pack("<H", SEAL_BYTES - 2) + SEAL + digest.hexdigest().encode()


def stated_digest(path: Path) -> bytes | None:
    """The seal at the end of a file, right or wrong; None where the file has none."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - SEAL_BYTES - END_BYTES + 2))
        tail = file.read()
    return tail[END_BYTES - 2 :] if len(tail) == SEAL_BYTES + END_BYTES - 2 and tail.startswith(END_RECORD) else None


def digested(path: Path, num_bytes: int) -> hashlib._Hash:
    """sha256 of the first bytes of a file, to be continued."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while num_bytes > 0 and (block := file.read(min(num_bytes, 1 << 22))):
            digest.update(block)
            num_bytes -= len(block)
    return digest


def file_digest(path: Path) -> str:
    """sha256 of a file, of a sealed one as it was before; a seal is believed."""
    stated = stated_digest(path)
    return (
        digested(path, path.stat().st_size).hexdigest() if stated is None else stated[2 + len(SEAL) :].decode("latin-1")
    )


def refuse_damage(path: Path) -> None:
    """Compare a torch file with its own checksums: the seal of ours, the checksum of each tensor in others'.

    Raises:
        ValueError: a byte is not what it was.
        OSError: the file cannot be read.
    """
    if path.stat().st_size == 0:
        raise ValueError("it is empty, 0 bytes")
    stated = stated_digest(path)
    if stated is not None:
        digest = digested(path, path.stat().st_size - SEAL_BYTES)
        digest.update(NO_COMMENT)
        if stated != _seal(digest):
            raise ValueError("damaged: its checksum is wrong")
        return
    with path.open("rb") as file:
        if file.read(4) != b"PK\3\4":
            return  # the layout of torch before 1.6, which has no checksums
    try:
        with zipfile.ZipFile(path) as content:
            wrong = content.testzip()
    except NOT_A_ZIP as error:
        raise ValueError(f"cut short or damaged: {error}") from None
    if wrong is not None:
        raise ValueError(f"damaged: the checksum of {wrong} in it is wrong")


def plain_weights(content: dict[Any, Any], *, ema: bool, origin: str) -> dict[str, Tensor]:
    """The tensors of a file by their names in the model, out of the containers and wrappers of training programs.

    What is left out of the names is logged.

    Raises:
        ValueError: the content is no set of weights, several, or those of a LoRA or the like.
    """
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


def diffusers_files(folder: Path, *, ema: bool = True) -> list[Path]:
    """The weights files of a diffusers model folder: those in full precision, else the variant that is there.

    A variant `non_ema` holds the last weights, any other file their average or the only ones.

    Raises:
        ValueError: the folder holds none, or only some parts of them.
    """
    if (folder / INDEX).is_file():
        try:
            names = sorted(
                {str(name) for name in json.loads((folder / INDEX).read_text("utf-8"))["weight_map"].values()}
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{folder / INDEX}: cannot be read as an index of weights ({error!r})") from None
        for name in names:
            if Path(name).name != name or not (folder / name).is_file():
                raise ValueError(f"{folder}: no {name} in this folder; a diffusers model folder is expected")
        return [folder / name for name in names]
    groups: dict[tuple[str, str, int], list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if match := DIFFUSERS_FILE.fullmatch(path.name):
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
