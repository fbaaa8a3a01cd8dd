"""What a plan in convolutions of our own for GPUs takes beside what it keeps, counted before it is taken."""

import pytest
from network_zoo import random_model
from test_cuda_graph import one_thread, picture  # noqa: F401
from test_cuda_own import planner_of
from torch.profiler import ProfilerActivity, profile

pytestmark = pytest.mark.usefixtures("free_choice", "one_thread")


def most_bytes(work) -> int:
    """That are taken at the same time, beyond those that were when it began."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    now = most = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most


@pytest.mark.parametrize("p", [4, 8])
def test_copies_of_rfdns_patches_are_counted(p, monkeypatch):
    """By matrices, and by small convolutions, where patches are larger."""
    planner = planner_of(random_model("rfdn", 2, patch_size=p))
    plan = planner.plan(64, 64, 40).inner
    weights, area, work = planner.weights, plan._area(40), plan.refine_buffers["work 0"]
    gate = weights.refine_trunk.gates[0]
    gate.on_patches(area, work)  # what is made once is made here
    taken = most_bytes(lambda: gate.on_patches(area, work))
    counted = weights.room_bytes(plan)
    monkeypatch.setattr(type(gate), "passing_bytes", lambda *_: 0)
    copies = counted - weights.room_bytes(plan)
    assert 0.5 * copies < taken <= copies
