"""Trains a stage many times, each time with one thing changed, and says which changes can be told from chance."""
