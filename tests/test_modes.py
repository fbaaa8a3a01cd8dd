"""What a caller has set for the whole of PyTorch changes neither results nor what can be done with them."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest
import torch
from network_zoo import random_model
from tiny_model import write_tiny_model

from mga_kernels import MaskGuidedSR
from mga_kernels.checkpoints import load_checkpoint, load_model, save_model
from mga_kernels.export import export_model
from mga_kernels.export.graph import MaskGuidedGraph
from mga_kernels.modes import ordinary
from mga_kernels.networks import WholeConfig, WholeNetwork
from mga_kernels.networks.amount import Amount
from mga_kernels.runtimes.cpu import choose
from mga_kernels.system.threads import one_thread

OTHERS = ("pan", "rfdn", "srresnet", "rcan", "imdn", "whole")
SIZES = (17, 22), (24, 20)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextmanager
def all_of_them() -> Iterator[None]:
    with ExitStack() as stack:
        for name, mode in MODES.items():
            if name != "all":
                stack.enter_context(mode())
        yield


MODES = {
    "inference": torch.inference_mode,
    "gradients": torch.enable_grad,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "autocast to float16": lambda: torch.autocast("cpu", torch.float16),
    "float64": lambda: default_dtype(torch.float64),
    "float16": lambda: default_dtype(torch.float16),
    "device": lambda: torch.device("meta"),
    "deterministic": deterministic,
    "all": all_of_them,
}


def pixels(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def tensor(size: tuple[int, int]) -> torch.Tensor:
    return torch.from_numpy(pixels(size)).permute(2, 0, 1)[None] / np.float32(255)


def results(model: MaskGuidedSR, images: list[torch.Tensor]) -> list:
    """Of photographs and of tensors, made in this order."""
    found: list = []
    for size, image in zip(SIZES, images, strict=False):
        found += [model.upscale(pixels(size)), model(image)]
        if not model.whole:
            told = model.explain(pixels(size))
            found += [model(image, "decomposed"), model(image, k=3, selection="random", seed=1), told.mask, told.image]
    model.warmup(9, 9)
    found += [result.image for result in model.upscale_all([pixels((16, 16))])]
    return found


def assert_same(found: list, expected: list) -> None:
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other) if isinstance(other, torch.Tensor) else np.array_equal(one, other)
        assert one.dtype == other.dtype


@pytest.mark.parametrize("runtime", ["pytorch", "own"])
@pytest.mark.parametrize(("name", "mode"), [*(("fsrcnn", m) for m in MODES), *((n, "all") for n in OTHERS)])
def test_no_mode_changes_a_result(name, runtime, mode):
    if runtime == "own" and choose.supported():
        pytest.skip(choose.supported())
    network = WholeNetwork(WholeConfig("fsrcnn", 2, 2)) if name == "whole" else random_model(name, 2, k=4)

    def make() -> MaskGuidedSR:
        return MaskGuidedSR(network, device="cpu", runtime=runtime)

    images = [tensor(size) for size in SIZES[: 2 if name == "fsrcnn" else 1]]
    expected = results(make(), images)
    outside = make()
    with MODES[mode]():
        assert_same(results(outside, images), expected)
        inside = make()
        assert_same(results(inside, images), expected)
    assert_same(results(inside, images), expected)
    assert_same(results(outside, images), expected)


@pytest.mark.parametrize("mode", ["inference", "gradients", "autocast", "autocast to float16", "device"])
def test_a_mode_that_is_entered_within_it_has_no_effect_either(mode):
    def seen() -> list[object]:
        made = torch.ones(2, 2) @ torch.ones(2, 2, requires_grad=True)
        return [made.dtype, made.device, made.requires_grad, made.is_inference()]

    with ordinary(), MODES[mode]():
        changed = seen()
        with ordinary(), ordinary():
            assert seen() == [torch.float32, torch.device("cpu"), False, False]
        assert seen() == changed


@pytest.mark.parametrize("mode", MODES)
def test_no_mode_changes_what_a_file_holds(tmp_path, mode):
    ours, theirs = write_tiny_model(tmp_path / "tiny.safetensors"), tmp_path / "published.pth"
    published = WholeNetwork(WholeConfig("fsrcnn", 2, 2, input_range="0..255"))
    torch.save(published.body.state_dict(), theirs)
    settings = {"colour": "rgb", "input_range": "0..255", "scale": 2}
    loads = [
        lambda: MaskGuidedSR.from_pretrained(ours, device="cpu"),
        lambda: MaskGuidedSR.from_checkpoint(ours, device="cpu"),
        lambda: MaskGuidedSR.from_checkpoint(theirs, device="cpu", **settings),
        lambda: MaskGuidedSR(load_model(ours), device="cpu"),
        lambda: MaskGuidedSR(load_checkpoint(theirs, **settings), device="cpu"),
    ]
    for load in loads:
        expected = load().upscale(pixels(SIZES[0]))
        with MODES[mode]():
            model = load()
        assert np.array_equal(model.upscale(pixels(SIZES[0])), expected)
        assert not any(p.is_inference() or p.dtype != torch.float32 for p in model.model.parameters())


def test_no_mode_changes_how_a_published_network_is_recognised(tmp_path):
    """Its scale and range are tried on a picture."""
    network = random_model("rfdn", 2)
    save_model(tmp_path / "a.safetensors", network, {}, {})
    from mga_kernels.checkpoints.probe import picture

    expected = picture()
    for mode in MODES.values():
        with mode(), ordinary():
            found = picture()
        assert (found.dtype, found.device) == (torch.float32, torch.device("cpu"))
        assert torch.equal(found, expected)


def test_no_mode_changes_what_is_exported(tmp_path):
    network = random_model("fsrcnn", 2, k=4)
    with all_of_them():
        export_model(network, tmp_path / "a.pt2")
    program = torch.export.load(tmp_path / "a.pt2")
    assert {value.dtype for value in program.state_dict.values()} == {torch.float32}
    assert all(torch.equal(network.state_dict()[n.removeprefix("network.")], v) for n, v in program.state_dict.items())
    found, expected = program.module()(tensor(SIZES[0])), MaskGuidedGraph(network, Amount()).eval()(tensor(SIZES[0]))
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() <= 1e-6


@pytest.mark.parametrize("mode", ["none", "inference", "gradients", "autocast", "all"])
def test_results_are_ordinary_tensors(mode):
    model, leaf = MaskGuidedSR(random_model("fsrcnn", 2, k=4), device="cpu"), torch.ones(1, requires_grad=True)
    image = tensor(SIZES[0]).requires_grad_()
    with MODES.get(mode, ExitStack)():
        found = [model(image), model(image, "base"), model(image, "decomposed"), model(image.detach().half())]
    for result in found:
        assert not result.is_inference()
        assert not result.requires_grad
        result.add_(1)
        (result.float() * leaf).sum().backward()
        result.detach().requires_grad_().square().sum().backward()
        result.share_memory_()
        stream = io.BytesIO()
        torch.save(result, stream)
        assert len(stream.getvalue()) < result.nbytes + 4096, "it is no part of a larger tensor"
        stream.seek(0)
        assert torch.equal(torch.load(stream), result)
    assert leaf.grad is not None


def test_a_size_prepared_in_inference_mode_serves_outside_of_it():
    expected = MaskGuidedSR(random_model("rfdn", 2, k=4), device="cpu").upscale(pixels(SIZES[0]))
    with torch.inference_mode():
        model = MaskGuidedSR(random_model("rfdn", 2, k=4), device="cpu")
        model.warmup(*SIZES[0])
        model.upscale(pixels(SIZES[0], 1))
    for _ in range(2):
        assert np.array_equal(model.upscale(pixels(SIZES[0])), expected)
    assert not any(p.is_inference() for p in model.model.parameters())


def test_modes_of_the_caller_are_as_they_were():
    model = MaskGuidedSR(random_model("fsrcnn", 2, k=4), device="cpu")
    with torch.autocast("cpu", torch.float16), torch.device("meta"), torch.inference_mode():
        model.upscale(pixels(SIZES[0]))
        with pytest.raises(ValueError, match="expected a uint8 "):
            model.upscale(pixels(SIZES[0]).astype(float))
        assert torch.is_autocast_enabled("cpu")
        assert torch.get_autocast_dtype("cpu") == torch.float16
        assert torch.empty(1).device.type == "meta"
        assert torch.is_inference_mode_enabled()
    assert torch.is_grad_enabled()


def test_random_numbers_are_the_callers(tmp_path):
    """Neither loading nor running draws one."""
    file, network = write_tiny_model(tmp_path / "tiny.safetensors"), WholeNetwork(WholeConfig("fsrcnn", 2, 2))
    divided = random_model("fsrcnn", 2, k=4)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    for runtime in ("own", "pytorch"):
        results(MaskGuidedSR.from_pretrained(file, device="cpu", runtime=runtime), [tensor(SIZES[0])])
        results(MaskGuidedSR(network, device="cpu", runtime=runtime), [tensor(SIZES[0])])
        results(MaskGuidedSR(divided, device="cpu", runtime=runtime), [tensor(SIZES[0])])
    assert torch.equal(torch.get_rng_state(), before)


def test_the_number_of_threads_is_the_callers():
    """Small work runs on one thread, of which neither other threads nor those that start meanwhile hear."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    inside, outside = threading.Event(), threading.Event()
    found = {}

    def other():
        torch.ones(1) + 1
        found["before"] = torch.get_num_threads()
        inside.wait(60)
        found["meanwhile"] = torch.get_num_threads()
        outside.wait(60)
        found["after"] = torch.get_num_threads()

    try:
        thread = threading.Thread(target=other)
        thread.start()
        with one_thread():
            assert torch.get_num_threads() == 1
            inside.set()
            late = threading.Thread(target=lambda: found.update(late=torch.get_num_threads()))
            late.start()
            late.join()
        outside.set()
        thread.join()
        assert found == {"before": 3, "meanwhile": 3, "after": 3, "late": 3}
        assert torch.get_num_threads() == 3
        with pytest.raises(ZeroDivisionError), one_thread():
            _ = 1 / 0
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_nothing_sets_the_number_of_threads(monkeypatch):
    from mga_kernels.runtimes import precision

    monkeypatch.setattr(torch, "set_num_threads", lambda _: pytest.fail("that is for the whole process"))
    monkeypatch.setattr(precision, "fast_bf16", lambda: True)
    precision.in_bf16(random_model("fsrcnn", 2))
    MaskGuidedSR(random_model("fsrcnn", 2), device="cpu", runtime="pytorch").upscale(pixels(SIZES[0]))
