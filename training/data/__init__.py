"""Turns the shard index into batches; the training loop uses `Loader`, `Source` and `ShardReader`."""
