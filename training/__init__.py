"""Shards to PixArt-Σ: the model, its loss and optimizer, and the weak-to-strong chain of stages that trains it."""
