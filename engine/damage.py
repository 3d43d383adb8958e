"""Tells a Parquet file that is damaged, and how to mend it, from one that cannot be read now."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from schemas.columns import BESIDE, EVALUATION_TABLES, FAMILIES
from schemas.files import refresh_copy
from schemas.late import late
from schemas.unread import is_unread

with late(__name__):
    import pyarrow as pa


def damage() -> tuple[type[Exception], ...]:
    """The errors that reading a damaged Parquet file raises."""
    return (pa.ArrowException, OSError, UnicodeDecodeError)


_MEND = {
    "listing": "put it back from a copy",
    "headers": "delete it and run sigma ingest RECIPE --probe-only again",
}


def how_to_mend(table: str) -> str:
    """What to do about a damaged file of a table or of the shards, in the imperative."""
    return _MEND.get(table, f"delete it and run {_writer(table)} again")


def _writer(table: str) -> str:
    """The command that writes a table."""
    if table in ("verdicts", "preferences", "strengths"):
        return "sigma judge RECIPE"
    is_family = f"{table.partition('/')[0]}/" in FAMILIES.keys() - {BESIDE}
    return "sigma evaluate RECIPE" if is_family or table in EVALUATION_TABLES else "sigma build"


def _table_of(path: Path) -> str:
    """The table of a part, or of rows that were paid for; of any other file the name of its folder."""
    names = path.parent.parts
    begins = [place + 1 for place, name in enumerate(names[:-1]) if name in ("tables", "paid")]
    return "/".join(names[begins[-1] :] if begins else names[-1:])


class Damaged(ValueError):
    """A file is missing or damaged; the message says how to mend it."""


@contextmanager
def explaining_damage(path: Path) -> Iterator[None]:
    """Say what to do about a Parquet file that cannot be read inside. Raises Damaged; OSError: it cannot be read now,
    and may be as it was written."""
    try:
        yield
    except FileNotFoundError:
        raise Damaged(f"{path}: missing; run {_writer(_table_of(path))} again to have it written") from None
    except damage() as error:
        if isinstance(error, OSError) and is_unread(error):
            if error.errno is not None:
                error.filename = error.filename or str(path)
            raise
        if refresh_copy(path):
            raise Damaged(
                f"{path}: the copy of it on this machine was damaged ({error}) and was fetched anew; run the same "
                "command again"
            ) from None
        raise Damaged(f"{path}: damaged ({error}); {how_to_mend(_table_of(path))}") from None
