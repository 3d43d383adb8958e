"""Where a dataset is kept: a folder of this machine, or an object store."""

from engine.place import mirror as mirror  # which keeps the files of stores from here on
