"""Finds the reading of the published file's resampler under which published captions are likeliest."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from captioning.captioners.share_captioner.checkpoint import ShareCaptioner
from captioning.captioners.share_captioner.dimensions import Cls, ResamplerChoices
from captioning.captioners.share_captioner.model import preprocess
from captioning.captioners.share_captioner.resampler import Resampler
from models.device import choose_device
from models.weights import SHARE_CAPTIONER, find_weights
from schemas.pixels import PixelError, open_rgb
from schemas.texts import parse_json

log = logging.getLogger(__name__)

Pair = tuple[Path, str]
"""A picture and the caption that was published for it."""
BATCH = 4
"""Pictures that the vision tower sees at once."""
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


@dataclass(frozen=True)
class ResamplerReading:
    """One reading of the resampler and how well it explains the captions."""

    choices: ResamplerChoices
    log_likelihood: float
    """Mean over all caption tokens, natural logarithm."""
    share_won: float
    """Share of the pairs whose caption is likelier under the best row than under this one."""


def validate(folder: str | Path, pairs: Sequence[Pair], device: str = "cpu") -> list[ResamplerReading]:
    """The mean teacher-forced log likelihood of published captions under every reading, best first. The weights are
    loaded once and the vision tower runs once per picture; a reading costs one pass of the language model over prompt
    and caption. `pairs`: pictures with captions that this very model has written; some dozens decide the number of
    heads, the finer choices may need hundreds. Raises ValueError: there are no pairs, a picture cannot be read, or the
    folder holds no Share-Captioner."""
    if not pairs:
        raise ValueError("no pairs of picture and caption to validate with")
    captioner = ShareCaptioner.load(folder, device=device)
    connector = captioner.model.connector
    if not isinstance(connector, Resampler):
        raise ValueError(f"{folder}: the v1 base has a Q-Former; nothing about it is open")
    readings = _readings(connector)
    sums = torch.zeros(len(readings), len(pairs), dtype=torch.float64)
    num_tokens = 0
    for begin in range(0, len(pairs), BATCH):
        batch = pairs[begin : begin + BATCH]
        vision = _vision_tokens(captioner, [path for path, _ in batch])
        for place, (_, caption) in enumerate(batch):
            ids = [*captioner.tokenizer.encode(caption), captioner.tokenizer.end_of_answer]
            num_tokens += len(ids)
            for number, choices in enumerate(readings):
                connector.read_as(choices)
                sums[number, begin + place] = _log_likelihood(captioner, vision[place : place + 1], ids)
        log.info("%d of %d pairs", begin + len(batch), len(pairs))
    order = sums.sum(dim=1).argsort(descending=True).tolist()
    return [
        ResamplerReading(
            choices=readings[number],
            log_likelihood=float(sums[number].sum()) / num_tokens,
            share_won=float((sums[order[0]] > sums[number]).double().mean()),
        )
        for number in order
    ]


def validate_weights(
    given: str, captions: Path, images: Path | None, limit: int, device: str, console: Console
) -> None:
    """The command `sigma captioner validate`: read the pairs, score every reading, print the table. Arguments and
    errors as of `find_model`, `read_pairs` and `validate`."""
    folder = find_weights(given, SHARE_CAPTIONER, "FOLDER")
    pairs = read_pairs(captions, images, limit)
    print_rows(validate(folder, pairs, str(choose_device(device, "--device"))), console)


def read_pairs(captions: str | Path, images: str | Path | None = None, limit: int | None = None) -> list[Pair]:
    """Pictures and the captions published for them. `captions`: a folder of pictures, each with its caption in a `.txt`
    of the same name; a `.tsv` of `picture<TAB>caption` lines; or a `.json` as ShareGPT4V publishes it, a list of
    objects whose `image` is the picture and whose last turn in `conversations` is the caption. `images`: the folder of
    the pictures of a `.tsv` or `.json`; None is that file's. `limit`: the first so many whose picture is there. Raises
    ValueError: the captions cannot be read, or no picture of theirs is there."""
    source = Path(captions)
    root = source.parent if images is None else Path(images)
    try:
        if source.is_dir():
            paths = sorted(path for path in source.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
            texts = [(path, path.with_suffix(".txt")) for path in paths]
            named = [(path, text.read_text(encoding="utf-8")) for path, text in texts if text.is_file()]
        elif source.suffix == ".tsv":
            lines = source.read_text(encoding="utf-8").splitlines()
            named = [(root / name, text) for name, tab, text in (line.partition("\t") for line in lines) if tab]
        else:
            records = parse_json(source.read_text(encoding="utf-8"))
            named = [(root / record["image"], record["conversations"][-1]["value"]) for record in records]
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise ValueError(f"{source}: no captions as a folder, .tsv or ShareGPT4V .json ({error!r})") from None
    pairs = [(path, text.strip()) for path, text in named if text.strip() and path.is_file()]
    if not pairs:
        raise ValueError(f"{source}: {len(named)} captions, but none of their pictures is in {root}")
    return pairs[:limit]


def print_rows(rows: Sequence[ResamplerReading], console: Console) -> None:
    """The table, the best first, and the lines for config.json."""
    table = Table(
        "heads", "CLS", "key positions", "LayerNorm eps", "log likelihood / token", "pairs that prefer the best"
    )
    for row in rows:
        choices = row.choices
        cells = (f"{choices.heads}", choices.cls, str(choices.key_pos).lower(), f"{choices.ln_eps:g}")
        table.add_row(
            *cells, f"{row.log_likelihood:.5f}", f"{row.share_won:.0%}", style="bold" if row is rows[0] else ""
        )
    console.print(table)
    console.print("write this into the config.json of the weights (the first row):")
    console.print_json(data=rows[0].choices.as_config())


def _readings(connector: Resampler) -> list[ResamplerChoices]:
    """Every combination of the open points."""
    dim, given = connector.query.shape[1], connector.choices.heads
    heads = (16, 32) if dim == 4096 else (given // 2, given, 2 * given)
    return [
        ResamplerChoices(count, cls, key_pos, ln_eps)
        for count in heads
        if count and dim % count == 0
        for cls in get_args(Cls)
        for key_pos in (True, False)
        for ln_eps in (1e-6, 1e-5)
    ]


@torch.inference_mode()
def _vision_tokens(captioner: ShareCaptioner, paths: Sequence[Path]) -> Tensor:
    """(B, N, vision width)."""
    pictures = []
    for path in paths:
        try:
            pictures.append(open_rgb(path.read_bytes()))
        except (OSError, PixelError) as error:
            raise ValueError(f"{path}: cannot be read as a picture ({error})") from None
    pixels = preprocess(pictures, captioner.image_size).to(captioner.device, captioner.dtype)
    return captioner.model.vision(pixel_values=pixels).last_hidden_state


@torch.inference_mode()
def _log_likelihood(captioner: ShareCaptioner, vision: Tensor, ids: Sequence[int]) -> float:
    """Sum over the caption's tokens, its end among them."""
    model, device = captioner.model, captioner.device
    before, after = (torch.tensor(part, device=device) for part in captioner.tokenizer.prompt(captioner.question))
    written = torch.tensor(ids, device=device)
    embeds = model.prompt(model.projection(model.connector(vision)), before, torch.cat((after, written)))
    logits = model.language(inputs_embeds=embeds, logits_to_keep=len(ids) + 1).logits[0, :-1]
    return float(logits.float().log_softmax(dim=-1).gather(1, written[:, None]).double().sum())
