"""Failures of the machine in one line: the failure, what is safe, and how to continue."""

from __future__ import annotations

import faulthandler
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
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
REPEATED_S = 1
"""Signals that follow each other faster are one."""
_NOWHERE = os.open(os.devnull, os.O_WRONLY)
SIGNS_OF_A_FULL_MEMORY = ("can't allocate memory", "out of memory")
"""Parts of the errors of the CPU's allocator and of CUDA libraries, in lower case."""


class StopSignal:
    """SIGTERM and Ctrl-C inside the training loop, which ends once its step is stored. torchrun sends SIGTERM to the
    processes that are left when one is lost, and a batch system before it takes a machine away. `patience_s`: from a
    signal to an exit without a checkpoint. `received`: the signal that the loop is to end for."""

    def __init__(self, rank: int = 0, size: int = 1, patience_s: float = GRACE_S) -> None:
        self.process = f"process {rank} of {size}"
        self.received: signal.Signals | None = None
        self._is_one, self._patience_s, self._since = size == 1, patience_s, 0.0
        self._last_resort: threading.Timer | None = None

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Inside, the first signal is kept in `received`, and a second Ctrl-C ends the process at once. Outside, each
        does what it did before: nothing is to be stored there."""
        in_main = threading.current_thread() is threading.main_thread()  # only there can a signal be handled
        heard = [  # a shell has the SIGINT of what runs in the background ignored
            number
            for number in (signal.SIGTERM, signal.SIGINT)
            if in_main and signal.getsignal(number) != signal.SIG_IGN
        ]
        before = {number: signal.signal(number, self) for number in heard}
        try:
            with nullcontext() if self._is_one or not in_main else _stuck_named(self):
                yield
        finally:
            for number, handler in before.items():
                if signal.getsignal(number) is self:
                    signal.signal(number, handler)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.received, self._since = signal.Signals(number), time.monotonic()
            late = f"{self.process}: received {self.received.name}, no checkpoint within {self._patience_s} s"
            self._last_resort = exit_after(self._patience_s, late, 128 + number)
        elif number == signal.SIGINT and time.monotonic() - self._since > REPEATED_S:  # torchrun passes a terminal's on
            raise KeyboardInterrupt

    def give_up(self) -> None:
        """Forget the signal's last resort: the loop has ended."""
        if self._last_resort is not None:
            self._last_resort.cancel()

    def passed_on(self, line: str) -> BaseException:
        """The error that ends the loop for a signal, with a line: that of whoever handles it outside of the loop, and
        `ending` where nobody does."""
        if self.received is not None and callable(handler := signal.getsignal(self.received)):
            try:
                handler(self.received, None)
            except KeyboardInterrupt:
                return KeyboardInterrupt(line)
        return self.ending(line)

    def ending(self, line: str) -> ValueError:
        """The error to raise. From here on SIGTERM is ignored, and the process exits after `GRACE_S` at the latest, a
        second later also where C++ waits with Python's lock held, as gloo does when Python ends."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        exit_after(GRACE_S, line)
        faulthandler.dump_traceback_later(GRACE_S + 1, exit=True, file=_NOWHERE)
        return ValueError(line)


def exit_after(seconds: float, line: str, status: int = 1) -> threading.Timer:
    """End this process without clean-up where it is still there after so many seconds."""
    last_resort = threading.Timer(seconds, _exit_with, [line, status])
    last_resort.daemon = True
    last_resort.start()
    return last_resort


@contextmanager
def lost_process_named(rank: int, size: int, patience_s: float = GRACE_S) -> Iterator[StopSignal]:
    """Turn the errors of gloo and NCCL about a lost peer into one line. Raises ValueError: a process of this run was
    lost."""
    stop = StopSignal(rank, size, patience_s)
    try:
        yield stop
    except RuntimeError as error:
        if size == 1 or not any(sign in str(error) for sign in SIGNS_OF_A_LOST_PROCESS):
            raise
        reason = str(error).splitlines()[0][:160]
        raise stop.ending(
            f"{stop.process}: another process of this run was lost or does not answer ({reason}); its own error is "
            f"above; {RUN_AGAIN}"
        ) from None
    finally:
        stop.give_up()


@contextmanager
def _stuck_named(stop: StopSignal) -> Iterator[None]:
    """End this process `GRACE_S` after a SIGTERM that `stop` never heard: the main thread waits inside gloo or NCCL for
    a process that is gone, and Python calls a handler only once it is back."""
    heard, tell = os.pipe()
    os.set_blocking(tell, False)

    def watch() -> None:
        while numbers := os.read(heard, 64):
            if signal.SIGTERM in numbers:
                time.sleep(GRACE_S)
                if stop.received is None:
                    line = f"{stop.process}: received SIGTERM while it waited for another process; {RUN_AGAIN}"
                    _exit_with(line, 128 + signal.SIGTERM)
        os.close(heard)

    before = signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    threading.Thread(target=watch, name="stuck", daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(tell)


def _exit_with(line: str, status: int) -> None:
    os.write(2, f"{line}\n".encode())
    os._exit(status)


@contextmanager
def torch_errors_named(stage: str, data: Data, processes: int) -> Iterator[None]:
    """Turn a failed allocation, and a block that cannot be compiled, into a line that names the knobs. Raises
    ValueError: a memory is full, or there is no compiler."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
        reason = (str(error).strip() or "out of memory").splitlines()[0]
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise ValueError(
                f"stage {stage}: compile=true, but torch cannot compile the model here ({reason[:200]}); install a C++ "
                "compiler (g++, on a GPU Triton too), or set compile=false, which is slower"
            ) from error
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
