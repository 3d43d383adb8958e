"""Look up which images a takedown names, and what would go with them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from curation.ingest.takedown_log import TakedownEntry, read_log
from engine import catalog
from engine.dataset import Dataset
from engine.duck import Connection

_MATCHES = """
SELECT row_id, coalesce(images.image_id, '') AS image_id, images.sha256, listing.source_name || '/' || listing.member,
       matched_by, images.reason = 'purged'
FROM (SELECT row_id, min(matched_by) AS matched_by FROM matched GROUP BY row_id)
JOIN listing USING (row_id) LEFT JOIN images USING (row_id)
ORDER BY row_id
"""

# Both the selection and the plan are read: the plan may be older while a build is unfinished.
_INHERITING = """
SELECT DISTINCT giver, row_id, image_id FROM (
    SELECT inherited_from_row AS giver, row_id, image_id FROM selection
    UNION ALL
    SELECT images.row_id, shard_plan.row_id, shard_plan.image_id
    FROM shard_plan JOIN images ON images.image_id = raw_caption_from
)
WHERE giver IN (SELECT row_id FROM matched) AND row_id NOT IN (SELECT row_id FROM matched)
ORDER BY giver, row_id
"""

ID_DIGITS = 32
SHORTEST_PREFIX = 8
"""Fewest hex digits that name an image_id, where no other begins with them."""

DOUBLES = " and its doubles"
"""Ends the `matched_by` of an input that goes because a picture of its group does."""

Condition = tuple[str, str, list[object]]
"""(selector, SQL condition, its values)"""

_HOST = (
    r"rtrim(lower(regexp_extract(replace(trim({url}), '\', '/'), "
    r"'^(?:(?:[a-zA-Z][a-zA-Z0-9+.-]*:)?//*)?(?:[^/@?#]*@)?([^/:?#]+)', 1)), '.')"
)
"""Host of a URL, however it is written: with capitals, a user, a port, a dot at its end, or without a scheme."""

_URL = "coalesce(images.url, listing.url)"


@dataclass(frozen=True)
class Wanted:
    """What is to be taken out; an input that any of them names goes, and every byte-for-byte copy with it."""

    image_ids: tuple[str, ...] = ()
    sha256s: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    """Of the URL, with all that end in `.domain`."""
    phashes: tuple[str, ...] = ()
    """16 hex digits; pictures within `distance` bits."""
    distance: int = 0
    duplicates: bool = False
    """Also everything that `dedup` put into one group with a match."""

    def conditions(self) -> list[Condition]:
        """(selector, SQL condition, its values) of each. Raises ValueError: a selector is none."""
        if not 0 <= self.distance <= 16:
            raise ValueError(f"--distance {self.distance}: 0 to 16 bits; beyond, pictures have little in common")
        found: list[Condition] = []
        for name, values, digits in (("image_id", self.image_ids, ID_DIGITS), ("sha256", self.sha256s, 64)):
            for value in values:
                _refuse_other_than_hex(name, value, digits, SHORTEST_PREFIX if name == "image_id" else None)
                found.append((f"{name}={value.lower()}", f"images.{name} = ?", [value.lower()]))
        for url in self.urls:
            found.append((f"url={url}", f"{_URL} = ?", [url]))
        for domain in self.domains:
            host = domain.lower().strip(".")
            if not re.fullmatch(r"[^\s/:@]+", host):
                raise ValueError(f"--domain {domain}: a name such as example.org, without scheme or path")
            condition = f"({_HOST.format(url=_URL)} = ? OR ends_with({_HOST.format(url=_URL)}, ?))"
            found.append((f"domain={host}", condition, [host, f".{host}"]))
        for value in self.phashes:
            _refuse_other_than_hex("phash", value, 16)
            hashed = "fingerprints.pixel_sha256 IS NOT NULL"
            condition = f"({hashed} AND bit_count(xor(fingerprints.phash, ?::UBIGINT)) <= ?)"
            found.append((f"phash={value.lower()}", condition, [int(value, 16), self.distance]))
        if not found:
            raise ValueError("say what to take out: --image-id, --sha256, --url, --domain or --phash")
        return found


def _refuse_other_than_hex(name: str, value: str, digits: int, fewest: int | None = None) -> None:
    if not re.fullmatch(rf"[0-9a-fA-F]{{{fewest or digits},{digits}}}", value):
        fewer = f", or the first {fewest} or more of one that is in the dataset" if fewest else ""
        raise ValueError(f"--{name.replace('_', '-')} {value}: {digits} hex digits are wanted{fewer}")


@dataclass(frozen=True)
class Found:
    """What would be taken out."""

    entries: list[TakedownEntry]
    """Of the log, unfinished; the first ones match an input, those without a row refuse a hash in future."""
    num_gone: int
    """Matches that were taken out before."""
    num_beside: int
    """Inputs that stay, but were dropped as near doubles of a picture that goes."""

    @property
    def num_inheriting(self) -> int:
        """Pictures that stay and lose an inherited caption."""
        return len({heir for entry in self.entries for heir in entry.heirs})

    @property
    def num_rows(self) -> int:
        return sum(entry.row_id is not None for entry in self.entries)


def find(dataset: Dataset, wanted: Wanted, why: str, features: Sequence[Path] = ()) -> Found:
    """Look up what the selectors name. Reads tables, changes nothing. Raises ValueError: a selector is none; or a URL
    or domain matches nothing, now or before."""
    wanted.conditions()  # refuses what is no selector
    ids = (value if len(value) == ID_DIGITS else _whole_id(dataset, value.lower()) for value in wanted.image_ids)
    conditions = replace(wanted, image_ids=tuple(ids)).conditions()
    logged = read_log(dataset)
    when = datetime.now(UTC).isoformat(timespec="seconds")
    entry = partial(TakedownEntry, why=why, when=when, features=tuple(str(folder.absolute()) for folder in features))
    with catalog.connect(dataset) as connection:
        _match(connection, conditions, wanted.duplicates)
        rows = connection.execute(_MATCHES).fetchall()
        matched = {name.removesuffix(DOUBLES) for _, _, _, _, name, _ in rows}
        heirs: dict[int, list[tuple[int, str]]] = {}
        for giver, row_id, image_id in connection.execute(_INHERITING).fetchall():
            heirs.setdefault(giver, []).append((row_id, image_id))
        beside = connection.execute(
            "SELECT count(*) FROM selection WHERE rejected_by = 'duplicate' AND row_id NOT IN "
            "(SELECT row_id FROM matched) AND duplicate_of_row IN (SELECT row_id FROM matched)"
        ).fetchone()
    assert beside is not None
    entries = [
        entry(
            matched_by=by,
            row_id=row_id,
            image_id=image_id or None,
            sha256=sha256,
            name=name,
            heirs=tuple(heirs.get(row_id, ())),
        )
        for row_id, image_id, sha256, name, by, gone in rows
        if not gone
    ]
    for selector, _, _ in conditions:
        is_noted = any(_selector(old) == selector for old in logged)
        refusal = _refusal(selector, wanted.distance, entry)
        if refusal is None:
            if selector not in matched and not is_noted:
                raise ValueError(f"{dataset.root}: nothing matches {selector}")
        elif refusal.phash is not None:
            if not any(_refuses_same(old, refusal) for old in logged):
                entries.append(refusal)
        elif selector not in matched and not is_noted:
            entries.append(refusal)
    return Found(entries, sum(bool(gone) for *_, gone in rows), beside[0])


def _whole_id(dataset: Dataset, prefix: str) -> str:
    """The only image_id that begins with some digits. Raises ValueError: there is none, or there are several."""
    with catalog.connect(dataset, reads=["images"]) as connection:
        sql = "SELECT DISTINCT image_id FROM images WHERE starts_with(image_id, ?) ORDER BY ALL LIMIT 2"
        found = [value for (value,) in connection.execute(sql, [prefix]).fetchall()]
    if not found:
        raise ValueError(f"{dataset.root}: nothing matches image_id={prefix}")
    if len(found) > 1:
        raise ValueError(f"{dataset.root}: image_id={prefix} begins several, such as {found[0]} and {found[1]}")
    return str(found[0])


def _match(connection: Connection, conditions: Sequence[Condition], duplicates: bool) -> None:
    """Fill the table `matched` with every input that a condition names, and why."""
    connection.execute("CREATE TEMP TABLE matched (row_id BIGINT, matched_by VARCHAR)")
    for selector, condition, values in conditions:
        connection.execute(
            "INSERT INTO matched SELECT row_id, ? FROM listing LEFT JOIN images USING (row_id) "
            f"LEFT JOIN fingerprints USING (row_id) WHERE {condition}",
            [selector, *values],
        )
    if duplicates:
        connection.execute(
            "INSERT INTO matched SELECT other.row_id, matched_by || ? FROM matched "
            "JOIN duplicates USING (row_id) JOIN duplicates AS other USING (group_id)",
            [DOUBLES],
        )
    connection.execute(  # the same bytes are taken out of every row
        "INSERT INTO matched SELECT other.row_id, matched_by FROM matched JOIN images USING (row_id) "
        "JOIN images AS other USING (sha256) WHERE images.sha256 IS NOT NULL"
    )


def _selector(entry: TakedownEntry) -> str:
    return entry.matched_by.removesuffix(DOUBLES)


def _refuses_same(old: TakedownEntry, new: TakedownEntry) -> bool:
    return old.row_id is None and (old.matched_by, old.phash, old.distance) == (new.matched_by, new.phash, new.distance)


def _refusal(selector: str, distance: int, entry: Callable[..., TakedownEntry]) -> TakedownEntry | None:
    """The entry that refuses a hash in future; None for a selector that is none."""
    kind, _, value = selector.partition("=")
    if kind == "image_id":
        return entry(matched_by=selector, image_id=value)
    if kind == "sha256":
        return entry(matched_by=selector, image_id=value[:32], sha256=value)
    return entry(matched_by=selector, phash=value, distance=distance) if kind == "phash" else None
