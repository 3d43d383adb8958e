"""Chooses the pictures and prompts of an evaluation set, in SQL over a dataset's tables: the same ones every time."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from captioning.clean import cleaned_text, junk_reason
from curation.dedup.dedup import METHODS, match_others
from curation.selection import select
from engine import catalog
from engine.catalog import select_table
from engine.dataset import Dataset
from engine.duck import Connection, literal, rows
from models.clip_tokens import Counter as TokenCounter
from schemas.evaluation_set import EvaluationSet
from schemas.files import place_of, shown_place
from schemas.locations import for_datasets
from schemas.sentences import sentence_ends

_READS = ("images", "fingerprints", "scores", "screens", "duplicates", "nouns", "captions", "samples", "raw_offers")
_TEXTS = {"mix": "caption", "raw_captions": "caption", "captions": "caption", "images": "raw_caption"}
"""The tables and columns of a training dataset that hold texts it may train on."""
_AT_ONCE = 4
"""Candidates that are read at a time, for each picture that is wanted."""
_SLICE = 4096
"""Candidates whose prompts are made before it is looked whether their category is full."""
_SHOWN = 5

_NORMAL = r"md5_number(trim(regexp_replace(lower(nfc_normalize({text})), '[^\p{{L}}\p{{M}}\p{{N}}]+', ' ', 'g')))"
"""Of a text its words alone, whatever their case and the marks between them."""

_PACKED = f"""
CREATE TEMP VIEW packed AS
SELECT pictures.* FROM ({select.PICTURES}) AS pictures
JOIN (SELECT row_id FROM samples WHERE reason IS NULL) AS stored USING (row_id)
"""

_FACTS = """
CREATE TEMP TABLE facts AS
WITH spoken AS (
    SELECT row_id, coalesce(any_value(nouns) FILTER (caption_source = 'raw' AND len(nouns) > 0),
                            any_value(nouns) FILTER (caption_source = 'synthetic')) AS nouns
    FROM nouns GROUP BY row_id
)
SELECT row_id, source_name, coalesce(group_id, row_id) AS group_id, strength,
       sha256({salt} || chr(0) || image_id) AS coin,
       list_filter(nouns, lambda noun: {counts})[1] AS head,
       list_filter([{failed}]::VARCHAR[], lambda name: name IS NOT NULL) AS failed
FROM packed LEFT JOIN spoken USING (row_id)
LEFT JOIN (SELECT row_id, min(strength) AS strength FROM matches GROUP BY row_id) AS found USING (row_id)
"""
"""One row per sample: the noun that may give it a category, and the limits that it fails."""

_WANTED = "CREATE TEMP TABLE wanted AS SELECT unnest($nouns) AS head, unnest($categories) AS category"

_COMMON = """
SELECT head, count(*) AS number FROM facts
WHERE len(failed) = 0 AND regexp_full_match(head, '[\\p{L}\\p{N}][\\p{L}\\p{N} +-]*')
GROUP BY head ORDER BY number DESC, head LIMIT $most
"""

_ELIGIBLE = """
CREATE TEMP TABLE eligible AS
SELECT category, row_id, source_name, nth,
       row_number() OVER (PARTITION BY category, nth > 1 ORDER BY coin, row_id) AS place
FROM (
    SELECT *, row_number() OVER (PARTITION BY group_id ORDER BY coin, row_id) AS nth
    FROM facts JOIN wanted USING (head) WHERE len(failed) = 0
)
"""

_CANDIDATES = """
SELECT category, place, row_id, eligible.source_name, images.image_id, images.sha256, pixel_sha256,
       images.width, images.height, format, images.url, images.license, images.source, images.member,
       images.byte_offset, images.num_bytes, samples.shard, samples.image_offset, samples.image_size, scores.aesthetic,
       raw_offers.caption AS raw, captions.caption AS synthetic
FROM eligible
JOIN images USING (row_id) JOIN fingerprints USING (row_id) JOIN samples USING (row_id) JOIN scores USING (row_id)
LEFT JOIN raw_offers USING (row_id) LEFT JOIN captions USING (row_id)
WHERE nth = 1 AND place > $after AND place <= $upto AND list_contains($open, category)
ORDER BY category, place
"""


class Text(NamedTuple):
    """A prompt, the caption that it was taken from, `raw` or `synthetic`, and the most CLIP tokens that it may have."""

    prompt: str
    prompt_from: str
    clip_tokens: int


@dataclass(frozen=True)
class Choice:
    """The chosen pictures, and what was left out."""

    pictures: list[dict[str, Any]]
    """Columns of `_CANDIDATES` and of `Text`, category after category."""
    nouns: dict[str, list[str]]
    """Category -> its nouns."""
    excluded: dict[str, int]
    """Evidence -> candidates that a training dataset has too."""


def choose(dataset: Dataset, knobs: EvaluationSet, counter: TokenCounter) -> Choice:
    """Choose from the samples of a dataset. Raises ValueError: a job of the dataset has not run, one of `against` is no
    dataset or this very one, or a category has too few candidates; the message names the limit that costs most."""
    dataset.held_with("samples", "nouns")
    others = [place_of(for_datasets(path)) for path in knobs.against]
    for path in others:
        Dataset(path).held_with("fingerprints", named_by="against: ")
    if dataset.root in others:
        raise ValueError(
            f"{shown_place(dataset.root)}: is the dataset that the set is chosen from, and against leaves out all of "
            "its pictures; keep those of the set out of training by dedup.against instead"
        )
    with catalog.connect(dataset, knobs.run.duckdb_memory, reads=_READS) as connection:
        match_others(connection, others, knobs.max_distance)
        _note_texts(connection, others)
        nouns = _find_candidates(connection, knobs)
        return _Taking(connection, knobs, counter, nouns).run()


def _note_texts(connection: Connection, others: list[Path]) -> None:
    """Make the table `other_texts` of the words of every text that other datasets hold."""
    selects = [
        f"SELECT {_NORMAL.format(text=column)} AS words FROM ({select_table(Dataset(path).held(), table)}) "
        f"WHERE {column} IS NOT NULL"
        for path in others
        for table, column in _TEXTS.items()
    ]
    connection.execute(f"CREATE TEMP TABLE other_texts AS {' UNION '.join(selects) or 'SELECT 0::UHUGEINT AS words'}")


def _find_candidates(connection: Connection, knobs: EvaluationSet) -> dict[str, list[str]]:
    """Make the tables `facts`, `wanted` and `eligible`; category -> its nouns."""
    connection.execute(_PACKED)
    lowest = f"(SELECT quantile_disc(aesthetic, {1 - knobs.aesthetic_share!r}) FROM packed)"
    failed = [
        f"CASE WHEN {rule.fails(float(limit))} THEN {literal(rule.knob)} END"
        for rule in select.RULES
        if (limit := getattr(knobs, rule.knob, None)) is not None
    ]
    failed.append(f"CASE WHEN aesthetic IS NULL OR aesthetic < {lowest} THEN 'aesthetic_share' END")
    failed.append("CASE WHEN strength IS NOT NULL THEN 'against' END")
    listed = knobs.categories or {"": knobs.ignored_nouns}
    known = ", ".join(literal(noun) for nouns in listed.values() for noun in nouns)
    counts = f"noun {'' if knobs.categories else 'NOT '}IN ({known})" if known else "true"
    connection.execute(_FACTS.format(salt=literal(knobs.salt), counts=counts, failed=", ".join(failed)))
    nouns = {category: list(words) for category, words in knobs.categories.items()}
    if not nouns:
        common = rows(connection, _COMMON, {"most": knobs.num_categories})
        nouns = {row["head"]: [row["head"]] for row in common}
    connection.execute(
        _WANTED,
        {
            "nouns": [noun for words in nouns.values() for noun in words],
            "categories": [category for category, words in nouns.items() for _ in words],
        },
    )
    connection.execute(_ELIGIBLE)
    return nouns


@dataclass
class _Taking:
    """Takes candidates in the order of their coins until every category is full."""

    connection: Connection
    knobs: EvaluationSet
    counter: TokenCounter
    nouns: dict[str, list[str]]
    taken: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    passed: dict[str, Counter[str]] = field(default_factory=dict)
    """Category -> limit -> candidates that it alone left out."""
    prompts: set[int] = field(default_factory=set)
    sources: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Pictures that were taken of a category and a source."""

    def run(self) -> Choice:
        self.taken = {category: [] for category in self.nouns}
        self.passed = {category: Counter() for category in self.nouns}
        sources = rows(self.connection, "SELECT count(DISTINCT source_name) AS number FROM eligible WHERE nth = 1")
        share = self.knobs.max_source_share if sources[0]["number"] > 1 else 1.0
        most, step = math.ceil(share * self.knobs.per_category), _AT_ONCE * self.knobs.per_category
        after, open_ = 0, list(self.nouns)
        while open_:
            values = {"after": after, "upto": after + step, "open": open_}
            found = rows(self.connection, _CANDIDATES, values)
            for begin in range(0, len(found), _SLICE):
                self._take([row for row in found[begin : begin + _SLICE] if not self._is_full(row["category"])], most)
            after += step
            still = {row["category"] for row in found}
            open_ = [name for name in open_ if name in still and not self._is_full(name)]
        self._refuse_few()
        pictures = [picture for category in self.nouns for picture in self.taken[category]]
        return Choice(pictures, self.nouns, self._excluded())

    def _is_full(self, category: str) -> bool:
        return len(self.taken[category]) == self.knobs.per_category

    def _take(self, found: list[dict[str, Any]], most: int) -> None:
        texts = [prompt_of(row["raw"], row["synthetic"], self.counter, self.knobs) for row in found]
        for row, text, (words, elsewhere) in zip(found, texts, self._words(texts), strict=True):
            taken, passed = self.taken[row["category"]], self.passed[row["category"]]
            if self._is_full(row["category"]):
                continue
            if text is None:
                passed["min_tokens to max_tokens"] += 1
            elif elsewhere:
                passed["against (text)"] += 1
            elif words in self.prompts:
                passed["one picture per prompt"] += 1
            elif self.sources[source := (row["category"], row["source_name"])] >= most:
                passed["max_source_share"] += 1
            else:
                self.sources[source] += 1
                self.prompts.add(words)
                taken.append(row | text._asdict())

    def _words(self, texts: list[Text | None]) -> list[tuple[int, bool]]:
        """Of each prompt the number of its words, and whether a training dataset has the same ones."""
        prompts = pa.table({"place": range(len(texts)), "prompt": [text and text.prompt for text in texts]})
        self.connection.register("given", prompts.cast(pa.schema([("place", pa.int64()), ("prompt", pa.string())])))
        words = f"SELECT place, {_NORMAL.format(text='prompt')} AS words FROM given"
        known = f"SELECT DISTINCT words FROM other_texts SEMI JOIN ({words}) USING (words)"  # a hash of the few texts
        elsewhere = {one for (one,) in self.connection.execute(known).fetchall()}
        found = self.connection.execute(f"SELECT words FROM ({words}) ORDER BY place").fetchall()
        return [(one, one in elsewhere) for (one,) in found]

    def _excluded(self) -> dict[str, int]:
        sql = (
            "SELECT strength, count(*) FROM facts JOIN wanted USING (head) WHERE failed = ['against'] GROUP BY strength"
        )
        found = {METHODS[strength]: number for strength, number in self.connection.execute(sql).fetchall()}
        texts = sum(passed["against (text)"] for passed in self.passed.values())
        return {**{method: found.get(method, 0) for method in METHODS[:3]}, "text": texts}

    def _refuse_few(self) -> None:
        few = {name: len(taken) for name, taken in self.taken.items() if len(taken) < self.knobs.per_category}
        lacking = 0 if self.knobs.categories else self.knobs.num_categories - len(self.nouns)
        if not few and not lacking:
            return
        # where categories are lacking, a picture of any head noun would do
        failing = (
            "SELECT category, failed[1], count(*) FROM facts LEFT JOIN wanted USING (head) "
            "WHERE len(failed) = 1 AND head IS NOT NULL"
        )
        doubles = "SELECT category, 'one picture per group', count(*) FROM eligible WHERE nth > 1 GROUP BY ALL"
        freed = Counter[str]()
        for category, limit, number in self.connection.execute(
            f"{failing} GROUP BY ALL UNION ALL {doubles}"
        ).fetchall():
            freed[limit] += number if category in few or (lacking and category is None) else 0
        for category in few:
            freed.update(self.passed[category])
        raise ValueError(_too_few(few, self.knobs, lacking, freed))


def _too_few(few: dict[str, int], knobs: EvaluationSet, lacking: int, freed: Counter[str]) -> str:
    short = [f"{category} has {number:,} of {knobs.per_category:,}" for category, number in few.items()]
    if lacking:
        short.append(f"{lacking} of {knobs.num_categories} categories have no picture at all")
    more = f" and {len(short) - _SHOWN} more" if len(short) > _SHOWN else ""
    what = f"too few pictures: {', '.join(short[:_SHOWN])}{more}"
    order = sorted(freed.items(), key=lambda limit: (-limit[1], limit[0]))
    instead = "ask for fewer (per_category, num_categories), name more nouns (categories), or take a larger dataset"
    if not order:
        return f"{what}; no limit alone costs any: {instead}"
    costs = ", ".join(f"{limit} {number:,}" for limit, number in order)
    limit = order[0][0]
    value = f" ({limit}={getattr(knobs, limit)})" if limit != "against" and hasattr(knobs, limit) else ""
    return f"{what}; what each limit alone costs: {costs}. {limit} costs most{value}: loosen it, {instead}"


def prompt_of(raw: str | None, synthetic: str | None, counter: TokenCounter, knobs: EvaluationSet) -> Text | None:
    """The raw caption where it is clean and of the right length, else the first sentences of the synthetic one."""
    for source, caption in (("raw", raw), ("synthetic", synthetic)):
        if caption is None:
            continue
        ends = (len(caption),) if source == "raw" else sentence_ends(caption)
        for end in reversed(ends):
            text = caption[:end].strip()
            least, most = counter.count(text)
            if least < knobs.min_tokens:
                break
            if most <= knobs.max_tokens and cleaned_text(text)[0] == text and junk_reason(text, text, 1) is None:
                return Text(text, source, most)
    return None
