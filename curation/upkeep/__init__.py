"""Keeps a built dataset sound: `doctor` checks it, `repair` mends it, `purge` takes pictures out for good."""
