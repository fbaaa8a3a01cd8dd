"""What the training steps share: schedule, exact resume, progress."""

from __future__ import annotations

import math
import os
import pickle
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mga_kernels.errors import InputError
from mga_kernels.files import whole_file

if TYPE_CHECKING:
    from .recipe import Schedule


CPU = torch.device("cpu")


class TrainingError(InputError, RuntimeError):
    """Training cannot go on; the last saved state is intact."""


def learning_rate(
    step: int, iterations: int, warmup: int, peak: float, final: float, start: float, periods: int = 1
) -> float:
    """In each period a linear warm-up from ``start``, then a cosine to ``final`` (section 4.1)."""
    number = min(periods - 1, step * periods // max(1, iterations))
    first, last = (iterations * n // periods for n in (number, number + 1))
    step, length = step - first, last - first
    if step < warmup:
        return start + (peak - start) * step / warmup
    progress = (step - warmup) / max(1, length - warmup)
    return final + (peak - final) * 0.5 * (1 + math.cos(math.pi * progress))


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write whole or not at all."""
    with whole_file(path, TrainingError) as stream:
        torch.save(state, stream)


class Ema:
    """Exponential moving average of a module's parameters, with the usual shorter memory at the start."""

    def __init__(self, module: nn.Module, decay: float):
        self.decay, self.steps = decay, 0
        self.values = {name: p.detach().clone() for name, p in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        self.steps += 1
        keep = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, p in module.named_parameters():
            self.values[name].lerp_(p, 1 - keep)

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        for name, p in module.named_parameters():
            p.copy_(self.values[name])

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "values": self.values}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        for name, value in state["values"].items():
            self.values[name].copy_(value)


def device_of(wanted: str) -> torch.device:
    """The device of this process, for "auto" a GPU where there is one; each of several processes has its own GPU."""
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise InputError(f"train: device {wanted!r} does not exist; choose auto, cpu, cuda or cuda:N") from None
    here = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("WORLD_SIZE", "1")))
    if device.type != "cuda" or here == 1:
        return device
    if device.index is not None:
        raise InputError(
            f'train: device = "{wanted}" is one GPU for {here} processes; set "cuda", then each has its own'
        )
    own, count = int(os.environ.get("LOCAL_RANK", os.environ.get("RANK", "0"))), torch.cuda.device_count()
    if own >= count:
        raise InputError(f"train: there are {here} processes and {count} GPUs; start one process for each GPU")
    torch.cuda.set_device(own)  # for what takes the current one, as collectives do
    return torch.device("cuda", own)


class Workers:
    """The processes of one training: this one's ``rank`` among ``world``, as torchrun and its like tell them.

    Every process draws its part of each batch and takes the same step with the mean of all gradients.
    """

    def __init__(self, device: torch.device = CPU):
        self.rank, self.world = (
            int(os.environ.get(name, default)) for name, default in (("RANK", 0), ("WORLD_SIZE", 1))
        )
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


OPTIMISERS = ("adam", "soap")


def make_optimiser(name: str, module: nn.Module, rate: float) -> torch.optim.Optimizer:
    """Of the parameters that are trained: Adam, or SOAP, which is Adam in the eigenbasis of Shampoo's preconditioner
    (Vyas et al., ICLR 2025; extra ``train``)."""
    trained = [p for p in module.parameters() if p.requires_grad]
    if name == "adam":
        return torch.optim.Adam(trained, lr=rate)
    try:
        from pytorch_optimizer import SOAP
    except ImportError:
        raise InputError(
            'train: optimiser = "soap" needs the package pytorch-optimizer; install it, or choose "adam"'
        ) from None
    return SOAP(trained, lr=rate, weight_decay=0.0)


def pace_of(module: nn.Module, loss: Callable[[int], torch.Tensor], steps: int, optimiser: str = "adam") -> float:
    """Seconds of a training step, the mean of so many, which leave the module as it is."""
    stepping = make_optimiser(optimiser, module, 0.0)
    started = 0.0
    for step in range(-1, steps):  # the first is slower
        if step == 0:
            started = time.perf_counter()
        value = loss(max(0, step))
        value.item()  # as in training, where it waits for the device
        value.backward()
        stepping.step()
        stepping.zero_grad(set_to_none=True)
    return (time.perf_counter() - started) / steps


def _take_up(path: Path, module: nn.Module, optimiser: torch.optim.Optimizer, ema: Ema | None) -> int:
    """Go on from a state; the number of steps that were taken."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)  # it may come from another device
        module.load_state_dict(state["module"])
        optimiser.load_state_dict(state["optimiser"])
        if ema:
            ema.load_state_dict(state["ema"])
        return int(state["step"])
    except (
        OSError,
        RuntimeError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        EOFError,
        pickle.PickleError,
    ) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise TrainingError(
            f"train: {path} is no state that this step can go on from ({reason}); remove it to begin the step again"
        ) from None


def run_steps(
    name: str,
    module: nn.Module,
    schedule: Schedule,
    state_file: Path,
    save_every: int,
    step_loss: Callable[[int], torch.Tensor],
    validate: Callable[[], str],
    ema: Ema | None = None,
    workers: Workers | None = None,
    log: Callable[[int, dict[str, float]], None] | None = None,
) -> None:
    """Train ``module`` as the schedule says; goes on from ``state_file`` when it is there.

    ``step_loss`` returns the loss of a step from the number of its batch, and nothing else draws by chance, so that a
    run that goes on ends with the weights of one that was never stopped. What the state was made by is for the caller
    to compare (``claim_folder``). ``log`` is told each step's loss and learning rate.
    """
    workers = workers or Workers()
    optimiser = make_optimiser(schedule.optimiser, module, schedule.learning_rate)
    done = 0
    if state_file.exists():
        done = _take_up(state_file, module, optimiser, ema)
    started, first, running = time.monotonic(), done, None
    for step in range(done, schedule.iterations):
        rate = learning_rate(
            step,
            schedule.iterations,
            schedule.warmup,
            schedule.learning_rate,
            schedule.final_learning_rate,
            schedule.warmup_start,
            schedule.periods,
        )
        for group in optimiser.param_groups:
            group["lr"] = rate
        loss = step_loss(step)
        value = workers.mean(loss.item())
        if not math.isfinite(value):
            raise TrainingError(
                f"train: the loss of step {name} became {value} at iteration {step}; lower {name}.learning_rate and "
                f"run again, it resumes from {state_file}"
            )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        workers.average_gradients(module.parameters())
        optimiser.step()
        if ema:
            ema.update(module)
        running = value if running is None else 0.99 * running + 0.01 * value
        if log is not None:
            log(step + 1, {"loss": value, "learning rate": rate})
        if workers.first and ((step + 1) % save_every == 0 or step + 1 == schedule.iterations):
            save_state(
                state_file,
                {
                    "step": step + 1,
                    "module": module.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "ema": ema.state_dict() if ema else None,
                },
            )
            pace = (time.monotonic() - started) / (step + 1 - first)
            left = pace * (schedule.iterations - step - 1) / 60
            print(
                f"{name} {step + 1}/{schedule.iterations}  loss {running:.5f}  {validate()}  "
                f"{pace:.3f} s/iteration, {left:.0f} min left",
                flush=True,
            )
    workers.wait()
