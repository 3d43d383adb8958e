"""The knobs by which a job that runs a model gets its workers, GPUs and device."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from schemas.strict import StrictModel


class OnDevice(StrictModel):
    """Base of a recipe section whose job may run a model. None of its knobs changes what the job computes."""

    workers: Annotated[int, Field(ge=1)] | None = None
    """Workers at once. Null: one per GPU for a job that runs a model where there are GPUs, one for the captioner
    `endpoint`, else as `run.workers`."""
    gpus_per_worker: Annotated[float, Field(ge=0, le=64)] | None = None
    """GPUs that each worker holds, under 1 to share one. Null: one for a job that runs a model where the cluster has
    GPUs, else none."""

    @field_validator("gpus_per_worker")
    @classmethod
    def _whole_above_1(cls, value: float | None) -> float | None:
        if value is not None and value > 1 and value != int(value):
            raise ValueError("above 1 it is a whole number")
        return value

    def model_device(self) -> str:
        """The knob `device` of the model that the job runs; `cpu` where no model runs on this machine."""
        raise NotImplementedError

    def num_gpus(self) -> float | None:
        """GPUs of each worker; None leaves the number to what the cluster has."""
        if self.gpus_per_worker is not None:
            return self.gpus_per_worker
        device = self.model_device()
        return None if device == "auto" or device.startswith("cuda") else 0

    def chosen_device(self) -> str:
        """The model's device, where `auto` follows `gpus_per_worker`: GPUs, no GPU, or not set."""
        device = self.model_device()
        if device != "auto" or self.gpus_per_worker is None:
            return device
        return "cuda" if self.gpus_per_worker else "cpu"
