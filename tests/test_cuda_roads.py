"""Every call of an operator on the roads of plans for GPUs has a kernel there, as far as what a kernel refuses says.

Where none takes a call its definition runs, which reads values back: then nothing can be captured, and all is slow.
"""

import pytest
import torch
from network_zoo import random_model
from test_classes import config_of
from test_classes import network_of as classes_of
from test_cuda_own import MASKED, META, WHOLE
from test_cuda_own import gpu_floors as gpu_floors
from test_cuda_whole import whole_network
from test_regions import network_of as refining

from mga_kernels import ops
from mga_kernels.checkpoints.native import load_native, shipped_models
from mga_kernels.ops import registry
from mga_kernels.runtimes.cuda.graph import CudaGraphPlanner
from mga_kernels.runtimes.cuda.own import OwnPlanner

pytestmark = pytest.mark.usefixtures("free_choice")
KINDS = {
    **{f"{name} -M": lambda name=name: random_model(name, 4) for name in MASKED},
    **{name: lambda name=name: whole_network(name) for name in WHOLE},
    **{f"{name} in regions": lambda name=name: refining(name) for name in ("span", "compact", "msrresnet")},
    "mean of two": lambda: refining("compact", mean=True),
    "classes": lambda: classes_of(config_of(2)),
    **{name: lambda name=name: load_native(name) for name in shipped_models()},
}


@pytest.fixture
def refused(gpu_floors, monkeypatch):
    """Calls for which no kernel of a GPU is chosen, by operator; what runs has no values."""
    found, ran = {}, set()

    def unfit(arguments, device, missing=None, dtypes=None):
        tensors = list(registry._tensors(arguments))
        wrong = dtypes is not None and tensors[0].dtype not in dtypes
        return f"{tensors[0].dtype} is not among its dtypes" if wrong else None

    monkeypatch.setattr(registry, "_unfit", unfit)
    with gpu_floors.one_launch_each():
        without_values = ops.registry.Operator.choose

        def choose(self, *arguments):
            backends = [self.backends[name] for name in ("cuda", "triton") if name in self.backends]
            reasons = [backend.can_run(*arguments) for backend in backends]
            if None not in reasons:
                found.setdefault(self.name, set()).add(str(reasons))
            ran.add(self.name)
            return without_values(self, *arguments)

        with pytest.MonkeyPatch.context() as patch:  # undone before what it stands on
            patch.setattr(ops.registry.Operator, "choose", choose)
            yield found, ran


def walk(planner, network) -> None:
    plan = planner.plan(40, 52, 6 if network.masked else 0)
    roads = [(False, 6), (True, 0)] if network.masked else [(False, 0)]
    with torch.no_grad():
        for free in (False, True):
            plan.free = free
            for dense, k in roads:
                plan._run_all(dense, k)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", KINDS)
def test_in_our_own_convolutions(name, dtype, refused):
    network = KINDS[name]()
    planner = OwnPlanner.of(network, META, dtype)
    assert isinstance(planner, OwnPlanner), planner
    walk(planner, network)
    assert refused[0] == {}
    assert "convolve_pixels_" in refused[1]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", [name for name in KINDS if name != "classes"])  # which no graph holds
def test_in_modules(name, dtype, refused):
    network = KINDS[name]()
    walk(CudaGraphPlanner(network, META, dtype), network)
    assert refused[0] == {}
    assert {"image_to_input", "output_to_image"} <= refused[1]


def test_what_is_refused_is_seen(refused):
    x = torch.empty(8, 24, 20, dtype=torch.float16, device=META)[..., :16]
    out = torch.empty(8, 24, 16, dtype=torch.float16, device=META)
    weight, epilogue = torch.empty(9, 16, 16, dtype=torch.float16, device=META), torch.empty(5, 16, device=META)
    ops.convolve_pixels_(out, x, weight, epilogue)
    assert "do not lie side by side at multiples of 16" in str(refused[0]["convolve_pixels_"])
