"""One process or many: the world that torchrun describes, and the few things processes say to each other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

SIGNS_OF_A_LOST_PROCESS = (
    "Connection closed",
    "Connection reset",
    "Broken pipe",
    "Timed out",
    "NCCL",
    "closed by peer",
)
"""Parts of what gloo and NCCL say when a peer is gone."""


@dataclass(frozen=True)
class World:
    """This process among all: `rank` of `size`, computing on `device`."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def parallel(self, model: nn.Module) -> nn.Module:
        """The module to call in training: it averages gradients over the processes."""
        if self.size == 1:
            return model
        ids = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=ids, gradient_as_bucket_view=True)

    def unsynchronised(self, module: nn.Module) -> AbstractContextManager[None]:
        """Accumulate gradients without averaging them yet."""
        return module.no_sync() if isinstance(module, DistributedDataParallel) else nullcontext()

    def mean(self, values: Tensor) -> Tensor:
        """The mean over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(values)
            values /= self.size
        return values

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def split(self, batch: int, what: str) -> int:
        """Pictures per process.

        Raises:
            ValueError: the processes do not divide the batch.
        """
        if batch % self.size:
            raise ValueError(
                f"{what}: a batch of {batch} cannot be split over {self.size} processes evenly; "
                "set another batch or start another number of processes"
            )
        return batch // self.size

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()


@contextmanager
def world() -> Iterator[World]:
    """Join the processes that torchrun started, or be the only one; leaves the group at the end.

    Raises:
        ValueError: the variables of torchrun are there in part, or are no numbers.
    """
    size_text = os.environ.get("WORLD_SIZE", "1")
    try:
        size, rank, local_rank = (
            int(size_text),
            int(os.environ.get("RANK", "0")),
            int(os.environ.get("LOCAL_RANK", "0")),
        )
    except ValueError:
        raise ValueError(f"WORLD_SIZE={size_text!r}: torchrun's variables are damaged; start with torchrun") from None
    has_gpu = torch.cuda.is_available()
    device = torch.device("cuda", local_rank) if has_gpu else torch.device("cpu")
    if has_gpu:
        torch.cuda.set_device(device)
    if size == 1:
        yield World(0, 1, device)
        return
    if "RANK" not in os.environ or "MASTER_ADDR" not in os.environ:
        raise ValueError(f"WORLD_SIZE is {size} but RANK or MASTER_ADDR is not set; start with torchrun")
    dist.init_process_group("nccl" if has_gpu else "gloo")
    try:
        yield World(rank, size, device)
    except RuntimeError as error:  # what gloo and NCCL raise
        if not any(sign in str(error) for sign in SIGNS_OF_A_LOST_PROCESS):
            raise
        raise ValueError(
            f"process {rank} of {size}: another process of this run was lost ({str(error).splitlines()[-1][:120]}); "
            "the last checkpoint is intact, run the same command to go on from it"
        ) from None
    finally:
        dist.destroy_process_group()
