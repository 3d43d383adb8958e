"""Runs a command beside an S3 server on this machine's loopback, whose bucket `demo` is empty and gone afterwards.

python -m benchmarks.loopback_store sigma demo demo-store --dataset s3://demo/dataset
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

from tests.storing import environment, storing


def main(command: list[str]) -> int:
    """Run the command with the environment of a user of the server; its exit status."""
    with storing("demo") as store, tempfile.TemporaryDirectory() as scratch:
        print(f"an S3 server listens at {store.url}; its bucket is s3://demo", flush=True)
        return subprocess.run(
            command, env=os.environ | environment(store.url) | {"SIGMA_SCRATCH": scratch}, check=False
        ).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
