"""Evaluation says how good generated pictures are, in numbers that another lab can get: distances between sets of
features, agreement with captions, and preferences between models."""
