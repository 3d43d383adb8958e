"""Run every benchmark and print a Markdown table with the machine it ran on."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import (
    at_scale,
    bit_flips,
    browse_speed,
    captioning_speed,
    curation_speed,
    data_path,
    dedup_speed,
    driver_memory,
    encoder_overhead,
    endpoint_speed,
    evaluation_speed,
    few_steps,
    gate,
    hard_cases,
    hostile_pictures,
    house,
    ingest_ceiling,
    interrupts,
    kv_compression,
    lanes,
    loader_speed,
    long_captions,
    memory_table,
    mutations,
    noun_speed,
    on_device,
    parts_flow,
    peers_ingest,
    peers_probe,
    ray_parts,
    screens_speed,
    semantic_speed,
    statistics_speed,
    store_speed,
    tar_listing,
    training_cost,
    training_profile,
    training_speed,
)


def main() -> None:
    """`python -m benchmarks [substring ...]`: those whose name holds one of the substrings."""
    wanted = sys.argv[1:] or [""]
    print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, {platform.processor() or platform.machine()}, "
          f"Python {platform.python_version()}\n")  # fmt: skip
    print("| benchmark | ours | beside it | ratio | goal |\n|---|---|---|---|---|")
    for benchmark in (
        *curation_speed.BENCHMARKS,
        *ingest_ceiling.BENCHMARKS,
        *peers_probe.BENCHMARKS,
        *peers_ingest.BENCHMARKS,
        *data_path.BENCHMARKS,
        *screens_speed.BENCHMARKS,
        *ray_parts.BENCHMARKS,
        *parts_flow.BENCHMARKS,
        *dedup_speed.BENCHMARKS,
        *driver_memory.BENCHMARKS,
        *at_scale.BENCHMARKS,
        *tar_listing.BENCHMARKS,
        *semantic_speed.BENCHMARKS,
        *mutations.BENCHMARKS,
        *browse_speed.BENCHMARKS,
        *captioning_speed.BENCHMARKS,
        *endpoint_speed.BENCHMARKS,
        *encoder_overhead.BENCHMARKS,
        *noun_speed.BENCHMARKS,
        *long_captions.BENCHMARKS,
        *statistics_speed.BENCHMARKS,
        *loader_speed.BENCHMARKS,
        *lanes.BENCHMARKS,
        *store_speed.BENCHMARKS,
        *training_speed.BENCHMARKS,
        *training_profile.BENCHMARKS,
        *kv_compression.BENCHMARKS,
        *memory_table.BENCHMARKS,
        *training_cost.BENCHMARKS,
        *evaluation_speed.BENCHMARKS,
        *few_steps.BENCHMARKS,
        *on_device.BENCHMARKS,
        *house.BENCHMARKS,
        *bit_flips.BENCHMARKS,  # tables of their own from here on
        *interrupts.BENCHMARKS,
        *gate.BENCHMARKS,
        *hard_cases.BENCHMARKS,
        *hostile_pictures.BENCHMARKS,
    ):
        if any(part in benchmark.__name__ for part in wanted):
            with tempfile.TemporaryDirectory() as folder:
                for line in benchmark(Path(folder)):
                    print(line, flush=True)


if __name__ == "__main__":
    main()
