"""Speed and memory, measured side by side with the ceiling of the same machine; `make bench` runs all."""
