"""From the shard index to batches: which samples, in which order, read from where, cropped to what."""
