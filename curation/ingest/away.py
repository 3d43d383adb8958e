"""Tells a source that is away, such as a disk that was unmounted, from single files that are gone."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from schemas.late import late
from schemas.locations import absolute, is_remote
from schemas.reasons import RETRIED
from schemas.sources import AnySource, FolderSource, TableSource

with late(__name__):
    from curation.sources.patterns import is_pattern, split_pattern
    from curation.sources.storage import is_there


class SourceAway(ValueError):
    """The files of a source cannot be read at the moment; a row must not say that of each of them for good."""


def local_roots(sources: Iterable[AnySource]) -> frozenset[str]:
    """The local folders that are there as long as their sources are."""
    roots = set()
    for source in sources:
        location = source.location()
        if isinstance(source, TableSource):
            roots.add(location.rpartition("/")[0] if source.root is None else absolute(source.root))
        elif isinstance(source, FolderSource):
            roots.add(split_pattern(location)[0] if is_pattern(location) else location)
    return frozenset(root for root in roots if root and not is_remote(root))


class AwayCheck:
    """Counts reads that fail one after the other, and looks whether the folder of a source is there."""

    def __init__(self, roots: Collection[str], stop_after: int | None) -> None:
        """`stop_after` failures of one kind in a row on one source stop the job; None never stops it."""
        self._roots, self._stop_after = roots, stop_after
        self._kind: tuple[Any, ...] = ()
        self._num = 0

    def see(self, listed: Mapping[str, Any], image: Mapping[str, Any]) -> None:
        """Look at a row of the listing and what became of it, in the order of the rows. Raises SourceAway: the source
        is not there."""
        if self._stop_after is None or listed.get("reason") is not None:
            return
        if image.get("reason") not in RETRIED:
            self._num = 0
            return
        kind = listed["source_name"], image["reason"], image["detail"]
        self._num = self._num + 1 if kind == self._kind else 1
        self._kind = kind
        source = listed["source"]
        if source in self._roots and not is_there(source):
            raise SourceAway(f"{source}: is not there any more, or is empty; {_ADVICE}")
        if self._num >= self._stop_after:
            raise SourceAway(
                f"{source}: {self._num} files in a row cannot be read ({image['reason']}: {image['detail']}); {_ADVICE}"
            )


_ADVICE = (
    "bring the disk, the share or the server back and run the same command again: finished parts stay. Where the files "
    "are gone for good, set ingest.stop_after_failures=null"
)
