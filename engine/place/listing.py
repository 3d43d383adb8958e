"""Lists the objects of a store page by page, and many pages at the same time where there are many."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

import obstore
from obstore.store import AzureStore

if TYPE_CHECKING:
    from obstore import ObjectMeta

PAGE, AT_ONCE = 1000, 8
"""Objects of one answer, and answers that are awaited at the same time."""
LONG = 10
"""Pages of one folder that a thread lists before it leaves others a share of the rest."""
_LAST = "\U0010ffff"
"""No key is behind it."""
_NUMBER = re.compile(r"[^/]*?(\d{5,})[^/]*$")
"""The digits that number the files of a folder, as in part-00017 and 1.0-000012."""

Page: TypeAlias = "Sequence[ObjectMeta]"


def pages_below(client: Any, below: str) -> Iterator[Page]:
    """Every object below a folder, by key. A listing of S3 and GCS can begin behind any key, so other threads list the
    next folders, and the further parts of a long one, while this one is listed. An error is raised where its page was
    due."""
    stream = obstore.list(client, below or None, chunk_size=PAGE)
    first = next(stream, [])
    yield first
    in_order = all(before["path"] < after["path"] for before, after in pairwise(first))
    if not in_order or isinstance(client, AzureStore):
        yield from stream  # some of Azure's servers find nothing behind a key; directory buckets have no order
        return
    if len(first) < PAGE:
        return
    pool = ThreadPoolExecutor(AT_ONCE, "listing")

    def list_part(begin: str, until: str) -> tuple[list[Page], list[Future[Any]]]:
        """List what is behind a key up to another. The pages, and what others list of it: what is behind these."""
        pages, others = list[Page](), list[Future[Any]]()
        for page in obstore.list(client, below or None, offset=begin, chunk_size=PAGE):
            pages.append([found for found in page if begin < found["path"] <= until])
            if len(page) < PAGE or page[-1]["path"] >= until:
                break
            if cuts := [cut for cut in _cuts(page, below, len(pages)) if begin < cut < until]:
                others[:0] = [pool.submit(list_part, *part) for part in pairwise([*cuts, until])]
                until = cuts[0]
        return pages, others

    try:
        due = [pool.submit(list_part, first[-1]["path"], _LAST)]
        while due:
            pages, others = due.pop().result()
            yield from pages
            due += reversed(others)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _cuts(page: Page, below: str, num_pages: int) -> list[str]:
    """Keys behind a page at which the listing can be cut: the end of its folder and, in a long folder, where a digit of
    the files' number grows and a page or more has each of its values."""
    key, cuts = page[-1]["path"], list[str]()
    folder, slash, name = key.rpartition("/")
    if num_pages % LONG == 0 and (number := _NUMBER.match(name)):
        digits, stem = number[1], folder + slash + name[: number.start(1)]
        for place in reversed(range(len(digits) - 3)):
            cuts += [f"{stem}{digits[:place]}{digit}" for digit in range(int(digits[place]) + 1, 10)]
    return [*cuts, f"{folder}0"] if len(folder) > len(below) else cuts  # 0 is the character behind the slash
