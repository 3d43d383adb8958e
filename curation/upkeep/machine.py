"""Checks whether a machine has what Sigma needs."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from pathlib import Path

from curation.upkeep.doctor import Finding


def check_machine() -> list[Finding]:
    """Python, memory, disk, accelerator, and which optional models are installed."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    spacy_model = importlib.util.find_spec("en_core_web_sm") is not None
    address = os.environ.get("RAY_ADDRESS")
    return [
        Finding("python", platform.python_version()),
        Finding("cores", str(os.cpu_count())),
        Finding("memory", f"{memory:.0f} GB", memory >= 4),
        Finding("free disk here", f"{free:.0f} GB", free >= 2),
        Finding("accelerator", _accelerator()),
        Finding("ray", f"will join {address}" if address else "will start a cluster on this machine"),
        Finding("en_core_web_sm", "installed" if spacy_model else "not installed; nouns.extractor=lexicon needs none"),
    ]


def _accelerator() -> str:
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none; training runs on the CPU"
