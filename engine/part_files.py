"""What a map job with files besides its tables must say of them."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from engine.dataset import Dataset


class PartFiles(Protocol):
    """Files that a job writes besides its tables, such as tars: they move together with the rows that name them."""

    def delete_index(self, dataset: Dataset) -> None:
        """Delete what describes all files together, before one of them changes."""

    def has_room(self, dataset: Dataset, part: Path) -> bool:
        """Whether a part and its files can wait to be taken back: False where others of their names wait already."""

    def set_aside(self, dataset: Dataset) -> None:
        """Move every file to where it waits to be taken back, after the rows that name it; one whose name waits
        already is deleted: those that wait were whole when the run began that did not end."""

    def prepare(self, dataset: Dataset) -> None:
        """Make what workers need to copy from files that wait."""

    def take_back(self, dataset: Dataset, part: Path) -> bool:
        """Move the files that an outdated part names back to their place; False where one of them is gone."""

    def are_waiting(self, dataset: Dataset) -> bool:
        """Whether files wait to be taken back."""

    def delete_set_aside(self, dataset: Dataset) -> None:
        """Delete the files that nobody took back, once the rows that name them are deleted: rows without their files
        would be taken for those of files of the same names."""
