"""Screens: what is wrong with a picture, each measured by a function of its own; the limits are `select`'s."""
