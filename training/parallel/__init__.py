"""Spreads training over processes and names their failures; the loop uses `world`, the state `shard` and `whole`."""
