"""What is done where a capture fails, and what plans for GPUs hold; on the CPU, with graphs that record operators."""

import gc
import threading
import weakref

import pytest
import torch
from fake_graph import FakeGraph
from fake_graph import fake_graphs as fake_graphs
from network_zoo import random_model
from test_cuda_graph import CPU, assert_nearly, capturing, expected, one_thread, picture  # noqa: F401
from test_cuda_whole import whole_network

from mga_kernels import MaskGuidedSR
from mga_kernels.errors import InputError
from mga_kernels.modes import exact_float32, ordinary
from mga_kernels.runtimes.cuda import capture as capturing_module
from mga_kernels.runtimes.cuda import transfers
from mga_kernels.runtimes.cuda.capture import CannotCapture, capture, give_back_unused_memory
from mga_kernels.runtimes.cuda.graph import CudaGraphPlanner
from mga_kernels.runtimes.cuda.transfers import Lane
from mga_kernels.system import memory

pytestmark = pytest.mark.usefixtures("free_choice", "one_thread")


def small_plan(network=None, captured: bool = True):
    planner = CudaGraphPlanner(network or random_model("fsrcnn", 2), CPU, torch.float32)
    return (capturing(planner, CPU) if captured else planner).plan(16, 24, 5)


def reading_back(plan):
    """The plan, whose network asks for a value on the way, which no graph can hold."""
    network = plan.planner.network
    network.mask.register_forward_hook(lambda module, given, mask: mask + 0 * float(mask.sum()))
    return plan


def masked_by_module(network):
    """The network with its mask branch run as the module that it is, so that a hook on it is called."""
    whole = network.select

    def select(feature, k, *more):
        network.mask(feature)
        return whole(feature, k, *more)

    network.select = select
    return network


def test_a_failed_capture_is_the_last_of_its_process(fake_graphs, monkeypatch):
    """PyTorch's allocator may be in a state in which another one, or giving memory back, is an internal error."""
    emptied = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(1))
    give_back_unused_memory()
    assert emptied == [1]
    network, image = masked_by_module(random_model("fsrcnn", 2)), picture(16, 24)
    plan = small_plan(network)
    masked_by_module(plan.planner.network)
    reading_back(plan)
    with pytest.warns(UserWarning, match=r"cannot be captured .* \(aten._local_scalar_dense.default waits"):
        found = plan.run(image)
    assert_nearly(found, expected(network, image, 5))
    assert FakeGraph.captures == 1
    assert plan.planner.description == "float32, uncaptured"
    plan.dense(image)  # another graph of the plan
    other = small_plan()
    assert_nearly(other.run(image), expected(random_model("fsrcnn", 2), image, 5))
    assert FakeGraph.captures == 1
    assert other.planner.description == "float32, uncaptured"
    give_back_unused_memory()
    assert emptied == [1]


class Big:
    """In the place of what fills the memory."""


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), InputError("wrong"), KeyboardInterrupt()]
)
def test_what_is_no_matter_of_capturing_is_raised_as_it_is(fake_graphs, error):
    """Too little memory above all, for which there are tiles; and nothing of the attempt stays alive with it."""
    held = []

    def work():
        big = Big()
        held.append(weakref.ref(big))
        raise error

    gc.disable()
    try:
        with pytest.raises(type(error)) as caught:
            capture(work, Lane(CPU), (0, 7))
        assert caught.value is error
        assert caught.value.__context__ is None or caught.value.__suppress_context__
        del caught
        error.__traceback__ = None
        assert held[0]() is None
    finally:
        gc.enable()
    with pytest.raises(CannotCapture):  # and that was the last one
        capture(lambda: None, Lane(CPU), (0, 7))


def test_the_callers_stream_is_restored_after_a_failed_capture(fake_graphs):
    """``torch.cuda.graph`` of 2.11 does not, where ending the capture fails."""
    entered = []

    class Logged(Lane):
        def __enter__(self):
            entered.append("in")
            return super().__enter__()

        def __exit__(self, *error):
            entered.append("out")
            super().__exit__(*error)

    def work():
        assert entered == ["in"]
        raise RuntimeError("operation not permitted when stream is capturing")

    with pytest.raises(CannotCapture, match="operation not permitted when stream is capturing"):
        capture(work, Logged(CPU), (0, 7))
    assert entered == ["in", "out"]


def test_no_lane_overtakes_what_still_uses_the_memory_it_writes(monkeypatch):
    """Slots are allocated in the caller's stream, so each lane waits for it after that and before its first work."""
    log = []
    slot = transfers.Slot.__init__
    monkeypatch.setattr(transfers.Slot, "__init__", lambda self, *given: (slot(self, *given), log.append("slot"))[0])
    monkeypatch.setattr(Lane, "after_callers", lambda self: log.append(self))
    monkeypatch.setattr(Lane, "__enter__", lambda self: log.append(("work", self)) or self)
    monkeypatch.setattr(Lane, "__exit__", lambda self, *_: None)
    plan = small_plan(captured=False)
    lanes = plan._compute, plan._up, plan._down
    last_slot = len(log) - 1 - log[::-1].index("slot")
    assert set(log[last_slot + 1 :]) == set(lanes)
    assert not [entry for entry in log if isinstance(entry, tuple)]
    plan.run(picture(16, 24))
    assert ("work", plan._up) in log


@pytest.mark.parametrize("failing", [False, True])
def test_plans_go_with_their_last_reference(failing, fake_graphs):
    """A graph that holds its plan would keep gigabytes until the garbage collector looks."""
    plan = small_plan(masked_by_module(random_model("fsrcnn", 2)), captured=failing)
    if failing:
        masked_by_module(plan.planner.network)
        with pytest.warns(UserWarning, match="cannot be captured"):
            reading_back(plan).run(picture(16, 24))
    gc.collect()
    gc.disable()
    try:
        plan.run(picture(16, 24))
        held = weakref.ref(plan)
        del plan
        assert held() is None
    finally:
        gc.enable()


def test_memory_that_is_free_in_the_pool_of_a_graph_is_not_to_be_had(fake_graphs, monkeypatch):
    monkeypatch.setattr(memory, "_pools", weakref.WeakKeyDictionary())
    facts = {"memory_reserved": 100, "memory_allocated": 40, "mem_get_info": (1000, 5000), "current_device": 0}
    for name, value in facts.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    segments = [
        {"device": 0, "segment_pool_id": (0, 0), "total_size": 50, "allocated_size": 20},
        {"device": 0, "segment_pool_id": (0, 7), "total_size": 30, "allocated_size": 20},
        {"device": 0, "segment_pool_id": (0, 5), "total_size": 20, "allocated_size": 0},  # of a graph that is gone
        {"device": 1, "segment_pool_id": (0, 7), "total_size": 70, "allocated_size": 0},
    ]
    monkeypatch.setattr(torch.cuda, "memory_snapshot", lambda: segments)
    device = torch.device("cuda")
    assert memory.device_memory(device) == 1060
    plan = small_plan()
    plan.run(picture(16, 24))
    assert memory.device_memory(device) == 1050
    assert memory.device_memory(torch.device("cuda", 1)) == 990
    del plan
    gc.collect()
    assert memory.device_memory(device) == 1060


@pytest.fixture
def tf32(monkeypatch):
    """What convolutions may do while they run, as PyTorch says so; by default, and after each test, they may."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    seen = []
    convolution = torch.nn.Conv2d.forward

    def forward(self, x):
        seen.append(torch.backends.cudnn.allow_tf32)
        return convolution(self, x)

    monkeypatch.setattr(torch.nn.Conv2d, "forward", forward)
    return seen


@pytest.mark.parametrize("kind", ["tensor", "whole tensor", "photograph", "whole photograph", "graph", "explained"])
def test_float32_is_float32_on_every_road(kind, tf32):
    """cuDNN rounds to TF32 unless told otherwise: 3e-4 of a value, where the README promises fp32."""
    image, plan = picture(16, 24), small_plan(captured=False)
    network = whole_network("fsrcnn") if "whole" in kind else random_model("fsrcnn", 2)
    model = MaskGuidedSR(network, device="cpu", runtime="pytorch")
    tf32.clear()
    if kind == "graph":
        plan.run(image)
    else:
        if "tensor" in kind:
            model(image.permute(2, 0, 1)[None] / 255)
        elif kind == "explained":
            model.explain(image.numpy())
        else:
            model.upscale(image.numpy())
    assert tf32
    assert not any(tf32)
    assert torch.backends.cudnn.allow_tf32 is True


def test_the_benchmark_of_exact_pictures_is_exact(tf32, monkeypatch):
    from pathlib import Path

    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "bench"))
    import gpu_engine

    case = gpu_engine.make_case("fsrcnn", "tiny", "cpu")
    tf32.clear()
    gpu_engine.exact(case)
    assert tf32
    assert not any(tf32)
    assert torch.backends.cudnn.allow_tf32 is True


def test_the_last_of_several_threads_takes_the_setting_back(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    entered, leave = threading.Event(), threading.Event()

    def other():
        with exact_float32:
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with ordinary():
        thread.start()
        entered.wait(10)
    assert torch.backends.cudnn.allow_tf32 is False
    with ordinary(), ordinary():
        leave.set()
        thread.join()
        assert torch.backends.cudnn.allow_tf32 is False
    assert torch.backends.cudnn.allow_tf32 is True


def test_in_a_child_other_threads_are_not_waited_for(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    entered, leave = threading.Event(), threading.Event()

    def other():
        with exact_float32:
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    entered.wait(10)
    monkeypatch.setattr(exact_float32, "_take_back", exact_float32._take_back)
    inside = exact_float32._inside.copy()
    exact_float32.after_fork()
    assert torch.backends.cudnn.allow_tf32 is True
    exact_float32._inside.update(inside)  # this is no child
    leave.set()
    thread.join()


def test_a_caller_who_sets_precisions_by_operator_is_served_and_left_as_he_was():
    conv = torch.backends.cudnn.conv
    before = conv.fp32_precision
    rnn = torch.backends.cudnn.rnn.fp32_precision
    try:
        conv.fp32_precision = "tf32"
        torch.backends.cudnn.rnn.fp32_precision = "ieee"  # now allow_tf32 cannot be asked
        with pytest.raises(RuntimeError):
            _ = torch.backends.cudnn.allow_tf32
        with ordinary():
            assert conv.fp32_precision == "ieee"
        assert conv.fp32_precision == "tf32"
    finally:
        conv.fp32_precision, torch.backends.cudnn.rnn.fp32_precision = before, rnn
    assert capturing_module.may_capture()
