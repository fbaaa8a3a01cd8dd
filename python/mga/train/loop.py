"""What the training steps share: schedule, exact resume, progress."""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mga_kernels.errors import MGAError


class TrainingError(MGAError, RuntimeError):
    """Training cannot go on; the last saved state is intact."""


def learning_rate(step: int, iterations: int, warmup: int, peak: float, final: float) -> float:
    """Linear warm-up from a tenth of the peak, then one cosine to ``final`` (section 4.1, one period)."""
    if step < warmup:
        return peak * (0.1 + 0.9 * step / warmup)
    progress = (step - warmup) / max(1, iterations - warmup)
    return final + (peak - final) * 0.5 * (1 + math.cos(math.pi * progress))


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write whole or not at all."""
    partial = path.with_name(path.name + ".part")
    torch.save(state, partial)
    os.replace(partial, path)


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

    def averaged(self, module: nn.Module) -> nn.Module:
        """A copy of ``module`` with the averaged parameters, in evaluation mode."""
        result = copy.deepcopy(module).eval()
        self.copy_to(result)
        return result

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "values": self.values}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps, self.values = state["steps"], state["values"]


def run_steps(
    name: str,
    module: nn.Module,
    settings,
    state_file: Path,
    save_every: int,
    sampler_rng,
    step_loss: Callable[[], torch.Tensor],
    validate: Callable[[], str],
    ema: Ema | None = None,
) -> None:
    """Train ``module`` for ``settings.iterations`` steps of Adam; resumes from ``state_file`` when it is there.

    ``step_loss`` draws a batch and returns its loss. ``sampler_rng`` is the numpy generator that draws the batches: its
    state is saved too, so a resumed run sees the same batches and ends with the same weights as one that was never
    stopped.
    """
    optimiser = torch.optim.Adam((p for p in module.parameters() if p.requires_grad), lr=settings.learning_rate)
    done = 0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        module.load_state_dict(state["module"])
        optimiser.load_state_dict(state["optimiser"])
        sampler_rng.bit_generator.state = state["rng"]
        done = state["step"]
        if ema:
            ema.load_state_dict(state["ema"])
    started, first, running = time.monotonic(), done, None
    for step in range(done, settings.iterations):
        rate = learning_rate(
            step, settings.iterations, settings.warmup, settings.learning_rate, settings.final_learning_rate
        )
        for group in optimiser.param_groups:
            group["lr"] = rate
        loss = step_loss()
        value = loss.item()
        if not math.isfinite(value):
            raise TrainingError(
                f"train: the loss of step {name} became {value} at iteration {step}; lower {name}.learning_rate and "
                f"run again, it resumes from {state_file}"
            )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if ema:
            ema.update(module)
        running = value if running is None else 0.99 * running + 0.01 * value
        if (step + 1) % save_every == 0 or step + 1 == settings.iterations:
            save_state(
                state_file,
                {
                    "step": step + 1,
                    "module": module.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "rng": sampler_rng.bit_generator.state,
                    "ema": ema.state_dict() if ema else None,
                },
            )
            pace = (time.monotonic() - started) / (step + 1 - first)
            left = pace * (settings.iterations - step - 1) / 60
            print(
                f"{name} {step + 1}/{settings.iterations}  loss {running:.5f}  {validate()}  "
                f"{pace:.3f} s/iteration, {left:.0f} min left",
                flush=True,
            )
