"""Runs jobs over a dataset in numbered parts, resumably, here or on Ray; it knows no picture. Others use `Dataset` (the
folder), `MapJob` and `ReduceJob` (what to compute), `catalog` (SQL over all tables), `ahead` (threads that work ahead),
`LazyRunner` (what runs parts), `Flow` (map jobs whose parts flow) and `run_log` (what ran)."""
