"""Counts verdicts: what each judge says of each pair of models, and the strengths of more than two."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import isnan

import numpy as np
import pyarrow as pa

from engine.dataset import Dataset
from engine.names import NOTHING
from evaluation.judge.journal import Journal, Row, is_settled
from evaluation.judge.pairs import ORDERS, Pair, questions_of
from evaluation.judge.people import EVERYBODY, by_blind_id, rows_of_people
from evaluation.preference import bradley_terry, summarise
from schemas.files import delete_files, find_files
from schemas.judging import JudgeRecipe
from schemas.tables import schema_of

MOST_LEAN = 0.1
"""A judge that leans more to one place is said to."""
MOST_UNPARSED = 0.05


@dataclass(frozen=True)
class Results:
    verdicts: list[Row]
    preferences: list[Row]
    strengths: list[Row]

    def write(self, dataset: Dataset) -> None:
        """Commit the tables in the place of what was there."""
        for table in ("verdicts", "preferences", "strengths"):
            rows = pa.Table.from_pylist(getattr(self, table), schema=schema_of(table))
            kept = dataset.commit_part(table, 0, NOTHING, rows)
            for file in find_files(dataset.folder(table), "part-*.parquet"):
                if file != kept:
                    delete_files(file)

    def warnings(self) -> Iterator[str]:
        """What makes a judge's verdicts doubtful."""
        for row in self.preferences:
            who = f"{row['judge']} on {row['aspect']} of {row['model_a']} and {row['model_b']}"
            if row["lean"] is not None and abs(row["lean"]) > MOST_LEAN:
                side = "first" if row["lean"] > 0 else "second"
                yield f"{who}: leans to the {side} picture by {100 * abs(row['lean']):.0f} points, whatever it shows"
            if row["share_unparsed"] > MOST_UNPARSED:
                unread = (each["reply"] for each in self.verdicts if each["verdict"] == "unparsed")
                share = 100 * row["share_unparsed"]
                yield f"{who}: {share:.0f} % of the replies are no verdict, for example {next(unread)[:100]!r}"


def results(recipe: JudgeRecipe, pairs: Sequence[Pair], journal: Journal) -> Results:
    """What the journal says of the pairs of a recipe."""
    verdicts = [*_rows_of_model(recipe, pairs, journal), *rows_of_people(by_blind_id(pairs), recipe.aspects, journal)]
    groups = defaultdict[tuple[str, str, str], list[Row]](list)
    for row in verdicts:
        judge = row["judge"] if row["kind"] == "person" else recipe.judge.model or ""  # of any revision
        groups[row["kind"], judge, row["aspect"]].append(row)
    people = {judge for kind, judge, _ in groups if kind == "person"}
    if len(people) > 1:
        for (kind, _, aspect), rows in list(groups.items()):
            if kind == "person":
                groups["person", EVERYBODY, aspect].extend(rows)
    preferences, strengths = list[Row](), list[Row]()
    for (kind, judge, aspect), rows in sorted(groups.items()):
        about = {"kind": kind, "judge": judge, "aspect": aspect}
        found = [about | row for models in combinations(recipe.models, 2) for row in _preference(models, rows)]
        preferences += found
        if len(recipe.models) > 2:
            strengths += [about | row for row in _strengths(list(recipe.models), found)]
    return Results(verdicts, preferences, strengths)


def _rows_of_model(recipe: JudgeRecipe, pairs: Sequence[Pair], journal: Journal) -> Iterator[Row]:
    """The verdicts of the recipe's judge, as far as they are there; equal pictures are a tie without being asked, once
    the judge has been asked about others."""
    found, equal = list[Row](), list[Row]()
    asked = [(pair, one) for pair in pairs for one in questions_of(pair, recipe.aspects, recipe.judge)]
    for pair, question in asked:
        if pair.is_equal:
            tie = {"question": question.key, "judge": recipe.judge.model, "attempt": 0, "verdict": "tie"}
            equal.append({**question.place, **tie, "reason": "the same pixels: nobody was asked"})
        elif is_settled(row := journal.reply(question.key)):
            found.append({**(row or {}), **question.place})
    if recipe.judge.model is not None and (found or len(equal) == len(pairs) * len(ORDERS) * len(recipe.aspects)):
        yield from sorted([*found, *equal], key=lambda row: (row["prompt_id"], row["number"], row["model_a"]))


def _preference(models: tuple[str, str], rows: Sequence[Row]) -> Iterator[Row]:
    """What one judge says of two models about one aspect; nothing where no pair has all of its answers."""
    orders = defaultdict[tuple[str, str, int], dict[str, str]](dict)
    for row in rows:
        if (row["model_a"], row["model_b"]) == models:
            person = row["judge"] if row["kind"] == "person" else ""
            orders[person, row["prompt_id"], row["number"]][row["order"]] = row["verdict"]
    pairs = {at: said for at, said in orders.items() if at[0] or len(said) == 2}  # a person sees one order
    if not pairs:
        return
    about: Row = {"model_a": models[0], "model_b": models[1], "num_pairs": len(pairs)}
    about |= {"num_prompts": len({prompt_id for _, prompt_id, _ in pairs})}
    verdicts = [(said.get("ab"), said.get("ba")) for said in pairs.values()]
    try:
        found = summarise(verdicts, prompts=[prompt_id for _, prompt_id, _ in pairs])  # type: ignore[arg-type]
    except ValueError as error:
        said = [verdict for pair in verdicts for verdict in pair if verdict]
        shares = {f"share_{name}": said.count(name) / len(said) for name in ("unparsed", "refused")}
        yield about | shares | {"num_answered": 0, "lean": None, "reason": str(error)}
        return
    for name, interval in (("decided", found.decided), ("lean", found.lean)):
        known = (None, None, None) if isnan(interval.value) else interval
        about |= dict(zip((name, f"{name}_low", f"{name}_high"), known, strict=True))
    for name in ("num_answered", "wins", "losses", "share_tied", "share_position", "share_unparsed", "share_refused"):
        about[name] = getattr(found, name)
    yield about | dict(zip(("win_rate", "low", "high"), found.win_rate, strict=True)) | {"reason": None}


def _strengths(models: list[str], preferences: Sequence[Row]) -> Iterator[Row]:
    """Bradley-Terry's strengths by the pairs that were decided; a judge that decides by the place decides nothing."""
    wins = np.zeros((len(models), len(models)))
    for row in preferences:
        one, two = models.index(row["model_a"]), models.index(row["model_b"])
        wins[one, two], wins[two, one] = row.get("wins") or 0, row.get("losses") or 0
    try:
        found, reason = bradley_terry(wins, models).tolist(), None
    except ValueError as error:
        found, reason = [None] * len(models), str(error)
    for model, strength in zip(models, found, strict=True):
        yield {"model": model, "strength": strength, "reason": reason}
