"""The jobs that show pictures to networks: features of each model's pictures, and how well they fit their prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from engine.map_job import MapJob
from engine.runner import Progress
from evaluation.features import INCEPTION, Network, each_of, inception, of_clip, of_cmmd
from evaluation.picture_files import as_jpeg, named, read_picture
from evaluation.pictures import pictures_table
from models.clip import Clip
from models.digest import weights_digest
from models.fetching import find_packaged
from models.weights import CLIP_L14, CLIP_L14_336, FID_INCEPTION, Weight, find_frozen, weights_name
from schemas.evaluation import Metrics, Run
from schemas.reasons import ImageError
from schemas.tables import schema_of

TEXTS = 256
"""Prompts that CLIP reads at once."""


@dataclass(frozen=True)
class Wanted:
    """A network that the pictures are to be shown to, known before it is loaded."""

    metrics: tuple[str, ...]
    """What is measured with it."""
    name: str
    """Its name and the beginning of its weights' sha256, or of their digest."""
    protocol: str
    load: Callable[[str], Network | Clip]
    """Loads it on a device; picklable."""
    missing: str | None = None
    """How to get its weights, where they are not on this machine."""

    def why_not(self, moments: str | None) -> str | None:
        """Why pictures are not shown to it. `moments`: the protocol of moments in place of a reference, where there are
        any."""
        if self.missing is not None or moments is None or self.protocol in ("clip", moments):
            return self.missing
        return f"the reference is moments of the protocol {moments}"

    def table(self, model: str) -> str:
        family = "agreement" if self.protocol == "clip" else "features"
        return f"{family}/{model}/{self.name.partition('@')[0].rpartition('/')[2]}-{self.protocol}"


def wanted_networks(metrics: Metrics, has_reference: bool) -> list[Wanted]:
    """The networks of a recipe's metrics, those too whose weights are not on this machine."""
    found = []
    if has_reference:
        missing = _missing(partial(find_packaged, FID_INCEPTION))
        for protocol in metrics.protocols:
            names = ("fid", "kid", "precision", "recall")
            found.append(Wanted(names, INCEPTION, protocol, partial(inception, protocol), missing))
        if metrics.cmmd:
            name, missing = clip_name(metrics.cmmd_clip, CLIP_L14_336, "metrics.cmmd_clip")
            found.append(Wanted(("cmmd",), name, "cmmd", partial(_load_cmmd, metrics.cmmd_clip), missing))
    if metrics.clip_score:
        name, missing = clip_name(metrics.clip, CLIP_L14, "metrics.clip")
        found.append(Wanted(("clip_score",), name, "clip", partial(load_clip, metrics.clip), missing))
    return found


def _missing(find: Callable[[], object]) -> str | None:
    try:
        find()
    except ValueError as error:
        return str(error)
    return None


def clip_name(given: str | None, published: Weight, key: str) -> tuple[str, str | None]:
    """The name of a CLIP with the beginning of its weights' digest, and how to get it where it is not here."""
    try:
        return find_network(given, published, key)[1], None
    except ValueError as error:
        return given or published.hub_id, str(error)


def find_network(given: str | None, published: Weight, key: str) -> tuple[Path, str]:
    """The folder of a model that a recipe names, and its name with the beginning of its weights' digest. Raises
    ValueError: it is not on this machine."""
    folder = find_frozen(given, published, key)
    name = weights_name(given, folder, published).partition("@")[0]
    return folder, f"{name}@{weights_digest(sorted(folder.glob('*.safetensors')))[:12]}"


def load_clip(given: str | None, device: str) -> Clip:
    return Clip.load(given, "metrics.clip", device)


def _load_cmmd(given: str | None, device: str) -> Network:
    return of_cmmd(Clip.load(given, "metrics.cmmd_clip", device, CLIP_L14_336))


def features_job(root: Path, model: str, wanted: Wanted, per_prompt: int, run: Run) -> MapJob:
    table, pictures = wanted.table(model), pictures_table(model)
    knobs = {"network": wanted.name, "protocol": wanted.protocol}
    is_clip = wanted.protocol == "clip"
    worker = partial(Agreements if is_clip else PictureFeatures, root, model, wanted, run)
    return MapJob(
        job=f"features-{model}",
        inputs=("prompts", pictures) if is_clip else (pictures,),
        outputs=(table,),
        knobs=knobs,
        build=worker,
        rows_per_input=per_prompt if is_clip else 1,
        num_gpus=None,
        workers=run.workers,
    )


class PictureFeatures:
    """The worker: pictures are decoded and resized on threads while the network works on those before."""

    def __init__(self, root: Path, model: str, wanted: Wanted, run: Run) -> None:
        self._root, self._table, self._threads = root, wanted.table(model), run.threads
        self._pictures = pictures_table(model)
        self._loaded = wanted.load(run.device)
        self._network = of_clip(self._loaded) if isinstance(self._loaded, Clip) else self._loaded

    def __call__(self, inputs: Mapping[str, pa.Table], progress: Progress) -> dict[str, pa.Table]:
        rows = inputs[self._pictures].to_pylist()
        found = []
        for row, features in measured(self._root, rows, self._network, self._threads):
            got = features if isinstance(features, dict) else {"features": features}
            found.append(named(row) | got)
            progress(1)
        return {self._table: pa.Table.from_pylist(found, schema=schema_of("features/"))}


class Agreements(PictureFeatures):
    """The worker of CLIP-Score: each picture with its own prompt."""

    def __call__(self, inputs: Mapping[str, pa.Table], progress: Progress) -> dict[str, pa.Table]:
        from evaluation.clip_score import clip_score

        clip, rows = self._loaded, inputs[self._pictures].to_pylist()
        assert isinstance(clip, Clip)
        texts = dict(zip(inputs["prompts"]["row_id"].to_pylist(), inputs["prompts"]["prompt"].to_pylist(), strict=True))
        found, waiting = list[dict[str, Any]](), list[tuple[dict[str, Any], np.ndarray]]()
        for row, features in measured(self._root, rows, self._network, self._threads):
            found.append(named(row) | (features if isinstance(features, dict) else {}))
            if not isinstance(features, dict):
                waiting.append((found[-1], features))
        for start in range(0, len(waiting), TEXTS):
            some = waiting[start : start + TEXTS]
            prompts = [texts[row["row_id"]] for row, _ in some]
            cosines = clip_score(np.stack([each for _, each in some]), clip.embed_texts(prompts))
            for (row, _), cosine, prompt in zip(some, cosines, prompts, strict=True):
                row |= {"cosine": cosine, "share_read": min(1.0, clip.max_tokens / clip.num_tokens(prompt))}
        progress(inputs["prompts"].num_rows)
        return {self._table: pa.Table.from_pylist(found, schema=schema_of("agreement/"))}


def measured(
    root: Path, rows: Sequence[dict[str, Any]], network: Network, threads: int
) -> Iterator[tuple[dict[str, Any], np.ndarray | dict[str, Any]]]:
    """Each row of a model's pictures in order, with its features (d,), or with the reason why it has none. Under Sana's
    protocols the pictures that were drawn here pass through a JPEG, as all of Sana's have."""
    there = [row for row in rows if row["file"] is not None and row["width"] is not None]

    def bytes_of(row: Mapping[str, Any]) -> bytes:
        try:
            data = read_picture(root, row)
            is_sana = network.protocol.startswith("sana") and row["drawn"] is not None
            return as_jpeg(data) if is_sana else data
        except OSError:  # it was there when the table was made; what cannot be decoded is said by its row
            return b""

    features = each_of((bytes_of(row) for row in there), network, threads)
    for row in rows:
        if row["file"] is None or row["width"] is None:
            yield row, {"reason": row["reason"], "detail": row["detail"]}
            continue
        found = next(features)
        if isinstance(found, str):
            yield row, {"reason": ImageError.CORRUPT.value, "detail": found}
        elif not np.isfinite(found).all():
            raise ValueError(
                f"{network.name} gives NaN or infinity for the picture {row['prompt_id']} in {row['file']}"
            )
        else:
            yield row, found
