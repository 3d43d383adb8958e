"""Where images come from: each source lists its inputs in a fixed order and can read their bytes again."""

from __future__ import annotations

from curation.sources.folder import list_folder
from curation.sources.item import Item, SourceListing, member_name
from curation.sources.read import original_path, read_original
from curation.sources.tables import list_hf_dataset, list_table
from curation.sources.tars import list_webdataset
from schemas.sources import AnySource, FolderSource, HFDatasetSource, TableSource, WebDatasetSource


def list_source(source: AnySource, fetch_into: str | None = None) -> SourceListing:
    """The inputs of a source of any kind, and what was left out.

    Args:
        fetch_into: folder for what has to be downloaded first; of a URL list that names no other.

    Raises:
        ValueError: the source cannot be used; one line saying what and how to mend it.
    """
    if isinstance(source, WebDatasetSource):
        return list_webdataset(source)
    if isinstance(source, TableSource):
        return list_table(source)
    if isinstance(source, HFDatasetSource):
        return list_hf_dataset(source)
    assert isinstance(source, FolderSource)
    return list_folder(source)


__all__ = ["Item", "SourceListing", "list_source", "member_name", "original_path", "read_original"]
