"""A real server of the live pages on loopback, in a thread."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import uvicorn

from engine.dataset import Dataset
from viewer.server import LOOPBACK, make_app


@contextmanager
def served(dataset: Dataset, hosts: tuple[str, ...] = LOOPBACK) -> Iterator[str]:
    """The address of the pages of a dataset, while they are served. Clients read no certificates: there is no TLS."""
    app = make_app(dataset, hosts)
    with socket.socket() as listener, patch.object(ssl.SSLContext, "load_verify_locations"):
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)
            app.state.pages.live.close()
