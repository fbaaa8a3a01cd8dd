"""What the training steps share: schedule, exact resume, progress."""

from __future__ import annotations

import math
import pickle
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from mga_kernels.errors import InputError
from mga_kernels.system.files import whole_file

from ..files.records import Record
from .schedule import Schedule
from .workers import Workers


class TrainingError(InputError, RuntimeError):
    """Training cannot go on; the last saved state is intact."""


def save_state(path: Path, state: Record) -> None:
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

    @contextmanager
    def applied_to(self, module: nn.Module) -> Iterator[None]:
        """Within it ``module`` has its averaged parameters."""
        kept = {name: p.detach().clone() for name, p in module.named_parameters()}
        self.copy_to(module)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, p in module.named_parameters():
                    p.copy_(kept[name])

    def state_dict(self) -> Record:
        return {"steps": self.steps, "values": self.values}

    def load_state_dict(self, state: Record) -> None:
        self.steps = state["steps"]
        for name, value in state["values"].items():
            self.values[name].copy_(value)


OPTIMISERS = ("adam", "soap")


def make_optimiser(name: str, module: nn.Module, rate: float, memory: float = 0.999) -> torch.optim.Optimizer:
    """Of the parameters that are trained: Adam, or SOAP, which is Adam in the eigenbasis of Shampoo's preconditioner
    (Vyas et al., ICLR 2025; extra ``train``). ``memory``: of the squares of gradients, Adam's second beta."""
    trained = [p for p in module.parameters() if p.requires_grad]
    if name == "adam":
        return torch.optim.Adam(trained, lr=rate, betas=(0.9, memory))
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
    optimiser = make_optimiser(schedule.optimiser, module, schedule.learning_rate, schedule.memory)
    done = 0
    if state_file.exists():
        done = _take_up(state_file, module, optimiser, ema)
    started, first, running = time.monotonic(), done, None
    for step in range(done, schedule.iterations):
        rate = schedule.rate(step)
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
