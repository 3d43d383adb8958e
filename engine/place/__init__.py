"""Where a dataset is kept: a folder of this machine, or an object store."""
