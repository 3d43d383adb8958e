"""Free memory is the least of what the machine has and what the control groups leave."""

from __future__ import annotations

import psutil
import pytest

from models.memory import free_bytes


def written(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


NEW = "sys/fs/cgroup/user/job/memory"
ABOVE = "sys/fs/cgroup/user/memory"
OLD = "sys/fs/cgroup/memory/box/memory"


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/user/job\n"}, None),
        (
            {
                "proc/self/cgroup": "0::/user/job\n",
                f"{NEW}.max": "max\n",
                f"{NEW}.current": "5\n",
                f"{NEW}.stat": "a 1\n",
            },
            None,
        ),
        (
            {
                "proc/self/cgroup": "0::/user/job\n",
                f"{NEW}.max": "1000\n",
                f"{NEW}.current": "700\n",
                f"{NEW}.stat": "anon 600\ninactive_file 90\n",
            },
            390,
        ),
        (
            {
                "proc/self/cgroup": "0::/user/job\n",
                f"{NEW}.max": "1000\n",
                f"{NEW}.current": "700\n",
                f"{NEW}.stat": "inactive_file 0\n",
                f"{ABOVE}.max": "2000\n",
                f"{ABOVE}.current": "1900\n",
                f"{ABOVE}.stat": "inactive_file 0\n",
            },
            100,
        ),
        (
            {
                "proc/self/cgroup": "9:name=systemd:/x\n4:memory:/box\n0::/\n",
                f"{OLD}.limit_in_bytes": "1000\n",
                f"{OLD}.usage_in_bytes": "1100\n",
                f"{OLD}.stat": "total_inactive_file 50\n",
            },
            0,
        ),
        (  # a container names a group that it cannot see; its own is the mount
            {
                "proc/self/cgroup": "4:cpu,memory:/docker/1234\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "1000\n",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "400\n",
                "sys/fs/cgroup/memory/memory.stat": "total_inactive_file 0\n",
            },
            600,
        ),
    ],
    ids=["no linux", "unseen", "no limit", "version 2", "the group above", "version 1", "a container"],
)
def test_a_group_limits_what_is_free(tmp_path, files, left):
    found = free_bytes(written(tmp_path, files))
    if left is None:
        assert found == pytest.approx(psutil.virtual_memory().available, rel=0.3)
    else:
        assert found == left


def test_this_machine_has_some_memory_free():
    assert 0 < free_bytes() <= psutil.virtual_memory().total
