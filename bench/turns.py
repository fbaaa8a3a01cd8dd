"""Contenders that take turns, each in a process of its own.

In one process they would meet: the engine changes how the allocator keeps memory, runtimes start threads that wait
busily, and what each holds between its runs adds up. A process also shows its peak memory. Where not all fit into
memory together, some wait for another heat; ours takes part in every heat, so that ratios are always of one heat.
"""

from __future__ import annotations

import gc
import json
import os
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mga_kernels.system.allocator import give_back
from mga_kernels.system.memory import available_memory

MIB = 1 << 20
RESERVE = 1024  # MiB that stay free: below this the system is about to end a process of its own choice
ROUNDS = 9
CALM = 0.02  # seconds before a turn: OpenMP's threads wait busily for 7 ms when the player before has its picture

Facts = dict[str, Any]
Run = Callable[[np.ndarray], np.ndarray]


class CannotTakePart(Exception):
    """With the reason why."""


class WantsMemory(CannotTakePart):
    """It may in another heat."""


def resident(field_name: str) -> int:
    """MiB, as Linux counts them: VmRSS now, VmHWM at the peak."""
    text = Path("/proc/self/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith(field_name)).split()[1]) // 1024


def forget_peak() -> None:
    """VmHWM starts again from VmRSS, of which what was freed is no part: who uses it again would seem to take none."""
    gc.collect()
    give_back()
    Path("/proc/self/clear_refs").write_text("5")


def play(
    make: Callable[[], Run | str], image: np.ndarray, picture: Path, answers: dict[str, Callable[[Run], Facts]]
) -> None:
    """The other end of a ``Player``: run once, write the picture, then answer each line that comes in."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever runtimes print

    def say(facts: Facts) -> None:
        print(json.dumps(facts), file=out, flush=True)

    def memory() -> Facts:
        return {"peak": resident("VmHWM") - before, "resident": resident("VmRSS") - before}

    def turn(run: Run) -> Facts:
        started = time.perf_counter()
        run(image)
        return {"seconds": time.perf_counter() - started} | memory()

    forget_peak()
    before = resident("VmRSS")
    run = make()
    if isinstance(run, str):
        return say({"missing": run})
    try:
        result = run(image)
    except RuntimeError as error:
        return say({"missing": f"{type(error).__name__}: {str(error).strip().splitlines()[0][:120]}"})
    facts = memory()
    np.save(picture, result)
    del result
    say(facts)
    for line in sys.stdin:
        say(({"turn": turn} | answers)[line.strip()](run))


@dataclass
class Player:
    """A contender's process. ``times``: seconds of its turns; ``heat``: the number of its heat, from 1."""

    name: str
    command: list[str]
    times: list[float] = field(default_factory=list)
    peak: int = 0
    resident: int = 0
    heat: int = 0
    times_ours: float = 1.0

    def begin(self, available: Callable[[], int] = available_memory) -> None:
        """Until its first picture is there. Raises CannotTakePart, WantsMemory where memory runs out meanwhile."""
        self._errors = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )
        self._take(self._answer(lambda: available() // MIB >= RESERVE))

    def turn(self) -> None:
        time.sleep(CALM)
        facts = self.ask("turn")
        self._take(facts)
        self.times.append(facts["seconds"])

    def ask(self, what: str) -> Facts:
        self._process.stdin.write(what + "\n")  # type: ignore[union-attr]
        self._process.stdin.flush()  # type: ignore[union-attr]
        return self._answer(lambda: True)

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _take(self, facts: Facts) -> None:
        self.peak, self.resident = facts["peak"], facts["resident"]

    def _answer(self, enough_memory: Callable[[], bool]) -> Facts:
        while not select.select([self._process.stdout], [], [], 0.1)[0]:
            if not enough_memory():
                self.end()
                raise WantsMemory("needs more memory than is available beside ours")
        line = self._process.stdout.readline()  # type: ignore[union-attr]
        if not line:
            status = self._process.wait()
            self._errors.seek(0)
            said = self._errors.read().strip().splitlines()
            raise CannotTakePart(f"ended with status {status}: {said[-1][:120] if said else 'no message'}")
        facts = json.loads(line)
        if "missing" in facts:
            raise CannotTakePart(facts["missing"])
        return facts


def take_turns(players: list[Player], budget: float, rounds: int = ROUNDS) -> dict[str, str]:
    """Round by round; a player leaves when one more turn would exceed its seconds. Returns who broke down, and why."""
    playing, broken = list(players), {}
    for _ in range(rounds):
        for player in playing:
            try:
                player.turn()
            except CannotTakePart as reason:
                broken[player.name] = str(reason)
        playing = [p for p in playing if p.name not in broken and sum(p.times) + p.times[-1] <= budget]
    return broken


def gather(
    names: list[str], beside: list[Player], start: Callable[[str], Player], available: Callable[[], int]
) -> tuple[list[Player], list[str], dict[str, str]]:
    """Those who can run ``beside`` others now, those who want more memory for it, and those who cannot, with why."""
    ready: list[Player] = []
    waiting: list[str] = []
    missing: dict[str, str] = {}
    for name in names:
        player = start(name)
        try:
            player.begin(available)
            if available() // MIB < RESERVE + max(p.peak - p.resident for p in [*beside, *ready, player]):
                player.end()
                raise WantsMemory("leaves too little memory for others to run")
            ready.append(player)
        except CannotTakePart as reason:
            if isinstance(reason, WantsMemory) and ready:
                waiting.append(name)
            else:
                missing[name] = str(reason)
        state = missing.get(name) or ("waits for another heat" if name in waiting else "ready")
        print(f"  {name}: {state}", file=sys.stderr, flush=True)
    return ready, waiting, missing


def contest(
    ours: str,
    others: list[str],
    start: Callable[[str], Player],
    check: Callable[[list[str]], None],
    last: Callable[[Player], None],
    budget: float,
    available: Callable[[], int] = available_memory,
) -> tuple[dict[str, Player], dict[str, str]]:
    """Heats until all have run: players by name, and why others did not.

    ``check`` sees the names of each heat before they are timed; ``last`` is given ours when the first heat is over.
    """
    done: dict[str, Player] = {}
    missing: dict[str, str] = {}
    heat = 0
    while others or not heat:
        heat += 1
        host = start(ours)
        host.begin(available)
        rivals, others, absent = gather(others, [host], start, available)
        try:
            check([player.name for player in [host, *rivals]])
            broken = take_turns([host, *rivals], budget)
            if ours in broken:
                raise CannotTakePart(f"{ours}: {broken[ours]}")
        finally:
            for player in rivals:
                player.end()
        if heat == 1:
            last(host)
        host.end()
        missing |= absent | broken
        for player in (p for p in [host, *rivals] if p.name not in broken):
            player.heat = heat
            player.times_ours = statistics.median(player.times) / statistics.median(host.times)
            done.setdefault(player.name, player)
        if host is not done[ours]:
            done[ours].times += host.times
    return done, missing
