"""The HTML report of a dataset: one page, no network."""

from curation.report.page import write_report

__all__ = ["write_report"]
