"""Builds an evaluation set: chosen pictures and prompts as a dataset of its own, in MJHQ's layout too, and a card."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from curation import build as runs
from curation.sources import read_original
from engine import catalog
from engine.ahead import ahead
from engine.dataset import Dataset
from engine.job import Job
from evaluation.prompt_files import MJHQ_FILE, PROMPTS_FILE
from evaluation.set_choice import Choice, choose
from models.clip_tokens import Counter as TokenCounter
from models.clip_tokens import find_counter
from schemas import shard
from schemas.commit import atomic_write, write_bytes
from schemas.evaluation_set import EvaluationSet
from schemas.files import is_file, open_file, read_file, shown_place, sweep_folder
from schemas.recipe import Aesthetic, Clean, DataRecipe, Mix, Select
from schemas.scores import LATER
from schemas.shard_index import read_index
from schemas.sources import ImageColumns, TableSource
from schemas.strict import DUMPER

CHOICES_FILE, PICTURES_FILE, CARD_FILE = "evaluation_set.yaml", "pictures.jsonl", "README.md"
_THREADS = 4

Pipeline = Callable[[DataRecipe], list[Job]]


class Made(NamedTuple):
    folder: Path
    digest: str
    num_prompts: int
    num_from: dict[str, int]
    """`raw` and `synthetic` -> prompts that come from such a caption."""
    excluded: dict[str, int]
    """Evidence -> candidates that a training dataset has too."""
    counter: str


def build_set(
    dataset: Dataset, out: Path, knobs: EvaluationSet, pipeline: Pipeline, observer: runs.Observer | None = None
) -> Made:
    """Choose from a dataset and write the set; what a killed run left is taken up.

    The set is whole once it has `prompts.jsonl`, which is written last.

    Args:
        out: the folder of the set.
        pipeline: the jobs of a data recipe, in order.

    Raises:
        ValueError: as `choose`; `out` holds something else, or a set of other choices; a picture is gone.
    """
    observer = observer or runs.Observer()
    catalog.require_dataset(dataset)
    counter = find_counter()
    made = Dataset(out)
    _refuse_other(out, choices := _choices(dataset, knobs, counter))
    choice = choose(dataset, knobs, counter)
    recipe = _recipe(DataRecipe.load(dataset.recipe, [f"out={shown_place(dataset.root)}"]), out, knobs)
    rows = [_row(picture) for picture in choice.pictures]
    with made.lock():
        made.sweep()
        sweep_folder(out / "imgs")
        for name, content in ((CHOICES_FILE, choices), (PICTURES_FILE, _json_lines(_as_source(rows)))):
            _write_once(out / name, content)
        _copy_pictures(dataset, out, choice, rows, observer)
        if not is_file(made.recipe):  # the build leaves alone what is no dataset's folder
            write_bytes(made.recipe, recipe.to_yaml().encode())
    runs.build(recipe, pipeline(recipe), observer)
    _check_samples(made, rows)
    digest = set_digest(rows)
    entries = {row["prompt_id"]: {"prompt": row["prompt"], "category": row["category"]} for row in rows}
    result = Made(
        out, digest, len(rows), dict(Counter(row["prompt_from"] for row in rows)), choice.excluded, counter.name
    )
    with made.lock():
        write_bytes(out / MJHQ_FILE, json.dumps(entries, ensure_ascii=False, indent=1).encode())
        write_bytes(out / CARD_FILE, _card(choices, choice, rows, result).encode())
        write_bytes(out / PROMPTS_FILE, _json_lines(rows))
    return result


def set_digest(rows: Sequence[dict[str, Any]]) -> str:
    """16 hex digits that name a set: its prompts with their pictures' sha256, in whatever order."""
    known = sorted([row["prompt_id"], row["prompt"], row["category"], row["sha256"]] for row in rows)
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()[:16]


def _choices(dataset: Dataset, knobs: EvaluationSet, counter: TokenCounter) -> bytes:
    later = {name for name in LATER if getattr(knobs, name) is None}
    values = {name: value for name, value in knobs.resolved().items() if name not in {"run", *later}}
    values = {"dataset": shown_place(dataset.root), "clip_tokens_by": counter.name} | values
    return yaml.dump(values, Dumper=DUMPER, sort_keys=False, allow_unicode=True).encode()


def _refuse_other(out: Path, choices: bytes) -> None:
    if is_file(out):
        raise ValueError(f"{shown_place(out)}: is a file; name a folder for the set")
    if Dataset(out).names() and not is_file(out / CHOICES_FILE):
        raise ValueError(f"{shown_place(out)}: holds other files and no evaluation set; name an empty or new folder")
    if is_file(out / CHOICES_FILE) and (there := read_file(out / CHOICES_FILE)) != choices:
        pairs = zip(there.decode(errors="replace").splitlines(), choices.decode().splitlines(), strict=False)
        was, wanted = next(((one, two) for one, two in pairs if one != two), ("less", "more"))
        raise ValueError(
            f"{shown_place(out)}: holds an evaluation set of other choices ({was.strip()!r} there, {wanted.strip()!r} "
            "now); name another --out, or delete it"
        )


def _write_once(path: Path, content: bytes) -> None:
    if is_file(path) and read_file(path) != content:
        raise ValueError(
            f"{shown_place(path)}: names other pictures than the dataset gives now: it has changed since the set was "
            f"begun; name another --out, or delete {shown_place(path.parent)}"
        )
    if not is_file(path):
        write_bytes(path, content)


def _recipe(of_dataset: DataRecipe, out: Path, knobs: EvaluationSet) -> DataRecipe:
    """The recipe of the set's own dataset: every picture stays, and its caption is the prompt."""
    columns = ImageColumns(path="picture", caption="prompt", url="url", license="license")
    scored = of_dataset.aesthetic
    return DataRecipe(
        sources=(TableSource(path=str(out / PICTURES_FILE), columns=columns),),
        out=shown_place(out),
        ingest=of_dataset.ingest,  # what pictures are compared by depends on it
        aesthetic=Aesthetic() if scored.uses_models() else scored,
        clean=Clean(languages=None, min_words=1),
        select=Select(
            min_short_side_px=1, max_aspect=1e9, max_transparency=None, drop_duplicates=False, inherit_captions=False
        ),
        mix=Mix(synthetic_share=0),
        run=knobs.run,
    )


def _row(picture: dict[str, Any]) -> dict[str, Any]:
    name, category = picture["image_id"], picture["category"]
    file = f"imgs/{category}/{name}.{shard.extension(picture['format'])}"
    return {
        "prompt_id": name,
        "prompt": picture["prompt"],
        "category": category,
        "reference_image_id": name,
        "prompt_from": picture["prompt_from"],
        "clip_tokens": picture["clip_tokens"],
        "picture": file,
        **{key: picture[key] for key in ("sha256", "width", "height", "aesthetic", "url", "license")},
    }


def _as_source(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: row[name] for name in ("picture", "prompt", "url", "license")} for row in rows]


def _json_lines(rows: Sequence[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _copy_pictures(
    dataset: Dataset, out: Path, choice: Choice, rows: Sequence[dict[str, Any]], observer: runs.Observer
) -> None:
    """Write the original bytes of every picture; a file that is there is whole."""
    observer.begin("pictures", len(rows))
    pairs = zip(choice.pictures, rows, strict=True)
    for _ in ahead(partial(_copy_picture, dataset, out), pairs, _THREADS):
        observer.advance("pictures", 1)
    observer.end("pictures", None)


def _copy_picture(dataset: Dataset, out: Path, pair: tuple[dict[str, Any], dict[str, Any]]) -> None:
    picture, row = pair
    if is_file(out / row["picture"]):
        return
    with open_file(dataset.shards / picture["shard"]) as tar:
        tar.seek(picture["image_offset"])
        data = tar.read(picture["image_size"])
    if hashlib.sha256(data).hexdigest() != picture["sha256"]:  # the shard holds it resized
        place = (picture["source"], picture["member"], picture["byte_offset"], picture["num_bytes"])
        try:
            data = read_original(*place)
        except OSError as error:
            raise ValueError(f"{picture['source']}/{picture['member']}: cannot be read: {error.strerror}") from None
        if hashlib.sha256(data).hexdigest() != picture["sha256"]:
            raise ValueError(
                f"{picture['source']}/{picture['member']}: has changed since it was ingested, and the shards hold no "
                "original of it; build the dataset again"
            )
    with atomic_write(out / row["picture"]) as file:
        file.write(data)


def _check_samples(made: Dataset, rows: Sequence[dict[str, Any]]) -> None:
    """Compare the set's samples with the chosen prompts. Raises ValueError: a picture is missing or has another
    caption."""
    mix = made.read_table("mix", ["image_id", "caption"]).to_pylist()
    captions = {row["image_id"]: row["caption"] for row in mix}
    there = set(read_index(made.shards, ["image_id"])["image_id"].to_pylist())
    for row in rows:
        name = row["prompt_id"]
        if name not in there or captions.get(name) != row["prompt"]:
            raise ValueError(
                f"{shown_place(made.root)}: {row['picture']} is not in its shards with its prompt (the caption is "
                f"{captions.get(name)!r}); sigma status {shown_place(made.root)} says why"
            )


def _card(choices: bytes, choice: Choice, rows: Sequence[dict[str, Any]], made: Made) -> str:
    """The card of the set as Markdown with a YAML head."""
    head = {"configs": [{"config_name": "default", "data_files": "shards/*/*.tar"}]}
    sizes = Counter(row["category"] for row in rows)
    licences = Counter(row["license"] or "not stated" for row in rows)
    lines = [
        f"---\n{yaml.dump(head, Dumper=DUMPER, sort_keys=False)}---\n",
        f"# Evaluation set {made.digest}\n",
        f"{len(rows):,} pictures with a prompt each, in {len(sizes):,} categories, chosen by `sigma evaluate-set`. "
        f"`{PROMPTS_FILE}` says all of them; `{MJHQ_FILE}` and `imgs/<category>/<id>` are MJHQ-30K's layout, with the "
        "original bytes; `shards/` and `tables/` are a dataset whose captions are the prompts.\n",
        "The digest names the prompts, their categories and the sha256 of their pictures.\n",
        "| category | nouns | pictures |\n|---|---|---:|",
        *(f"| {name} | {', '.join(choice.nouns[name])} | {sizes[name]:,} |" for name in choice.nouns),
        "",
        f"- Prompts from raw captions: {made.num_from.get('raw', 0):,}; from the first sentences of synthetic ones: "
        f"{made.num_from.get('synthetic', 0):,}. CLIP tokens were counted by `{made.counter}`.",
        "- Left out, for a training dataset has them too: "
        + ", ".join(f"{number:,} by {evidence}" for evidence, number in made.excluded.items())
        + ".",
        "- Licences: " + ", ".join(f"{name} {number:,}" for name, number in sorted(licences.items())) + ".",
        "- To keep its pictures out of training, name this folder in `dedup.against` of the training data's recipe.\n",
        f"## Choices\n\n```yaml\n{choices.decode()}```",
    ]
    return "\n".join(lines) + "\n"
