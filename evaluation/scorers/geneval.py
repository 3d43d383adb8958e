"""GenEval's scorer: a detector finds objects, CLIP names their colours, and the rules judge them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from engine.map_job import naming
from engine.runner import Progress
from evaluation.measuring import clip_name, find_network, load_clip
from evaluation.paired import Scores
from evaluation.picture_files import named
from evaluation.rules.geneval import COLOURS, TASKS, Judgement, judge, keep, overall
from evaluation.scorers.base import Row, Scorer, flags_of, opened
from evaluation.scorers.detectors import Detection, classes_of, is_original_network, load_detector
from models.clip import Clip
from models.weights import CLIP_L14, MASK2FORMER
from schemas.evaluation import Metrics, Run
from schemas.strict import fingerprint
from schemas.tables import schema_of

OURS = "detector: the original's network in Meta's training; published scores are of mmdet's"
OTHER = "detector: not the original's network, Mask2Former Swin-S; does not compare with published scores"
GREY = "#999"
"""What is put around an object, outside its mask."""
TEMPLATES = ("a photo of a {colour} {name}", "a photo of a {colour}-colored {name}", "a photo of a {colour} object")
Metadata = Mapping[str, Any]


@dataclass(frozen=True)
class GenEval(Scorer):
    metric = "geneval"
    protocol: str = "geneval/published"
    metadata: Mapping[str, Metadata] = field(default_factory=dict, repr=False)
    """Of each prompt, by its id."""
    folder: Path | None = None
    """Of the detector."""
    clip: str | None = None
    """As `metrics.clip`."""
    clip_name: str = ""

    @classmethod
    def of(cls, metrics: Metrics, metadata: Mapping[str, Metadata]) -> GenEval:
        """The scorer of a recipe. Raises ValueError: its detector is not on this machine, or lacks a class of a
        prompt."""
        given, key = metrics.geneval.detector, "metrics.geneval.detector"
        if given is None:
            get = f"get one with `sigma weights get {MASK2FORMER.name}`, then set {key}={MASK2FORMER.hub_id}"
            raise ValueError(f"no detector is named: {get}")
        folder, network = find_network(given, MASK2FORMER, key)
        wanted = {name for prompt_id, each in metadata.items() for name in _classes_of_prompt(prompt_id, each)}
        if unknown := sorted(wanted.difference(classes_of(folder))):
            raise ValueError(f"{key}={given}: knows no {unknown[0]}; name a detector that was trained on COCO")
        clip, no_clip = clip_name(metrics.clip, CLIP_L14, "metrics.clip")
        return cls(network, missing=no_clip, metadata=metadata, folder=folder, clip=metrics.clip, clip_name=clip)

    def worker(self) -> type[Detections]:
        return Detections

    def seen_with(self) -> dict[str, Any]:
        """The detector, the CLIP, and what prompts ask for, which decides whose colour is looked at."""
        return {"detector": self.network, "clip": self.clip_name, "prompts": fingerprint(dict(self.metadata))[:16]}

    def results(self, rows: Sequence[Row], metrics: Metrics) -> Iterator[dict[str, Any]]:
        """The score, the mean over the six tasks, and that of each task; intervals by a bootstrap over prompts."""
        assert self.folder is not None
        flags = [*flags_of(rows), OURS if is_original_network(self.folder) else OTHER]
        tasks, correct = dict[str, dict[str, list[bool]]](), dict[str, list[bool]]()
        for row in rows:
            metadata = self.metadata[row["prompt_id"]]
            is_correct = judged(json.loads(row["facts"]), metadata).correct
            correct.setdefault(metadata["tag"], []).append(is_correct)
            tasks.setdefault(metadata["tag"], {}).setdefault(row["prompt_id"], []).append(is_correct)
        by_prompt = {task: {name: float(np.mean(each)) for name, each in some.items()} for task, some in tasks.items()}
        made = {"metric": self.metric, "num_generated": len(rows), "flags": flags}
        try:
            value = overall(correct)
        except ValueError as error:
            yield made | {"reason": str(error)}
        else:
            yield made | Scores([by_prompt[task] for task in TASKS]).columns | {"value": value}
        for task in sorted(tasks) if metrics.by_category else ():
            share, number = float(np.mean(correct[task])), len(correct[task])
            yield made | Scores([by_prompt[task]]).columns | {"category": task, "value": share, "num_generated": number}


def _classes_of_prompt(prompt_id: str, metadata: Metadata) -> list[str]:
    try:
        wanted = [*metadata["include"], *metadata.get("exclude", ())]
        is_whole = isinstance(metadata["tag"], str) and all(isinstance(each["count"], int) for each in wanted)
        names = [each["class"] for each in wanted]
    except (KeyError, TypeError) as error:
        raise ValueError(f"prompt {prompt_id}: does not say what it asks for as GenEval's do: {error!r}") from None
    if not is_whole or not all(isinstance(name, str) for name in names):
        raise ValueError(f"prompt {prompt_id}: its tag or a class is no text, or a count no number")
    return names


class Detections:
    """The worker: pictures are decoded on threads, and go through the detector one by one."""

    def __init__(self, root: Path, pictures: str, table: str, scorer: GenEval, run: Run) -> None:
        self._root, self._pictures, self._table, self._run = root, pictures, table, run
        assert scorer.folder is not None
        self._metadata = scorer.metadata
        self._detect = load_detector(scorer.folder, run.device)
        self._colours = Colours(load_clip(scorer.clip, run.device))

    def __call__(self, inputs: Mapping[str, pa.Table], progress: Progress) -> dict[str, pa.Table]:
        """The detections of a part, and what the rules say of them."""
        found = []
        for row, picture in opened(self._root, inputs[self._pictures].to_pylist(), self._run.threads):
            if isinstance(picture, Image.Image):
                metadata = self._metadata[row["prompt_id"]]
                with naming(row["prompt_id"]):
                    facts = self._facts(picture, metadata)
                correct, missing = judged(facts, metadata)
                found.append({"share": float(correct), "missing": missing or None, "facts": json.dumps(facts)})
            else:
                found.append(picture)
            found[-1] |= named(row)
            progress(1)
        return {self._table: pa.Table.from_pylist(found, schema=schema_of("answers/"))}

    def _facts(self, picture: Image.Image, metadata: Metadata) -> list[dict[str, Any]]:
        """What the table keeps of a picture: its detections, best first, and colours where the prompt names one."""
        seen = self._detect(picture)
        coloured = {each["class"] for each in metadata["include"] if "color" in each}
        colours = dict[int, str]()
        for name in sorted(coloured):
            ours = [number for number, each in enumerate(seen) if each.name == name]
            ours = ours[: len(keep([(*seen[number].box, seen[number].score) for number in ours], metadata["tag"]))]
            colours |= zip(ours, self._colours(picture, [seen[number] for number in ours]), strict=True)
        return [{"class": each.name, "score": each.score, "box": each.box, "colour": colours.get(number)}
                for number, each in enumerate(seen)]  # fmt: skip


def judged(facts: Sequence[Mapping[str, Any]], metadata: Metadata) -> Judgement:
    """What the rules say of detections, given as the table keeps them."""
    boxes, colours = dict[str, list[list[float]]](), dict[str, list[str]]()
    for each in facts:
        boxes.setdefault(each["class"], []).append([*each["box"], each["score"]])
        if each["colour"] is not None:
            colours.setdefault(each["class"], []).append(each["colour"])
    return judge({name: keep(some, metadata["tag"]) for name, some in boxes.items()}, metadata, colours)


class Colours:
    """Names the colour of objects by CLIP: the object on grey, cut out by its box, against three texts for a colour."""

    def __init__(self, clip: Clip) -> None:
        self._clip = clip
        self._texts: dict[str, np.ndarray] = {}

    def __call__(self, picture: Image.Image, objects: Sequence[Detection]) -> list[str]:
        """The colour of each of some objects of one class."""
        from evaluation.clip_score import clip_score  # torch, which planning does without

        if not objects:
            return []
        texts = self._of_class(objects[0].name)
        pixels = self._clip.embed_images([_cut_out(picture, each) for each in objects])
        scores = [clip_score(pixels, np.broadcast_to(text, pixels.shape)) for text in texts]
        return [COLOURS[number] for number in np.argmax(scores, axis=0)]

    def _of_class(self, name: str) -> np.ndarray:
        """The direction of each colour (10, d): the mean of its texts, each of length 1."""
        if name not in self._texts:
            texts = [template.format(colour=colour, name=name) for colour in COLOURS for template in TEMPLATES]
            rows = self._clip.embed_texts(texts)
            rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
            self._texts[name] = rows.reshape(len(COLOURS), len(TEMPLATES), -1).mean(axis=1)
        return self._texts[name]


def _cut_out(picture: Image.Image, seen: Detection) -> Image.Image:
    blank = Image.new("RGB", picture.size, GREY)
    return Image.composite(picture, blank, Image.fromarray(seen.mask)).crop(seen.box)
