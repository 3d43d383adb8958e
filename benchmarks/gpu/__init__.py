"""Measures on a GPU what training, encoding, captioning and drawing cost, in one command of nine minutes.

`python -m benchmarks.gpu --help` says what it needs; `running` holds the order of the measurements and the table.
"""
