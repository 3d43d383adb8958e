"""Where images come from: each source lists its inputs in a fixed order and can read their bytes again."""

from __future__ import annotations

from curation.sources.folder import list_folder
from curation.sources.item import Item, SourceListing, member_name, original_path, read_original
from schemas.recipe import FolderSource


def list_source(source: FolderSource) -> SourceListing:
    """The inputs of a source of any kind, and what was left out.

    Raises:
        ValueError: the source cannot be used; one line saying what and how to mend it.
    """
    return list_folder(source)


__all__ = ["Item", "SourceListing", "list_source", "member_name", "original_path", "read_original"]
