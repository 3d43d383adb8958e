"""What a stage was trained from: its knobs and digests of what it reads, kept in its folder and compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from engine.ahead import ahead
from schemas.commit import write_bytes
from schemas.files import read_file
from schemas.seal import check_text, seal_text
from schemas.training import Stage, TrainingRecipe
from schemas.unread import why_damaged
from training.data.reader import DamagedSample, ShardReader
from training.data.selection import Selection
from training.encoders.weights import weights_digests
from training.model.convert import weights_sha256
from training.stages import copies_of
from training.weak_to_strong import parent_weights

RECIPE_FILE = "recipe.yaml"
"""Holds the knobs that a stage folder was trained with."""
CHANGES = "changes"
"""The entry of that file that lists knobs which were changed on the way, each with the step."""
CHANGEABLE = ("optimizer.", "stage.lr", "stage.warmup_steps", "ema.", "precision", "seed", "exact_sums")
"""Beginnings of the knobs that may change on the way: those that steer training, not what is trained on what."""
DIGESTS = (
    "parent_sha256",
    "dataset.sizes_sha256",
    "dataset.content_sha256",
    "dataset.contents_sha256",
    "latents.weights_sha256",
    "text.weights_sha256",
)
"""Compared where both sides know them."""
PARENT_NAMES = ("stage.parent", "parent_weights")
"""Names of weights, which say nothing where their digest is known."""
ADDED = {"data.balance_concepts": False, "data.lanes": 1, "stage.weights": "ema", "stage.distil": None}
"""Knobs that a folder may not name, with the values by which every stage was trained before there were these knobs."""
SAMPLES_DIGESTED = 256
"""Samples whose bytes are read, to tell tars that were changed in place, or an index without digests."""
REQUESTS = 16
"""Samples that are read from a store at once."""
SPEED_KNOBS = ("micro_batch", "threads", "prefetch", "cache_mb", "cache_gb", "cache_dir", "max_damaged")
"""Of `data`: they change how fast a batch is made and whether it fits, not what is in it."""


def rows_sha256(rows: Selection, columns: Sequence[str]) -> str:
    """sha256 of one column of all rows after the other, its values joined by newlines."""
    digest = hashlib.sha256()
    for column in columns:
        for number, part in enumerate(rows.parts([column])):
            digest.update(b"\n" if number else b"")
            values = part[column].cast(pa.string()).combine_chunks()
            lines = pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)
            digest.update(pc.binary_join(lines, "\n")[0].as_buffer())
    return digest.hexdigest()


def content_sha256(recipe: TrainingRecipe, rows: Selection) -> str | None:
    """sha256 of the bytes of pictures and the captions that training reads, of `SAMPLES_DIGESTED` rows spread evenly.
    None where a tar is gone or not the one of the index: features may train a stage without them."""
    copies = copies_of(recipe)
    digest, reader = hashlib.sha256(), ShardReader(recipe.dataset_folder / "shards", rows, copies=copies)

    def sample(row: int) -> bytes:
        image = bytes(reader.members(row)["image"])
        try:
            found = reader.captions(row)
        except DamagedSample:
            return image  # as training, which puts another in its place
        return image + json.dumps([found.mixed, found.raw, found.synthetic]).encode()

    chosen = np.linspace(0, rows.num_rows - 1, min(rows.num_rows, SAMPLES_DIGESTED)).astype(int).tolist()
    try:
        for part in ahead(sample, sorted(set(chosen)), threads=1 if copies is None else REQUESTS):
            digest.update(part)
    except ValueError:
        return None
    finally:
        reader.close()
    return digest.hexdigest()


def sizes_sha256(rows: Selection) -> str:
    """sha256 of the columns of all rows that tell one build of the same pictures from another."""
    digest = hashlib.sha256()
    for column in ("width", "height", "image_size", "txt_size"):
        for part in rows.parts([column]):
            digest.update(part[column].to_numpy().astype(np.int64).tobytes())
    return digest.hexdigest()


def identity(recipe: TrainingRecipe, stage: Stage, rows: Selection) -> dict[str, Any]:
    """Everything that the numbers of a stage depend on, as plain values: knobs, and digests of what it reads."""
    whole = recipe.resolved()
    parts = {
        key: whole[key]
        for key in ("seed", "model", "latents", "text", "optimizer", "data", "ema", "precision", "exact_sums")
    }
    for knob in SPEED_KNOBS:
        del parts["data"][knob]
    dataset: dict[str, Any] = {"samples": rows.num_rows, "sha256": rows_sha256(rows, ("image_id", "shard"))[:16]}
    dataset["sizes_sha256"] = sizes_sha256(rows)[:16]
    content = content_sha256(recipe, rows)
    if content is not None:
        dataset["content_sha256"] = content[:16]
    if not any(part["content"].null_count for part in rows.parts(["content"])):
        dataset["contents_sha256"] = rows_sha256(rows, ("content",))[:16]
    if recipe.data.balance_concepts:
        dataset["weights_sha256"] = hashlib.sha256(rows.weights().tobytes()).hexdigest()[:16]
    for knob, digest in weights_digests(recipe.latents, recipe.text).items():
        if digest is not None:
            parts[knob.partition(".")[0]]["weights_sha256"] = digest
    if recipe.validation.share:
        parts["validation"] = {"share": recipe.validation.share}
    stage_knobs = stage.model_dump(mode="json")
    del stage_knobs["steps"]  # a stage may be trained longer
    if stage.distil is not None:
        stage_knobs["distil"] = recipe.distil_of(stage).model_dump(mode="json")
    path = parent_weights(recipe, stage)
    return parts | {
        "stage": stage_knobs | {"parent": recipe.parent_of(stage)},
        "parent_weights": path.name if path else None,
        "parent_sha256": weights_sha256(path, ema=stage.weights == "ema") if path else None,
        "dataset": dataset,
    }


def check_identity(
    folder: Path, expected: dict[str, Any], *, begun: bool = True, change_at: int | None = None, finished: bool = False
) -> None:
    """Write the identity of a stage into its new folder, or compare it with the one there. `begun`: there is a
    checkpoint; without one, nothing is spoilt by another identity. `change_at`: accept other values of `CHANGEABLE`
    knobs from this step on, and record them. `finished`: nothing is trained or recorded. Raises ValueError: the folder
    holds a stage that was trained with something else; the knob is named."""
    path = folder / RECIPE_FILE
    if not path.exists() or not begun:
        _write(path, expected)
        return
    try:
        content = yaml.safe_load(check_text(read_file(path).decode()))
        _ = content["dataset"]["sha256"]  # near the end: of a file that is cut no seal tells
    except (OSError, ValueError, RecursionError, yaml.YAMLError, KeyError, TypeError) as error:
        why = "cut short" if isinstance(error, KeyError | TypeError) else why_damaged(error).splitlines()[0]
        raise ValueError(
            f"{path}: damaged ({why}); put it back from a copy, or rm -r {folder} to train it again"
        ) from None
    changes = content.pop(CHANGES, [])
    stored, wanted = ADDED | _flat(content), _flat(expected)
    same_parent = stored.get("parent_sha256") == wanted["parent_sha256"] and "parent_sha256" in stored
    for key in [*wanted, *(key for key in stored if key not in wanted)]:
        is_unknown = key in DIGESTS and not (key in stored and key in wanted)  # an older folder, or not on this machine
        if stored.get(key) == wanted.get(key) or is_unknown or (key in PARENT_NAMES and same_parent):
            continue
        if change_at is None or not key.startswith(CHANGEABLE):
            raise ValueError(_other_identity(folder, key, stored.get(key), wanted.get(key), expected))
        changes.append({"step": change_at, "knob": key, "was": stored.get(key), "is": wanted.get(key)})
    if not finished and (content | expected != content or content.keys() - expected.keys()):
        _write(path, expected | ({CHANGES: changes} if changes else {}))


def _write(path: Path, content: dict[str, Any]) -> None:
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    write_bytes(path, seal_text(f"{text}# seal: ", "\n").encode())


def _other_identity(folder: Path, key: str, was: Any, now: Any, expected: dict[str, Any]) -> str:
    again = f"rm -r {folder}, then run the same command, trains the stage again"
    if key == "parent_sha256":
        source = expected["stage"]["parent"]
        return f"{folder}: was trained from other weights than {source} has now ({was} then, {now} now); {again}"
    if key in DIGESTS:
        where = "the dataset" if key.startswith("dataset") else f"{key.partition('.')[0]}.weights"
        what = "pictures or captions" if key.startswith("dataset") else "weights"
        return f"{folder}: was trained with other {what} than {where} holds now ({key} {was} then, {now} now); {again}"
    change = ", or go on from the last checkpoint with --from-last-good" if key.startswith(CHANGEABLE) else ""
    return (
        f"{folder}: was trained with {key} = {was}, the recipe now has {now}; set it back, or choose another out, or "
        f"remove this folder to start the stage again ({again}){change}"
    )


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(values, dict) and values:
        parts = [_flat(value, f"{prefix}{key}.") for key, value in values.items()]
        return {key: value for part in parts for key, value in part.items()}
    return {prefix.removesuffix("."): values}
