"""Captioners write captions for pictures. The job `caption` makes one with `make`; `base` is their protocol."""
