"""Reads prompts from any source: datasets, evaluation sets, lists, and the files of public benchmarks."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.prompt_files import (
    COMPBENCH_END,
    DPG_FILE,
    GENEVAL_FILE,
    MJHQ_FILE,
    PROMPTS_FILE,
    READERS,
    Found,
    digest,
    file_of,
    json_lines,
    kinds_of,
    text_of,
)
from evaluation.rules.dpg import Question, Rules, read_questions
from schemas.files import is_file, place_of, shown_place
from schemas.reasons import PromptReason

KINDS = {
    "dataset": "a Sigma dataset, whose samples give their captions",
    "set": f"an evaluation set: a dataset with {PROMPTS_FILE}",
    "text": "a text file, one prompt a line",
    "jsonl": "JSON objects, one a line, with prompt and perhaps id and category",
    "csv": "a .csv or .tsv table with the same columns",
    "mjhq": f"MJHQ-30K: {MJHQ_FILE}, or its folder",
    "geneval": f"GenEval: {GENEVAL_FILE}, or its folder",
    "dpg": "DPG-Bench: the folder of prompts/*.txt, one prompt a file",
    "compbench": f"T2I-CompBench: a file such as color{COMPBENCH_END}, or the folder of them",
}
"""Kind of source -> what it is."""
_HALF = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Prompt:
    """A prompt, or why a source has none where one should be. `prompt_id`: as the source gives it, else a digest of the
    text; no other line changes it. `category`: what results are counted by. `reference_image_id`: the real picture of
    this prompt, where the source has pictures. `reason`: a `PromptReason`. `detail`: the place in the source, for a
    person."""

    prompt_id: str
    prompt: str | None
    category: str | None = None
    reference_image_id: str | None = None
    reason: str | None = None
    detail: str | None = None


def read_prompts(source: str | Path, kind: str = "auto") -> list[Prompt]:
    """All prompts of a source, in its order. `kind`: one of `KINDS`; `auto` finds it by what the source holds. Raises
    ValueError: the kind is unknown or not to be found out, the source cannot be read or holds no prompt, a line is
    broken, or two lines have the same id, or the same text where texts give the ids."""
    if kind not in ("auto", *KINDS):
        raise ValueError(f"{kind}: no such kind of prompts; there are auto, {', '.join(KINDS)}")
    path = place_of(str(source))
    found = READERS[find_kind(path) if kind == "auto" else kind](path)
    prompts, places, num_blank = list[Prompt](), dict[str, str](), 0
    for one in found:
        try:
            prompt = _prompt(one, f"blank-{num_blank + 1}")
        except ValueError as error:
            raise ValueError(f"{shown_place(path)}: {one.place}: {error}") from None
        if (first := places.get(prompt.prompt_id)) is not None:
            same = (
                f"hold the same prompt, {prompt.prompt!r}; take one out, or give each an id"
                if one.prompt_id in (None, "")
                else f"have the same id, {prompt.prompt_id!r}; give each its own"
            )
            raise ValueError(f"{shown_place(path)}: {first} and {one.place} {same}")
        places[prompt.prompt_id] = one.place
        prompts.append(prompt)
        num_blank += prompt.reason == PromptReason.BLANK
    if not prompts:
        raise ValueError(f"{shown_place(path)}: holds no prompt")
    return prompts


def find_kind(path: Path) -> str:
    """The kind of a source, by what it holds. Raises ValueError: nothing says it, or it may be one of several."""
    shown = shown_place(path)
    found = kinds_of(path)
    if len(found) != 1:
        known = "; ".join(f"{kind} is {what}" for kind, what in KINDS.items())
        may_be = f"may be {' or '.join(found)}" if found else "is no source of prompts that is known by what it holds"
        raise ValueError(f"{shown}: {may_be}; name its kind: {known}")
    return found[0]


def geneval_metadata(source: str | Path) -> dict[str, Mapping[str, Any]]:
    """Of each prompt of GenEval's file, by its id, what `evaluation.rules.geneval.judge` needs to know."""
    path = file_of(place_of(str(source)), GENEVAL_FILE)
    prompts = read_prompts(path, "geneval")
    return {prompt.prompt_id: row for prompt, (_, row) in zip(prompts, json_lines(path), strict=True)}


def dpg_questions(source: str | Path, rules: Rules = "fixed") -> dict[str, list[Question]]:
    """The questions on each prompt of DPG-Bench, by its id, from the CSV file in its folder or the one above. Raises
    ValueError: there is no such file, or it cannot be read."""
    folder = place_of(str(source))
    path = next((place / DPG_FILE for place in (folder, folder.parent) if is_file(place / DPG_FILE)), folder / DPG_FILE)
    try:
        return read_questions(io.StringIO(text_of(path), newline=""), rules)
    except ValueError as error:
        raise ValueError(f"{shown_place(path)}: {error}") from None


def _prompt(found: Found, if_blank: str) -> Prompt:
    """The prompt of one place. `if_blank`: the id of one without text where the source gives none."""
    text = "" if found.prompt is None else found.prompt
    if not isinstance(text, str):
        raise ValueError(f"its prompt is {type(text).__name__}, not text")
    if _HALF.search(text):
        raise ValueError("its prompt holds half of a character (a lone surrogate)")
    text = text.strip()
    is_blank = not any(character.isprintable() and not character.isspace() for character in text)
    reason = PromptReason.BLANK if is_blank else PromptReason.NUL if "\0" in text else None
    return Prompt(
        _name(found.prompt_id, "id") or (if_blank if is_blank else digest(text)),
        text if reason is None else None,
        _name(found.category, "category"),
        _name(found.reference, "reference_image_id"),
        reason,
        None if reason is None else found.place,
    )


def _name(value: Any, what: str) -> str | None:
    """An id or a category; None where there is none."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, str | int)):
        raise ValueError(f"its {what} is {type(value).__name__}, not text")
    name = "" if value is None else str(value).strip()
    if not name.isprintable():
        raise ValueError(f"its {what}, {name!r}, holds a character that cannot be printed")
    return name or None
