"""The processes that share one training, and the device of each."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from mga_kernels.errors import InputError

from ..settings.processes import share_of_all, share_of_machine

CPU = torch.device("cpu")


def device_of(wanted: str) -> torch.device:
    """The device of this process, for "auto" a GPU where there is one; each of several processes has its own GPU."""
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise InputError(f"train: device {wanted!r} does not exist; choose auto, cpu, cuda or cuda:N") from None
    here = share_of_machine()
    if device.type != "cuda" or here.world == 1:
        return device
    if device.index is not None:
        raise InputError(
            f'train: device = "{wanted}" is one GPU for {here.world} processes; set "cuda", then each has its own'
        )
    own, count = here.rank, torch.cuda.device_count()
    if own >= count:
        raise InputError(f"there are {here.world} processes and {count} GPUs; start one process for each GPU")
    torch.cuda.set_device(own)  # for what takes the current one, as collectives do
    return torch.device("cuda", own)


class Workers:
    """The processes of one training: this one's ``rank`` among ``world``, as torchrun and its like tell them.

    Every process draws its part of each batch and takes the same step with the mean of all gradients.
    """

    def __init__(self, device: torch.device = CPU):
        found = share_of_all()
        self.rank, self.world = found.rank, found.world
        if self.world > 1 and not torch.distributed.is_initialized():
            torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")

    @property
    def first(self) -> bool:
        return self.rank == 0

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        if self.world == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        torch.distributed.all_reduce(flat)
        flat.div_(self.world)
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def mean(self, value: float) -> float:
        if self.world == 1:
            return value
        total = torch.tensor(value)
        if torch.distributed.get_backend() == "nccl":
            total = total.cuda()
        torch.distributed.all_reduce(total)
        return float(total) / self.world

    def wait(self) -> None:
        if self.world > 1:
            torch.distributed.barrier()


def leave() -> None:
    """Part from the other processes of a training: what joins them has threads, which may outlive Python's end."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
