"""The job `mix`: a coin per image says whether its sample carries the synthetic or the raw caption."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from engine.map_job import MapJob
from engine.runner import Progress
from models.tokenizers import find_tokenizer, load_tokenizer
from schemas import recipe
from schemas.ids import unit_interval
from schemas.late import late
from schemas.reasons import Fallback, RawCaptionReason
from schemas.sentences import fit
from schemas.tokens import MAX_TOKENS

with late(__name__):
    import pyarrow as pa

    from captioning.texts import gate
    from captioning.texts.text import kept_mask, raw_offers
    from schemas import tables

SYNTHETIC, RAW = "synthetic", "raw"

Choice = tuple[str | None, str | None, Fallback | None]
"""(caption, its source, the reason why the coin's source was not taken)"""


@dataclass(frozen=True)
class CandidateCaption:
    """A caption that an image has, or the reason why it has none."""

    caption: str | None
    reason: str | None = None


def map_job(data_recipe: recipe.DataRecipe) -> MapJob:
    section = data_recipe.mix
    return MapJob(
        job="mix",
        outputs=("mix",),
        inputs=("raw_captions", "captions", "selection"),
        build=partial(Mixer, section),
        knobs={f"mix.{name}": value for name, value in section.resolved().items()},
        needs=(partial(find_tokenizer, section.tokenizer),),
    )


def choose(raw: CandidateCaption, synthetic: CandidateCaption, coin: float, synthetic_share: float) -> Choice:
    """Follow the coin, or fall back to the other caption where the one it names is missing or was refused. A coin under
    `synthetic_share` takes the synthetic caption, so raising the share only ever moves images from raw to synthetic.
    Returns the caption, its source and the reason of a fallback; three times None where there is no caption at all."""
    wanted, other = (SYNTHETIC, RAW) if coin < synthetic_share else (RAW, SYNTHETIC)
    candidates = {SYNTHETIC: synthetic, RAW: raw}
    if candidates[wanted].caption is not None:
        return candidates[wanted].caption, wanted, None
    if candidates[other].caption is not None:
        why = _synthetic_fallback(synthetic.reason) if wanted == SYNTHETIC else _raw_fallback(raw.reason)
        return candidates[other].caption, other, why
    return None, None, None


def _synthetic_fallback(reason: str | None) -> Fallback:
    return Fallback.SYNTHETIC_REFUSED if reason in gate.GATE else Fallback.SYNTHETIC_MISSING


def _raw_fallback(reason: str | None) -> Fallback:
    missing = reason is None or reason == RawCaptionReason.NO_RAW_CAPTION
    return Fallback.RAW_MISSING if missing else Fallback.RAW_REFUSED


class Mixer:
    """The worker: it chooses and cuts the captions of one part at a time."""

    def __init__(self, section: recipe.Mix) -> None:
        """Load the tokenizer. Raises ValueError: the tokenizer is not on this machine."""
        self._section = section
        self._tokenizer = load_tokenizer(section.tokenizer)

    def __call__(self, inputs: Mapping[str, pa.Table], progress: Progress) -> dict[str, pa.Table]:
        """Toss for the kept rows of one part; a row that was not kept has neither coin nor caption. A caption of more
        than `MAX_TOKENS` tokens is cut behind its last sentence that fits."""
        raws, synthetics = raw_offers(inputs["raw_captions"], inputs["selection"]), inputs["captions"]
        kept = kept_mask(raws, inputs["selection"])
        coins: list[float | None] = []
        choices: list[Choice] = []
        for image_id, row_kept, raw, synthetic in zip(
            raws["image_id"].to_pylist(), kept, _candidates(raws), _candidates(synthetics), strict=True
        ):
            coin = unit_interval(image_id, self._section.salt) if row_kept else None
            coins.append(coin)
            choices.append(
                (None, None, None) if coin is None else choose(raw, synthetic, coin, self._section.synthetic_share)
            )
        fitted = self._fitted([caption for caption, _, _ in choices])
        progress(raws.num_rows)
        return {
            "mix": pa.table(
                {
                    "row_id": raws["row_id"],
                    "image_id": raws["image_id"],
                    "caption": [caption for caption, _, _ in fitted],
                    "caption_source": [source for _, source, _ in choices],
                    "coin": coins,
                    "fallback": [fallback for _, _, fallback in choices],
                    "num_tokens": [num_tokens for _, num_tokens, _ in fitted],
                    "tokenizer": [None if caption is None else self._tokenizer.name for caption, _, _ in fitted],
                    "truncated": [truncated for _, _, truncated in fitted],
                },
                schema=tables.schema_of("mix"),
            )
        }

    def _fitted(self, captions: list[str | None]) -> list[tuple[str | None, int | None, bool | None]]:
        """(caption, number of tokens, True if it was cut) of each caption; three times None where there is none."""
        counts = iter(self._tokenizer.count([caption for caption in captions if caption is not None]))
        found: list[tuple[str | None, int | None, bool | None]] = []
        for caption in captions:
            num_tokens = None if caption is None else next(counts)
            if caption is None or num_tokens is None:
                found.append((None, None, None))
            elif num_tokens <= MAX_TOKENS:
                found.append((caption, num_tokens, False))
            else:
                found.append((*fit(caption, MAX_TOKENS, self._tokenizer.count), True))
        return found


def _candidates(table: pa.Table) -> list[CandidateCaption]:
    return [
        CandidateCaption(caption, reason)
        for caption, reason in zip(table["caption"].to_pylist(), table["reason"].to_pylist(), strict=True)
    ]
