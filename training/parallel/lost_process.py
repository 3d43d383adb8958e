"""Failures of the machine in one line: the failure, what is safe, and how to continue."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from schemas.training import Data

RUN_AGAIN = "checkpoints on disk are intact; run the same command to continue from the last one"

SIGNS_OF_A_LOST_PROCESS = (
    "Connection closed",
    "Connection reset",
    "Connection refused",
    "Broken pipe",
    "Timed out",
    "NCCL",
    "closed by peer",
)
"""Parts of the errors that gloo and NCCL raise when a peer is gone."""
GRACE_S = 15
"""From a signal or a lost process to an exit without clean-up; torchrun kills after 30."""
SIGNS_OF_A_FULL_MEMORY = ("can't allocate memory", "out of memory")
"""Parts of the errors of the CPU's allocator and of CUDA libraries, in lower case."""


@contextmanager
def lost_process_named(rank: int, size: int) -> Iterator[None]:
    """Turn the errors of gloo and NCCL about a lost peer, and a SIGTERM, into one line.

    torchrun sends SIGTERM to the processes that are left when one is lost, and a batch system before it takes a
    machine away.

    The process then has `GRACE_S` to end by itself.

    Raises:
        ValueError: a process of this run was lost, or this one received SIGTERM.
    """

    in_main = threading.current_thread() is threading.main_thread()  # only there can a signal be handled

    def ending(line: str) -> ValueError:
        """The error to raise. From here on SIGTERM is ignored, and the process exits after `GRACE_S` at the latest."""
        if in_main:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        last_resort = threading.Timer(GRACE_S, _exit_with, [line])
        last_resort.daemon = True
        last_resort.start()
        return ValueError(line)

    def stop(number: int, frame: FrameType | None) -> None:
        raise ending(
            f"process {rank} of {size}: received {signal.Signals(number).name}, from torchrun because another process "
            f"was lost or failed, or from the batch system; {RUN_AGAIN}"
        )

    before = signal.signal(signal.SIGTERM, stop) if in_main else None
    try:
        yield
    except RuntimeError as error:
        if size == 1 or not any(sign in str(error) for sign in SIGNS_OF_A_LOST_PROCESS):
            raise
        reason = str(error).splitlines()[0][:160]
        raise ending(
            f"process {rank} of {size}: another process of this run was lost or does not answer ({reason}); its "
            f"own error is above; {RUN_AGAIN}"
        ) from None
    finally:
        if in_main and signal.getsignal(signal.SIGTERM) is stop:
            signal.signal(signal.SIGTERM, before)


def _exit_with(line: str) -> None:
    os.write(2, f"{line}\n".encode())
    os._exit(1)


@contextmanager
def full_memory_named(stage: str, data: Data, processes: int) -> Iterator[None]:
    """Turn a failed allocation into one line that names the knobs.

    Raises:
        ValueError: the memory of the device, or of the machine, is full.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
        reason = (str(error).strip() or "out of memory").splitlines()[0]
        if not isinstance(error, MemoryError) and not any(sign in reason.lower() for sign in SIGNS_OF_A_FULL_MEMORY):
            raise
        share = data.batch // processes
        at_once = min(data.micro_batch or share, share) * data.timesteps_per_image
        mend = (
            f"lower data.micro_batch (now {data.micro_batch or 'null'}), set activation_checkpointing=full, or "
            "parallel=fsdp over several processes"
        )
        raise ValueError(
            f"stage {stage}: the memory is full with {at_once} noised pictures at once ({reason[-200:]}); {mend}; "
            f"{RUN_AGAIN}"
        ) from None
