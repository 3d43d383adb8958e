"""Where images come from: each source lists its inputs in a fixed order and can read their bytes again."""

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
    """The inputs of a source of any kind, and what was left out.

    Args:
        fetch_into: folder for what has to be downloaded first; of a URL list that names no other.

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
