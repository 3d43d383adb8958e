"""One process or many: the group that torchrun describes, and how its processes exchange sums and wait."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

from training.parallel.lost_process import StopSignal, lost_process_named


@dataclass(frozen=True)
class World:
    """This process among all: `rank` of `size`, computing on `device`; `stop` hears the signals to end."""

    rank: int
    size: int
    device: torch.device
    stop: StopSignal = field(default_factory=StopSignal)

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @property
    def node(self) -> tuple[int, int]:
        """The number of this machine, and how many there are; torchrun says how many processes each has."""
        local = int(os.environ.get("LOCAL_WORLD_SIZE", self.size))
        return (0, 1) if self.size % local else (self.rank // local, self.size // local)

    def parallel(self, model: nn.Module) -> nn.Module:
        """The module to call in training. It averages gradients over the processes, which a sharded one does itself."""
        if self.size == 1 or isinstance(model, FSDPModule):
            return model
        ids = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=ids, gradient_as_bucket_view=True)

    @contextmanager
    def unsynchronised(self, module: nn.Module) -> Iterator[None]:
        """Accumulate gradients without averaging them yet."""
        if isinstance(module, DistributedDataParallel):
            with module.no_sync():
                yield
        elif isinstance(module, FSDPModule):
            module.set_requires_gradient_sync(False)
            yield
            module.set_requires_gradient_sync(True)
        else:
            yield

    def mean(self, values: Tensor) -> Tensor:
        """The mean over all processes, in place."""
        return self.sum(values).div_(self.size)

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def split(self, batch: int, what: str) -> int:
        """Pictures per process. Raises ValueError: the processes do not divide the batch."""
        if batch % self.size:
            raise ValueError(
                f"{what}: a batch of {batch} cannot be split over {self.size} processes evenly; "
                "set another batch or start another number of processes"
            )
        return batch // self.size

    def stopping(self) -> bool:
        """Whether any process received a signal to end; all of them get the same answer at the same step."""
        received = self.stop.received is not None
        return bool(self.sum(torch.tensor(float(received)))) if self.size > 1 else received

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()


@contextmanager
def world(timeout_s: int = 600) -> Iterator[World]:
    """Join the processes that torchrun started, or be the only one; leaves the group at the end. `timeout_s`: a process
    that the others wait for longer than this counts as lost. Raises ValueError: the variables of torchrun are there in
    part, or are no numbers; or a process was lost."""
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
        with lost_process_named(0, 1, timeout_s) as stop:
            yield World(0, 1, device, stop)
        return
    if "RANK" not in os.environ or "MASTER_ADDR" not in os.environ:
        raise ValueError(f"WORLD_SIZE is {size} but RANK or MASTER_ADDR is not set; start with torchrun")
    with lost_process_named(rank, size, timeout_s) as stop:
        dist.init_process_group("cpu:gloo,cuda:nccl" if has_gpu else "gloo", timeout=timedelta(seconds=timeout_s))
        try:
            yield World(rank, size, device, stop)
            dist.barrier()  # on success only: a process that leaves early would abort while others still talk to it
        except BaseException as error:
            # Where a process is gone, leaving waits for it with Python's lock held, and nothing can be said any more.
            if stop.received is None and isinstance(error, Exception) and not isinstance(error, RuntimeError):
                dist.destroy_process_group()
            raise
        dist.destroy_process_group()
