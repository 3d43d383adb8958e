"""The tables and the connection that the tests of captioning use."""

from tests.captioning.conftest import connection, part

__all__ = ["connection", "part"]
