"""What an engine shares with its caller, with other engines and with other threads: nothing but what it is given."""

from __future__ import annotations

import threading
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from network_zoo import random_model
from PIL import Image
from torch import nn

from mga_kernels import MaskGuidedSR, runtimes
from mga_kernels.engine import batch
from mga_kernels.errors import OutOfMemoryError
from mga_kernels.images import read_image
from mga_kernels.networks import MaskGuidedNetwork, ModelConfig, WholeConfig, WholeNetwork
from mga_kernels.networks.copies import private_copy
from mga_kernels.runtimes.pytorch.modules import ModulePatches, ModulePlan
from mga_kernels.runtimes.tiles.budget import Budget

LONG = 60  # seconds after which a test gives up waiting; none waits that long unless it fails


def pixels(seed: int = 0, height: int = 20, width: int = 28) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def tensor(seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(pixels(seed)).permute(2, 0, 1)[None] / 255


def engine(network: nn.Module | None = None, **settings) -> MaskGuidedSR:
    """Run by PyTorch's modules unless ``settings`` say otherwise."""
    network = random_model("fsrcnn", 2, k=5) if network is None else network
    return MaskGuidedSR(network, **{"device": "cpu", "runtime": "pytorch", "dtype": "float32"} | settings)


def whole(network: str = "fsrcnn") -> WholeNetwork:
    torch.manual_seed(0)
    return WholeNetwork(WholeConfig(network, 2, 2))


def in_training(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """As a caller may have it: in training, gradients beside the weights, a part frozen, a buffer of its own."""
    network = network.to(dtype).train().requires_grad_(True)
    network.register_buffer("steps", torch.tensor([3.0], dtype=torch.float64))
    parameters = list(network.parameters())
    parameters[0].requires_grad_(False)
    for parameter in parameters[1:]:
        parameter.grad = torch.ones_like(parameter)
    next(iter(network.children())).eval()
    return network


def facts(network: nn.Module) -> dict[str, object]:
    """All that must not change."""
    state = {name: (module.training, vars(module).keys()) for name, module in network.named_modules()}
    for name, value in (*network.named_parameters(), *network.named_buffers()):
        grad = None if value.grad is None else value.grad.clone()
        layout = value.dtype, value.device, value.stride(), value.data_ptr(), value.requires_grad, value.is_inference()
        state[f"tensor {name}"] = (*layout, value.detach().clone(), grad)
    return state


def assert_equal(found: dict[str, object], expected: dict[str, object]) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        for one, other in zip(found[name], values, strict=True):
            assert torch.equal(one, other) if isinstance(other, torch.Tensor) else one == other, name


@pytest.mark.parametrize("dtype", ["auto", "float32", "bfloat16", "float16"])
@pytest.mark.parametrize("own", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("make", [lambda: random_model("fsrcnn", 2, k=5), lambda: random_model("rfdn", 2), whole])
def test_the_network_that_is_given_stays_as_it_is(make, own, dtype):
    network = in_training(make(), own)
    before = facts(network)
    model = MaskGuidedSR(network, device="cpu", dtype=dtype)
    assert_equal(facts(network), before)
    model.upscale(pixels())
    model(tensor())
    if not model.whole:
        model.explain(pixels())
    assert_equal(facts(network), before)
    assert not any(p.requires_grad for p in model.model.parameters())
    assert not model.model.training


@pytest.mark.parametrize("make", [lambda: random_model("fsrcnn", 2, k=5), whole])
def test_engines_of_one_network_are_independent(make):
    settings = [{"dtype": "float32"}, {"dtype": "bfloat16"}, {"dtype": "float16"}, {"dtype": "float32"}]
    alone = []
    for given in settings:
        model = engine(make(), **given)
        alone.append((model.upscale(pixels()), model(tensor())))
    network = make()
    together = [engine(network, **given) for given in settings]
    together.append(engine(together[0].model))
    for model, (picture, result) in zip(together, [*alone, alone[0]], strict=True):
        assert np.array_equal(model.upscale(pixels()), picture)
        assert torch.equal(model(tensor()), result)


def test_what_becomes_of_the_network_later_does_not_matter():
    network = random_model("fsrcnn", 2, k=5)
    model = engine(network)
    expected = model.upscale(pixels()), model(tensor())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    network.double()
    assert np.array_equal(model.upscale(pixels()), expected[0])
    assert torch.equal(model(tensor()), expected[1])


@pytest.mark.filterwarnings("ignore:.*weight_norm")
def test_weights_that_were_computed_are_copied_too():
    """The older weight normalisation keeps a weight that is no leaf, which ``copy.deepcopy`` does not take."""
    network = random_model("fsrcnn", 2, k=5).requires_grad_(True)
    expected = engine(network).upscale(pixels())
    torch.nn.utils.weight_norm(network.refine.conv1)
    network(tensor())
    assert not network.refine.conv1.weight.is_leaf
    before = network.refine.conv1.weight_g.clone()
    found = engine(network).upscale(pixels())
    assert np.abs(found.astype(int) - expected).max() <= 1
    copied = private_copy(network)
    copied.refine.conv1.weight_g.data.zero_()
    assert torch.equal(network.refine.conv1.weight_g, before)


@pytest.mark.parametrize("attribute", ["parts", "bytes"])
def test_plans_may_change_while_they_are_looked_at(monkeypatch, attribute):
    """Looking at a plan, another thread meanwhile makes one for a size that was not seen before."""
    model = engine()
    model.upscale(pixels())
    model.upscale(pixels(height=24))
    sizes = iter(range(30, 60))
    busy = threading.local()

    def looked_at(plan):
        if not getattr(busy, "yes", False):
            with ThreadPoolExecutor(1, initializer=lambda: setattr(busy, "yes", True)) as pool:
                pool.submit(model.upscale, pixels(height=next(sizes))).result(LONG)
        return vars(plan).get(attribute, 0 if attribute == "bytes" else "")

    monkeypatch.setattr(
        ModulePlan, attribute, property(looked_at, lambda plan, value: vars(plan).update({attribute: value}))
    )
    if attribute == "parts":
        assert len(model.info()["prepared"]) == 2
    else:
        model._runner.held() if hasattr(model, "_runner") else model._held()
    assert next(sizes) > 31


def test_info_does_not_wait_for_an_image(monkeypatch):
    model = engine()
    model.upscale(pixels())
    begun, ended = threading.Event(), threading.Event()
    refine = ModulePatches.refine

    def slow(*arguments):
        begun.set()
        assert ended.wait(LONG)
        return refine(*arguments)

    monkeypatch.setattr(ModulePatches, "refine", slow)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(model.upscale, pixels())
        assert begun.wait(LONG)
        assert model.info()["prepared"] == ["28x20, K = 5"]
        ended.set()
        running.result(LONG)


def test_a_result_carries_what_belongs_to_its_photograph():
    """Nothing of it is kept in the model, where another thread's photograph would change it."""
    model = engine(fraction=0.5)
    with pytest.raises(AttributeError, match="return_result=True"):
        model.refined  # noqa: B018
    result = model.upscale(pixels(), return_result=True)
    assert (result.refined, result.notes) == (18, [])  # of 5 x 7 cells
    assert list(result.timings) == ["read", "run", "write"]
    assert min(result.timings.values()) >= 0
    assert result.timings["run"] > result.timings["read"], "an array is there already"
    assert np.array_equal(result.image, model.upscale(pixels()))
    out = np.zeros((40, 56, 3), np.uint8)
    assert model.upscale(pixels(), out, return_result=True).image is out
    assert np.array_equal(out, result.image)
    assert engine(mode="dense").upscale(pixels(), return_result=True).refined is None


def test_results_of_upscale_all_carry_their_own_count(monkeypatch):
    """Another thread upscales an image of another size before a result is put together."""
    model, form = engine(fraction=0.5), batch.in_form_of

    def late(*arguments):
        with ThreadPoolExecutor(1) as pool:
            pool.submit(model.upscale, pixels(height=40)).result(LONG)
        return form(*arguments)

    monkeypatch.setattr(batch, "in_form_of", late)
    results = model.upscale_all([pixels(), pixels(height=8), pixels()])
    assert [result.refined for result in results] == [18, 7, 18]


def test_warnings_name_the_image_and_the_line_of_the_caller(tmp_path):
    model, source = engine(), Image.fromarray(pixels()).convert("HSV")
    for name in ("one", "two"):
        source.convert("RGB").convert("CMYK").save(tmp_path / f"{name}.jpg")

    def said(call):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")  # which shows a text once for each line
            call()
        assert {warning.filename for warning in caught} <= {__file__}
        return [str(warning.message) for warning in caught]

    assert said(lambda: model.upscale(source)) == ["converted from HSV to RGB"]
    assert len(said(lambda: model.explain(source))) == 1
    found = said(lambda: [model.upscale(tmp_path / f"{name}.jpg") for name in ("one", "two")])
    assert [text.split(":")[0] for text in found] == [str(tmp_path / "one.jpg"), str(tmp_path / "two.jpg")]
    result = said(lambda: said.__setattr__("result", model.upscale(source, return_result=True)))
    assert result == []
    assert said.result.notes == ["converted from HSV to RGB"]


@pytest.mark.parametrize("call", [lambda m: m.upscale(pixels()), lambda m: m.explain(pixels()), lambda m: m(tensor())])
def test_a_wider_dtype_is_said_at_the_line_of_the_caller(call):
    network = random_model("fsrcnn", 2, k=5)
    network.base.first_part[0].weight.mul_(2.0**17)
    network.base.mid_part[0].weight.div_(2.0**17)
    with pytest.warns(UserWarning, match="not finite in float16") as caught:
        call(engine(network, dtype="float16"))
    assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, MemoryError, RuntimeError])
@pytest.mark.parametrize("step", ["coarse", "select", "refine", "result"])
def test_an_engine_is_usable_after_an_exception(monkeypatch, step, error):
    model = engine()
    expected = model.upscale(pixels()), model.upscale(pixels(1))
    with monkeypatch.context() as patch:

        def fail(plan, *arguments):
            getattr(super(ModulePlan, plan), step, lambda *_: None)
            raise error("in the middle")

        patch.setattr(ModulePlan, step, fail)
        with pytest.raises((error, OutOfMemoryError)):
            model.upscale(pixels(1))
    with ThreadPoolExecutor(1) as pool:  # whom a lock that is still held would stop
        assert np.array_equal(pool.submit(model.upscale, pixels(1)).result(LONG), expected[1])
    assert np.array_equal(model.upscale(pixels()), expected[0])


def test_an_engine_is_usable_after_a_wider_one_could_not_be_made(monkeypatch):
    network = random_model("fsrcnn", 2, k=5)
    network.base.first_part[0].weight.mul_(2.0**17)
    network.base.mid_part[0].weight.div_(2.0**17)
    model, prepare = engine(network, dtype="float16"), runtimes.prepare
    wanted = model.info()

    def fail(*_):
        raise MemoryError("no room for another")

    monkeypatch.setattr(runtimes, "prepare", fail)
    for _ in range(2):
        with pytest.raises(MemoryError, match="no room"):
            model.upscale(pixels())
        assert model.info()["photographs"] == wanted["photographs"]
        assert model.dtype == torch.float16
    monkeypatch.setattr(runtimes, "prepare", prepare)
    with pytest.warns(UserWarning, match="not finite in float16"):
        found = model.upscale(pixels())
    dtype = str(model.dtype).removeprefix("torch.")
    assert np.array_equal(found, engine(network, dtype=dtype).upscale(pixels()))


@pytest.mark.parametrize("mask", [None, "high-pass"])
def test_nothing_but_the_caller_holds_a_picture(mask):
    """Or the next one has to be made in other memory, which the system clears first, page by page."""
    model = engine(random_model("fsrcnn", 2, k=5), mask=mask)
    model.upscale(pixels())
    assert [plan.shown for plan in model._runner.plans.values()] == [None]


def test_a_plan_that_ran_out_of_memory_is_gone_before_a_smaller_one_is_made(monkeypatch):
    """Or both would be there at once, where there was no room for one."""
    model = engine(random_model("fsrcnn", 2, k=5))
    made: list[weakref.ref] = []
    plan, coarse = Budget.plan, ModulePlan.coarse

    def watched(budget, *arguments):
        assert not any(ref() is not None for ref in made)
        found = plan(budget, *arguments)
        made.append(weakref.ref(found))
        return found

    def full(plan, *arguments):
        if len(made) == 1:
            raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes")
        return coarse(plan, *arguments)

    expected = model.upscale(pixels(height=400, width=300))
    monkeypatch.setattr(Budget, "plan", watched)
    monkeypatch.setattr(ModulePlan, "coarse", full)
    model = engine(random_model("fsrcnn", 2, k=5))
    assert np.abs(model.upscale(pixels(height=400, width=300)).astype(int) - expected).max() <= 1
    assert len(made) == 2


def test_a_photo_is_not_changed_by_what_is_made_of_it():
    model, photo = engine(), read_image(Image.fromarray(pixels()).convert("HSV"))
    result = model.upscale(photo, return_result=True)
    result.notes.append("mine")
    assert photo.notes == ["converted from HSV to RGB"]
    assert MaskGuidedNetwork(ModelConfig("fsrcnn", 2)).training
