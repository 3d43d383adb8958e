"""Find all pairs of 64-bit hashes within k bits of each other, without comparing all pairs. Cut 64 bits into m blocks:
two hashes within k bits agree in at least m - k blocks whole. So one table per choice of m - k blocks, joined on those
bits, misses no pair (Manku, Jain, Das Sarma, "Detecting near-duplicates for web crawling", WWW 2007). More blocks make
longer keys and smaller buckets, but more tables; `choose_blocks` weighs them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, count, pairwise
from math import comb

from engine.reduce_job import Connection

BITS = 64
MAX_DISTANCE = 6
"""Largest k; 33 million hashes take minutes up to 3 and about an hour at 6."""

_PAIR_COST = 0.4
"""Cost of checking one candidate pair; inserting one hash costs 1. Used by `choose_blocks`."""
_FULL = 1024
"""Hashes in a bucket from which on it may be cut again."""
_SAMPLED = 500_000
"""Hashes that are counted to find the full buckets."""
_DEEPEST = 3
"""How often a full bucket is cut again."""


def find_pairs(connection: Connection, left: str, right: str, max_distance: int, into: str) -> None:
    """Write all pairs within `max_distance` bits into a new table (x, y, distance), each once.

    Args:
        left: a table of distinct hashes in a column `phash` (UBIGINT).
        right: another one; the same name finds pairs within one table, x < y.
        max_distance: 0 to `MAX_DISTANCE`.
    """
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {into}_candidates (x UBIGINT, y UBIGINT)")
    search = _Search(connection, max_distance, f"{into}_candidates")
    if max_distance > 0 or left != right:
        num_left, num_right = (_num_rows(connection, table) for table in (left, right))
        for mask in masks(choose_blocks(num_left, num_right, max_distance), max_distance):
            search.join(left, right, mask, depth=0)
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE {into} AS "
        f"SELECT DISTINCT x, y, bit_count(xor(x, y)) AS distance FROM {into}_candidates"
    )
    connection.execute(f"DROP TABLE {into}_candidates")


def choose_blocks(num_left: int, num_right: int, max_distance: int) -> int:
    """The m for which joining evenly spread hashes costs least. The result does not depend on it."""

    def cost(num_blocks: int) -> float:
        key_bits = BITS * (num_blocks - max_distance) / num_blocks
        candidates = num_left * num_right / 2**key_bits
        return comb(num_blocks, max_distance) * (num_left + num_right + _PAIR_COST * candidates)

    return min(range(max_distance + 1, max_distance + 7), key=cost)


def masks(num_blocks: int, max_distance: int) -> list[int]:
    """The bits that each table is joined on: every choice of `num_blocks - max_distance` blocks."""
    blocks = cut(2**BITS - 1, num_blocks)
    return [sum(chosen) for chosen in combinations(blocks, num_blocks - max_distance)]


def cut(mask: int, num_pieces: int) -> list[int]:
    """The bits of a mask in `num_pieces` masks of as equal a size as can be, lowest bits first."""
    places = [place for place in range(BITS) if mask >> place & 1]
    ends = [round(piece * len(places) / num_pieces) for piece in range(num_pieces + 1)]
    return [sum(1 << place for place in places[begin:end]) for begin, end in pairwise(ends)]


class _Search:
    """Joins tables of hashes on some of their bits, and cuts buckets again that would be too full."""

    def __init__(self, connection: Connection, max_distance: int, into: str) -> None:
        self.connection = connection
        self.max_distance = max_distance
        self.into = into
        self.names = count()

    def join(self, left: str, right: str, mask: int, depth: int) -> None:
        """Collect the pairs that agree in the bits of `mask`. The hashes of photographs are not spread evenly: symmetry
        and plain backgrounds leave many bits 0. In a full bucket the pigeonhole works once more: its hashes agree in
        `mask`, so near ones also agree in one of k + 1 pieces of the other bits."""
        key = f"(phash & {mask}::UBIGINT)"
        full = self._full_buckets(left, right, key) if depth < _DEEPEST else None
        if full is None:
            self._join_all(left, right, key)
            return
        rest = {table: self._part(table, f"{key} NOT IN (FROM {full})") for table in dict.fromkeys((left, right))}
        crowd = {table: self._part(table, f"{key} IN (FROM {full})") for table in rest}
        self._join_all(rest[left], rest[right], key)
        for piece in cut((2**BITS - 1) & ~mask, self.max_distance + 1):
            self.join(crowd[left], crowd[right], mask | piece, depth + 1)
        self._drop([full, *rest.values(), *crowd.values()])

    def _join_all(self, left: str, right: str, key: str) -> None:
        keys = " = ".join(key.replace("phash", f"{side}.phash") for side in ("x", "y"))
        once = "x.phash < y.phash" if left == right else "true"
        self.connection.execute(
            f"INSERT INTO {self.into} SELECT x.phash, y.phash FROM {left} AS x JOIN {right} AS y "
            f"ON {keys} AND {once} AND bit_count(xor(x.phash, y.phash)) <= {self.max_distance}"
        )

    def _full_buckets(self, left: str, right: str, key: str) -> str | None:
        """A table with the keys of the full buckets; None where cutting them would save less than it costs. Counted in
        a sample: a bucket that is overlooked costs time and no pair."""
        num_rows = _num_rows(self.connection, left)
        every = max(1, num_rows // _SAMPLED)
        name = self._name()
        self.connection.execute(
            f"CREATE TEMP TABLE {name} AS SELECT {key} AS bits, count(*) * {every} AS num FROM {left} "
            f"WHERE hash(phash) % {every} = 0 GROUP BY bits HAVING num >= {_FULL}"
        )
        found = self.connection.execute(f"SELECT sum(num::DOUBLE * num) / 2 FROM {name}").fetchone()
        if found is None or found[0] is None or found[0] * _PAIR_COST < num_rows:
            self._drop([name])
            return None
        self.connection.execute(f"ALTER TABLE {name} DROP COLUMN num")
        return name

    def _part(self, table: str, condition: str) -> str:
        name = self._name()
        self.connection.execute(f"CREATE TEMP TABLE {name} AS SELECT phash FROM {table} WHERE {condition}")
        return name

    def _name(self) -> str:
        return f"{self.into}_{next(self.names)}"

    def _drop(self, tables: Sequence[str]) -> None:
        for table in tables:
            self.connection.execute(f"DROP TABLE {table}")


def _num_rows(connection: Connection, table: str) -> int:
    found = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    assert found is not None
    return int(found[0])
