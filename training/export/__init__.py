"""Writes weights in other layouts; `sigma convert` uses `read_model`, `write_weights` and `write_pipeline`."""
