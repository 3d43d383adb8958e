"""The viewer shows a dataset: as one HTML file (`report`), as live pages (`server`) and as tables (`sheets`); and an
evaluation, as a file (`evaluation_report`) and as live pages (`evaluation_pages`). It reads what the jobs wrote and
writes nothing but the file of a report."""
