"""Images that are begun before the one before them has come back: in which order, and that each is its own.

On the CPU, by the plan for GPUs with events that have not passed until they are waited for.
"""

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import numpy as np
import pytest
from network_zoo import random_model
from test_cuda_graph import CPU, one_thread, picture  # noqa: F401
from test_cuda_whole import whole_network

from mga.upscaling import work
from mga_kernels import MaskGuidedSR, runtimes
from mga_kernels.engine import begun
from mga_kernels.engine.overlap import overlap
from mga_kernels.errors import OutOfMemoryError
from mga_kernels.notices import warn
from mga_kernels.runtimes.cuda.graph import CudaGraphPlanner
from mga_kernels.runtimes.cuda.transfers import InFlight, Lane, Mark, Slot

pytestmark = pytest.mark.usefixtures("free_choice", "one_thread")


class Event:
    """Of a GPU that is slow: nothing is done before it is waited for."""

    log: ClassVar[list] = []

    def __init__(self, name=None):
        self.name, self.passed = name, False

    def query(self):
        return self.passed

    def synchronize(self):
        if not self.passed and self.name is not None:
            self.log.append(("wait", self.name))
        self.passed = True


@pytest.fixture
def slow_gpu(monkeypatch):
    """The log of when the bytes of each image went in and when its picture was waited for; images are numbered."""
    monkeypatch.setattr(Event, "log", [])
    upload, download = Slot.upload, Slot.download

    def up(slot, lane, image):
        slot.number = sum(kind == "in" for kind, _ in Event.log)
        Event.log.append(("in", slot.number))
        return upload(slot, lane, image)

    def down(slot, lane, computed):
        monkeypatch.setattr(Lane, "mark", lambda self: Mark(Event(slot.number)))
        flight = download(slot, lane, computed)
        monkeypatch.setattr(Lane, "mark", lambda self: Mark(Event()))
        return flight

    monkeypatch.setattr(Slot, "upload", up)
    monkeypatch.setattr(Slot, "download", down)
    return Event.log


@pytest.fixture
def on_gpu(monkeypatch):
    """``on_gpu(network, ..)``: an engine as one with a GPU is made, on the CPU."""

    def prepare(network, device, dtype, runtime):
        return CudaGraphPlanner(network, CPU, dtype), {}

    def make(network, **settings):
        with monkeypatch.context() as patch:
            patch.setattr(runtimes, "prepare", prepare)
            return MaskGuidedSR(network, device="cpu", **settings)

    make.prepare = prepare
    return make


def images(*sizes):
    return [picture(*size, seed).numpy() for seed, size in enumerate(sizes)]


@pytest.mark.parametrize("masked", [True, False])
def test_the_bytes_of_the_next_image_go_in_before_the_picture_of_the_last_is_waited_for(masked, slow_gpu, on_gpu):
    network = random_model("fsrcnn", 2) if masked else whole_network("fsrcnn")
    model = on_gpu(network, dtype="float32", **({"k": 4} if masked else {}))
    sources = images(*[(20, 28)] * 5)
    wanted = [model.upscale(source) for source in sources]
    slow_gpu.clear()
    results = list(model.upscale_all(sources, ahead=5))  # so that no place is waited for
    assert slow_gpu == [
        *[("in", 0), ("in", 1), ("wait", 0), ("in", 2), ("wait", 1)],
        *[("in", 3), ("wait", 2), ("in", 4), ("wait", 3), ("wait", 4)],
    ]
    for result, right in zip(results, wanted, strict=True):
        assert np.array_equal(result.image, right)
        assert result.refined == (4 if masked else None)


def test_the_command_has_two_in_flight_too(slow_gpu, on_gpu, tmp_path, monkeypatch, capsys):
    from mga.console.failures import Failures
    from mga_kernels import images as photographs

    def said(self, *size):
        warn("made for this size")
        return plan(self, *size)

    plan = CudaGraphPlanner.plan
    monkeypatch.setattr(CudaGraphPlanner, "plan", said)
    model, sources = on_gpu(random_model("fsrcnn", 2), dtype="float32", k=4), images(*[(20, 28)] * 3)
    for i, source in enumerate(sources):
        photographs.save_image(photographs.read_image(source), tmp_path / f"{i}.png")
    slow_gpu.clear()
    jobs = [work.Job(tmp_path / f"{i}.png", tmp_path / f"{i}-x2.png", None) for i in range(3)]
    work.upscale_all(lambda: model, jobs, work.Request([], str(tmp_path)), Failures(), done := [])
    assert done == [job.target for job in jobs]
    lines = capsys.readouterr().out.splitlines()
    assert [line.strip() for line in lines if "this size" in line] == ["0.png: made for this size"]
    assert slow_gpu[:3] == [("in", 0), ("in", 1), ("wait", 0)]
    for i, source in enumerate(sources):
        assert np.array_equal(photographs.read_image(tmp_path / f"{i}-x2.png").rgb, model.upscale(source))


def test_of_other_sizes_and_kinds_each_is_what_upscale_makes(slow_gpu, on_gpu):
    model = on_gpu(random_model("fsrcnn", 2), dtype="float32", k=4)
    sources = images((20, 28), (16, 24), (20, 28), (2, 9), (31, 10), (20, 28))
    sources[2] = np.dstack([sources[2], sources[2][..., :1]])  # alpha
    for result, source in zip(model.upscale_all(sources, ahead=3), sources, strict=True):
        assert np.array_equal(result.image, model.upscale(source))  # while the next is in flight
        assert result.refined == model.upscale(source, return_result=True).refined


def test_other_threads_and_steps_in_between_change_nothing(slow_gpu, on_gpu):
    model = on_gpu(random_model("fsrcnn", 2), dtype="float32", k=4)
    sources = images(*[(20, 28)] * 6)
    wanted = [model.upscale(source) for source in sources]
    found = []
    with ThreadPoolExecutor(1) as other:
        for result in model.upscale_all(sources):
            explained = model.explain(sources[0])
            assert np.array_equal(explained.image, wanted[0])
            assert np.array_equal(other.submit(model.upscale, sources[1]).result(20), wanted[1])
            found.append(result.image)
    assert all(np.array_equal(one, right) for one, right in zip(found, wanted, strict=True))


def test_steps_are_queued_behind_what_has_begun(on_gpu, monkeypatch):
    """They write the same buffers, in the caller's stream."""
    log = []
    plan = CudaGraphPlanner(random_model("fsrcnn", 2), CPU).plan(16, 24, 5)
    monkeypatch.setattr(Lane, "before_callers", lambda self: log.append(self))
    plan.start()
    assert log == [plan._compute]


def test_what_is_not_finite_is_made_again_in_a_wider_type(slow_gpu, on_gpu, monkeypatch):
    network = whole_network("fsrcnn")
    for parameter in network.body.first_part.parameters():
        parameter.mul_(1e6)
    monkeypatch.setattr(runtimes, "prepare", on_gpu.prepare)
    model, sources = MaskGuidedSR(network, device="cpu"), images(*[(12, 16)] * 3)
    with pytest.warns(UserWarning, match="not finite in float16"):
        found = [result.image for result in model.upscale_all(sources)]
    wanted = [MaskGuidedSR(network, device="cpu", dtype="float32").upscale(source) for source in sources]
    for one, right in zip(found, wanted, strict=True):
        assert float(np.abs(one.astype(int) - right).mean()) < 2
    assert slow_gpu[:3] == [("in", 0), ("in", 1), ("wait", 0)]


def test_where_there_is_no_memory_to_begin_an_image_it_has_its_turn(on_gpu, monkeypatch):
    model, sources = on_gpu(random_model("fsrcnn", 2), dtype="float32", k=4), images(*[(20, 28)] * 4)
    wanted = [model.upscale(source) for source in sources]
    calls = []

    class Full:
        def begin(self, *given, **more):
            raise OutOfMemoryError("full")

    def plan(runner, *size):
        calls.append(size)
        return Full() if len(calls) == 2 else made(runner, *size)

    made = begun.Runner.plan
    monkeypatch.setattr(begun.Runner, "plan", plan)
    results = list(model.upscale_all(sources))
    assert [result.error for result in results] == [None] * 4
    assert all(np.array_equal(result.image, right) for result, right in zip(results, wanted, strict=True))


def test_on_a_cpu_nothing_is_begun():
    model = MaskGuidedSR(random_model("fsrcnn", 2), device="cpu", k=4)
    assert begun.Begun.of(model, begun.images.read_image(images((8, 8))[0])) is None


def test_a_plan_does_not_go_before_what_it_has_begun_is_done(slow_gpu):
    """Its memory would be another's while the GPU still writes there."""
    plan = CudaGraphPlanner(random_model("fsrcnn", 2), CPU).plan(16, 24, 5)
    flight = plan.begin(picture(16, 24))
    held = weakref.ref(plan)
    assert slow_gpu == [("in", 0)]
    del plan
    gc.collect()
    assert held() is None
    assert slow_gpu == [("in", 0), ("wait", 0)]
    assert flight.done()


def test_a_third_image_waits_for_the_slot_and_leaves_the_picture_of_the_first(slow_gpu):
    plan = CudaGraphPlanner(random_model("fsrcnn", 2), CPU, dtype=None).plan(16, 24, 5)
    sources = [picture(16, 24, seed) for seed in range(3)]
    wanted = [plan.run(source) for source in sources]
    slow_gpu.clear()
    flights = [plan.begin(source) for source in sources]
    assert all(isinstance(flight, InFlight) for flight in flights)
    assert slow_gpu == [("in", 0), ("in", 1), ("wait", 0), ("in", 2)]
    for flight, right in zip(flights, wanted, strict=True):
        assert plan.finish(flight).equal(right)


class Slow:
    """Something begun, which is done when it is waited for."""

    def __init__(self, log, value):
        self.log, self.value, self.ended = log, value, False

    def done(self):
        return self.ended

    def result(self):
        self.log.append(("wait", self.value))
        self.ended = True
        return self.value


def same(value):
    return value


@pytest.mark.parametrize("ahead", [0, 1, 2, 5])
def test_one_is_begun_before_the_last_is_waited_for_and_no_more_are_held_than_asked_for(ahead):
    log, taken, given, most = [], [], [], []

    def sources():
        for i in range(6):
            taken.append(i)
            most.append(len(taken) - len(given))
            yield i

    def begin(i):
        log.append(("begin", i))
        return Slow(log, i)

    for outcome in overlap(sources(), same, None, same, ahead, begin=begin):
        given.append(outcome.value)
    assert given == list(range(6))
    assert max(most) == ahead + 1
    before = [log.index(("begin", i + 1)) < log.index(("wait", i)) for i in range(5)]
    if ahead in (0, 5):  # with less, some may have to wait for the place of one that is being written
        assert before == [ahead > 0] * 5
    assert before[0] == (ahead > 0)
    assert [event for event in log if event[0] == "wait"] == [("wait", i) for i in range(6)]


def test_what_is_done_is_not_kept_until_the_next_is_read():
    """Reading may wait for long; the picture that is there is handed on."""
    written, log = threading.Event(), []

    def read(i):
        return i if i == 0 else written.wait(20) and i

    def begin(i):
        found = Slow(log, i)
        found.ended = True
        return found

    outcomes = overlap(range(2), read, None, lambda i: written.set() or i, begin=begin)
    assert [outcome.value for outcome in outcomes] == [0, 1]


def test_what_cannot_be_begun_is_computed_in_its_place():
    log = []

    def begin(i):
        if i == 2:
            raise MemoryError("full")
        return Slow(log, i) if i % 2 == 0 else None

    def compute(i):
        log.append(("compute", i))
        if i == 3:
            raise ValueError("wrong")
        return i

    outcomes = list(overlap(range(5), same, compute, same, begin=begin))
    assert [outcome.value for outcome in outcomes] == [0, 1, 2, None, 4]
    assert str(outcomes[3].error) == "wrong"
    assert log == [("wait", 0), ("compute", 1), ("compute", 2), ("compute", 3), ("wait", 4)]


def test_closing_waits_for_nothing_that_has_begun():
    log = []
    outcomes = overlap(range(9), same, None, same, ahead=3, begin=lambda i: Slow(log, i))
    assert next(outcomes).value == 0
    waited = len(log)
    outcomes.close()
    assert len(log) == waited
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("mga-")]
