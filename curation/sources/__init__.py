"""Sources of images: `list_source` lists the inputs of each kind in a fixed order, `read_original` and `open_lazily`
read their bytes again. Other rooms use these, `storage.unreadable`, `urls` (to retry) and `demo_photos`.
"""

from __future__ import annotations

from curation.sources.folder import list_folder
from curation.sources.img2dataset_output import list_img2dataset
from curation.sources.item import Item, SourceListing, member_name
from curation.sources.read import open_lazily, read_original
from curation.sources.tables import list_hf_dataset, list_table
from curation.sources.tars import list_webdataset
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
    """The inputs of a source of any kind, and counts of the files that are no inputs.

    Args:
        fetch_into: folder for downloads; used by a URL list that names no other.

    Raises:
        ValueError: the source cannot be used; one line saying what and how to mend it.
    """
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


__all__ = ["Item", "SourceListing", "list_source", "member_name", "open_lazily", "read_original"]
