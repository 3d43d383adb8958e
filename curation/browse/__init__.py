"""Live pages over a dataset, served on this machine: `sigma browse`."""

from curation.browse.server import LOOPBACK, is_loopback, make_app, serve

__all__ = ["LOOPBACK", "is_loopback", "make_app", "serve"]
