"""The viewer shows a dataset: as one HTML file (`report`), as live pages (`server`) and as tables (`sheets`).

It reads what the jobs wrote and writes nothing but the file of a report.
"""
