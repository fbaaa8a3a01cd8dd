"""Players that take turns in memory that is there: who waits, who breaks down, and what a peak and a turn are."""

import math
import subprocess
import sys
from pathlib import Path

import pytest

from mga_kernels.system import allocator

BENCH = Path(__file__).resolve().parent.parent / "bench"


@pytest.fixture
def turns(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    import turns

    return turns


class Actor:
    """A player without a process: its memory in MiB, its seconds, and what it does at the start or at a turn."""

    def __init__(self, name, machine, needs=0, seconds=1.0, breaks=None):
        self.name, self.machine, self.needs, self.seconds, self.breaks = name, machine, needs, seconds, breaks
        self.times, self.peak, self.resident, self.heat, self.times_ours = [], needs, needs, 0, 1.0

    def begin(self, available):
        from turns import CannotTakePart

        if self.breaks == "start":
            raise CannotTakePart("no such package")
        self.machine["free"] -= self.needs << 20

    def turn(self):
        from turns import CannotTakePart

        if self.breaks == "turn":
            raise CannotTakePart("killed")
        self.machine["order"].append(self.name)
        self.times.append(self.seconds)

    def end(self):
        self.machine["free"] += self.needs << 20


def contest(turns, casts, budget=2.5):
    machine = {"free": 8000 << 20, "order": []}
    checked, ended = [], []
    result = turns.contest(
        "ours",
        [name for name in casts if name != "ours"],
        lambda name: Actor(name, machine, **casts[name]),
        checked.append,
        lambda player: ended.append(player.name),
        budget,
        lambda: machine["free"],
    )
    assert machine["free"] == 8000 << 20, "a player was not ended"
    assert ended == ["ours"]
    return *result, machine["order"], checked


def test_players_take_turns_within_their_budget(turns):
    done, missing, order, checked = contest(turns, {"ours": {}, "slow": {"seconds": 9.0}, "quick": {"seconds": 0.5}})
    assert order == ["ours", "slow", "quick", "ours", "quick", "quick", "quick", "quick"]
    assert missing == {}
    assert {name: player.times_ours for name, player in done.items()} == {"ours": 1.0, "slow": 9.0, "quick": 0.5}
    assert checked == [["ours", "slow", "quick"]]


def test_who_does_not_fit_beside_others_waits_for_another_heat(turns):
    large = {"needs": 4000}
    done, missing, _, checked = contest(
        turns, {"ours": {"needs": 1000}, "one": large, "two": large, "huge": {"needs": 7000}, "small": {}}
    )
    assert checked == [["ours", "one", "small"], ["ours", "two"], ["ours"]]
    assert [done[name].heat for name in ("ours", "one", "small", "two")] == [1, 1, 1, 2]
    assert set(missing) == {"huge"}
    assert len(done["ours"].times) == 6


def test_who_breaks_down_is_listed_with_the_reason(turns):
    done, missing, order, _ = contest(turns, {"ours": {}, "absent": {"breaks": "start"}, "killed": {"breaks": "turn"}})
    assert missing == {"absent": "no such package", "killed": "killed"}
    assert set(done) == {"ours"}
    assert set(order) == {"ours"}


def test_a_process_that_runs_out_of_memory_or_dies_is_told_apart(turns):
    sleeper = turns.Player("x", [sys.executable, "-c", "import time; time.sleep(60)"])
    with pytest.raises(turns.WantsMemory):
        sleeper.begin(lambda: 0)
    assert sleeper._process.poll() is not None, "still runs"
    dead = turns.Player("x", [sys.executable, "-c", "raise SystemExit('what went wrong')"])
    with pytest.raises(turns.CannotTakePart, match="ended with status 1: what went wrong"):
        dead.begin(lambda: 1 << 40)


TELLING_WHEN = """
import json, sys, time
def tell(): print(json.dumps({"peak": 0, "resident": 0, "seconds": time.monotonic()}), flush=True)
tell()
for line in sys.stdin: tell()
"""


def test_a_turn_begins_when_the_threads_of_the_last_one_are_at_rest(turns):
    players = [turns.Player(name, [sys.executable, "-c", TELLING_WHEN]) for name in ("one", "other")]
    for player in players:
        player.begin(lambda: 1 << 40)
    turns.take_turns(players, math.inf, rounds=2)
    for player in players:
        player.end()
    (first, third), (second, fourth) = (player.times for player in players)
    assert min(second - first, third - second, fourth - third) >= turns.CALM


FREED = """
from turns import forget_peak, resident
blocks = [bytes(100_000) for _ in range(2000)]
del blocks[:-1]  # the last one keeps them in the heap
forget_peak()
before = resident("VmRSS")
blocks += [bytes(100_000) for _ in range(1000)]
print(resident("VmHWM") - before)
"""


@pytest.mark.skipif(allocator._glibc() is None, reason="the C library is not glibc")
def test_a_peak_is_of_what_is_used_again_too():
    result = subprocess.run([sys.executable, "-c", FREED], cwd=BENCH, capture_output=True, text=True, check=True)
    assert 90 <= int(result.stdout) <= 110
