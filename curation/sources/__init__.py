"""Sources of images: `list_source` lists the inputs of each kind in a fixed order, `read_original` and `open_lazily`
read their bytes again. Other rooms use these, `storage.unreadable`, `urls` (to retry) and `demo_photos`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from curation.sources.folder import list_folder
from curation.sources.img2dataset_output import list_img2dataset, list_shard, stems_of
from curation.sources.item import Item, SourceListing, member_name
from curation.sources.read import open_lazily, read_original
from curation.sources.tables import list_hf_dataset, list_table
from curation.sources.tars import list_tars, list_webdataset, tars_of
from curation.sources.urls import list_urls
from schemas.sources import (
    AnySource,
    FolderSource,
    HFDatasetSource,
    Img2datasetSource,
    TableSource,
    UrlSource,
    WebDatasetSource,
)


def list_source(source: AnySource, fetch_into: str | None = None) -> SourceListing:
    """The inputs of a source of any kind, and counts of the files that are no inputs. `fetch_into`: folder for
    downloads; used by a URL list that names no other. Raises ValueError: the source cannot be used; one line saying
    what and how to mend it."""
    match source:
        case FolderSource():
            return list_folder(source)
        case WebDatasetSource():
            return list_webdataset(source)
        case Img2datasetSource():
            return list_img2dataset(source)
        case TableSource():
            return list_table(source)
        case HFDatasetSource():
            return list_hf_dataset(source)
        case UrlSource():
            assert fetch_into is not None
            return list_urls(source, fetch_into)


def pieces_of(source: AnySource, found: SourceListing) -> list[str]:
    """The tars of a source, which can be listed one without the others, in order; none for other kinds of sources.
    Raises ValueError: as `list_source`."""
    match source:
        case WebDatasetSource():
            return tars_of(source, found)
        case Img2datasetSource():
            return stems_of(source, found)
    return []


def list_pieces(source: AnySource, pieces: Sequence[str], found: SourceListing) -> Iterator[Item]:
    """The items of some of `pieces_of`; those of all of them, one after the other, are what `list_source` gives."""
    if isinstance(source, WebDatasetSource):
        yield from list_tars(pieces, source.captions, found)
    else:
        for piece in pieces:
            yield from list_shard(piece, found)


__all__ = [
    "Item",
    "SourceListing",
    "list_pieces",
    "list_source",
    "member_name",
    "open_lazily",
    "pieces_of",
    "read_original",
]
