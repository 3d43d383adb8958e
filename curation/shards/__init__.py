"""Kept samples become WebDataset tars and their index: the jobs `plan` and `writer`. Upkeep also uses `check` (is a
shard as planned?) and `rewriter` (take samples out)."""
