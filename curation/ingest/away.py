"""Tells a source that is away, such as a disk that was unmounted, from single files that are gone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from schemas.late import late
from schemas.locations import absolute, is_remote
from schemas.sources import AnySource, FolderSource, TableSource

with late(__name__):
    from curation.sources.patterns import is_pattern, split_pattern
    from curation.sources.storage import is_there


Failure = tuple[str, str | None]
"""A reason and its detail."""


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
    """Counts reads of a source that fail one after the other, and looks whether its folder is there."""

    def __init__(self, sources: Iterable[AnySource], stop_after: int | None) -> None:
        """`stop_after` failures of one kind in a row on one source stop the job; None never stops it."""
        self._sources, self._stop_after = tuple(sources), stop_after
        self._failures: dict[str, tuple[Failure, int]] = {}

    def see(self, row: Mapping[str, Any], failed: Failure | None) -> None:
        """Look at a row with `source` and `source_name`, in their order, and at why its bytes cannot be had now; None:
        they were had. Raises SourceAway: the source is not there."""
        if self._stop_after is None:
            return
        source, name = row["source"], row["source_name"]
        if failed is None:
            self._failures.pop(name, None)
            return
        before, num = self._failures.get(name, (failed, 0))
        num = num + 1 if before == failed else 1
        self._failures[name] = failed, num
        if source in local_roots(self._sources) and not is_there(source):
            raise SourceAway(f"{source}: is not there any more, or is empty; {_ADVICE}")
        if num >= self._stop_after:
            reason, detail = failed
            raise SourceAway(f"{source}: {num} files in a row cannot be read ({reason}: {detail}); {_ADVICE}")


_ADVICE = (
    "bring the disk, the share or the server back and run the same command again: finished parts stay. Where the files "
    "are gone for good, set ingest.stop_after_failures=null"
)
