"""What runs photographs: OpenVINO and PyTorch against the network in float32, what is chosen, the memory they keep."""

import gc
import importlib.util
import resource
import subprocess
import sys

import local_originals as originals
import numpy as np
import pytest
import torch
from network_zoo import photographs
from PIL import Image

from mga.evaluation.metrics import psnr_y
from mga_kernels import MaskGuidedSR, runtimes
from mga_kernels.checkpoints import recognise
from mga_kernels.errors import InputError
from mga_kernels.networks import MaskGuidedNetwork, ModelConfig
from mga_kernels.ops import output_to_image, paste_patches_
from mga_kernels.runtimes import precision
from mga_kernels.runtimes.openvino_cpu import plan as openvino
from mga_kernels.system import allocator

CPU = torch.device("cpu")
needs_openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is not installed")
SMALL = {"fsrcnn": {}, "pan": {"split": (2, 1)}, "rfdn": {"split": (2, 1)}, "srresnet": {"split": (2, 1)}}


def small_network(name: str, scale: int = 4, **settings) -> MaskGuidedNetwork:
    """Random, with images that are neither black nor flat, so that errors are not clamped away."""
    torch.manual_seed(0)
    network = MaskGuidedNetwork(ModelConfig(name, scale, **(SMALL[name] | settings))).eval().requires_grad_(False)
    with torch.no_grad():
        network.mask.conv2.weight.mul_(20)
        for half in (network.base, network.refine):
            last = [
                module for module in half.modules() if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d)
            ]
            if last[-1].bias is not None:
                last[-1].bias.add_(0.4 * network.value_range)
    return network


def without_our_convolutions() -> MaskGuidedNetwork:
    return MaskGuidedNetwork(ModelConfig("imdn-split", 2, split=(1, 1))).eval()


def photograph(height: int, width: int) -> np.ndarray:
    return (precision.picture(height, width)[0].permute(1, 2, 0) * 255).round().byte().contiguous().numpy()


def exact(network: MaskGuidedNetwork, image: np.ndarray, indices: torch.Tensor, variant: str = "masked") -> np.ndarray:
    """Bytes of the network in float32, by its definition, with the cells at ``indices`` refined."""
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    height, width = (side * network.config.scale for side in image.shape[:2])
    result, feature = network.coarse(tensor)
    if variant == "decomposed":
        result = network.decomposed(feature)
    elif indices.shape[1]:
        result = paste_patches_(result, network.refined(feature, indices), indices)
    return output_to_image(result, height, width)[0].numpy()


def planner(network: MaskGuidedNetwork, runtime: str, dtype: torch.dtype | None):
    return runtimes.prepare(network, CPU, dtype, runtime)[0]


RUNTIMES = ["pytorch", pytest.param("openvino", marks=needs_openvino)]


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(
    ("name", "height", "width", "scale"),
    [("fsrcnn", 30, 33, 3), ("pan", 24, 32, 4), ("pan", 18, 24, 2), ("rfdn", 21, 30, 4), ("srresnet", 16, 18, 4)],
)
def test_float32_is_the_network_within_a_level(runtime, name, height, width, scale):
    network = small_network(name, scale)
    image = photograph(height, width)
    plan = planner(network, runtime, torch.float32).plan(height, width, 150 if name == "pan" else 9)
    with torch.inference_mode():
        for _ in range(2):  # the second time with the buffers as the first one left them
            out = plan.buffer()
            out.random_()
            plan.coarse(torch.from_numpy(image), out)
            _, indices = plan.select(9)
            plan.refine(indices, out)
            found = plan.crop(out).numpy()
            expected = exact(network, image, indices)
            assert expected.std() > 5, "a flat picture proves nothing"
            assert np.abs(found.astype(int) - expected).max() <= 1
            assert (found != exact(network, image, indices[:, :0])).any(), "the Refine-Net has changed nothing"
        found = plan.dense(torch.from_numpy(image)).numpy()
        expected = exact(network, image, indices, "decomposed")
        assert np.abs(found.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_bfloat16_is_close_to_the_network(runtime):
    if runtime == "openvino" and openvino.unavailable(torch.bfloat16):
        pytest.skip(openvino.unavailable(torch.bfloat16))
    network = small_network("pan")
    image = photograph(24, 36)
    expected_network = small_network("pan")
    plan = planner(network, runtime, torch.bfloat16).plan(24, 36, 9)
    with torch.inference_mode():
        found = plan.run(torch.from_numpy(image)).numpy()
        expected = exact(expected_network, image, plan.select(9)[1])
    difference = np.abs(found.astype(int) - expected)
    assert 0 < difference.mean() < 1, "float32 ran, or the wrong thing"
    assert difference.max() <= 4


@needs_openvino
def test_the_results_memory_of_any_kind(monkeypatch):
    """Pictures that are not whole cells, given buffers, images below the smallest size, strided arrays, odd batches."""
    monkeypatch.setattr(openvino, "AT_ONCE", 4)  # 7 cells: a full batch and the rest
    network = small_network("rfdn")
    model = MaskGuidedSR(network, k=7, device="cpu", dtype="float32", runtime="openvino")
    slow = MaskGuidedSR(small_network("rfdn"), k=7, device="cpu", dtype="float32", runtime="pytorch")
    for size in ((20, 28), (21, 30), (5, 40), (18, 28)):
        image = photograph(*size)
        expected = slow.upscale(image).astype(int)
        out = np.full(expected.shape, 77, np.uint8)
        assert np.abs(model.upscale(image, out=out) - expected).max() <= 1
        assert np.abs(model.upscale(np.ascontiguousarray(image[:, ::-1])[:, ::-1]) - expected).max() <= 1


@needs_openvino
def test_patches_can_be_kept_and_loaded():
    made = planner(small_network("pan"), "openvino", torch.float32)
    plan, other = made.plan(24, 32, 12), made.plan(16, 16, 9)
    with torch.inference_mode():
        plan.coarse(torch.from_numpy(photograph(24, 32)), None)
        plan.gather(plan.select(9)[1])
        kept, expected = plan.patches(), plan.refined().clone()
        other.load(kept[:5])
        torch.testing.assert_close(other.refined(), expected[:5], atol=1, rtol=0)


class _Fixed(torch.nn.Module):
    """A Base-Net whose result depends on the height of the image in a way that a trace freezes."""

    def __init__(self, base):
        super().__init__()
        self.base = base

    def forward(self, image):
        coarse, feature = self.base(image)
        return coarse * float(1 + len(image[0, 0]) / 100), feature


@needs_openvino
def test_a_network_that_tracing_freezes_is_refused_and_runs_in_pytorch():
    network = without_our_convolutions()
    network.base = _Fixed(network.base)
    chosen, refused = runtimes.prepare(network, CPU, torch.float32)
    assert "in PyTorch" in chosen.description
    assert "at other sizes" in refused["OpenVINO"]
    with pytest.raises(InputError, match=r"'openvino' cannot run imdn-split here: it does not take this network"):
        runtimes.prepare(network, CPU, torch.float32, "openvino")


def test_what_was_asked_for_runs_or_is_refused_with_the_reason():
    model = MaskGuidedSR(small_network("fsrcnn"), device="cpu", dtype="float32", runtime="pytorch")
    assert model.info()["photographs"] == "float32, in PyTorch"
    assert "OpenVINO: runtime pytorch was asked for" in model.info()["why not"]
    with pytest.raises(InputError, match=r"runtime 'own' cannot run rfdn here: dtype float16 was asked for"):
        MaskGuidedSR(small_network("rfdn"), device="cpu", dtype="float16", runtime="own")
    with pytest.raises(
        InputError, match=r"runtime 'onnx' does not exist; choose auto or one of own, openvino, pytorch"
    ):
        MaskGuidedSR(small_network("rfdn"), device="cpu", runtime="onnx")
    with pytest.raises(InputError, match="its graphs run in bfloat16 or float32"):
        MaskGuidedSR(small_network("rfdn"), device="cpu", dtype="float16", runtime="openvino")


def test_without_openvino_pytorch_runs(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)  # as if it were not installed
    model = MaskGuidedSR(without_our_convolutions(), device="cpu", dtype="float32")
    assert model.info()["photographs"] == "float32, in PyTorch"
    assert any(line.startswith("OpenVINO: it is not installed") for line in model.info()["why not"])


@needs_openvino
def test_openvino_is_chosen_before_pytorch():
    model = MaskGuidedSR(without_our_convolutions(), device="cpu", dtype="float32")
    assert model.info()["photographs"].startswith("float32, in OpenVINO ")


def test_halves_that_bf16_would_show_in_stay_in_float32():
    network = small_network("pan")
    assert precision.in_bf16(network) == (True, True)
    with torch.no_grad():  # a bias of which bf16 keeps 8 bits, taken away again behind it
        network.refine.upconv1.bias.add_(400)
        network.refine.att1.conv.weight.zero_()
        network.refine.HRconv1.bias.sub_(200 * network.refine.HRconv1.weight.sum(dim=(1, 2, 3)))
    assert precision.in_bf16(network) == (True, False)
    if precision.fast_bf16():
        chosen = planner(network, "pytorch", None)
        assert chosen.description == "bfloat16, Refine-Net in float32, in PyTorch"
        assert chosen.plan(16, 16, 3).run(torch.from_numpy(photograph(16, 16))).float().std() > 0


class _Promoting(torch.nn.Module):
    """A Base-Net whose layers get float32, whatever type they have."""

    def __init__(self, base):
        super().__init__()
        self.base = base

    def forward(self, image):
        return self.base(image * torch.ones(1, 1, 1, 1))


def test_a_network_that_does_not_run_in_bf16_stays_in_float32(monkeypatch):
    network = small_network("pan")
    network.base = _Promoting(network.base)
    monkeypatch.setattr(runtimes.choose, "fast_bf16", lambda: True)
    chosen = planner(network, "pytorch", None)
    assert chosen.description == "float32, in PyTorch"
    assert chosen.plan(16, 16, 3).run(torch.from_numpy(photograph(16, 16))).float().std() > 0


def test_the_half_that_stays_in_float32_keeps_every_bit():
    network = small_network("pan")
    exact = {name: tensor.clone() for name, tensor in network.refine.state_dict().items()}
    network.convert(torch.bfloat16, torch.float32)
    assert {parameter.dtype for parameter in network.base.parameters()} == {torch.bfloat16}
    assert {parameter.dtype for parameter in network.mask.parameters()} == {torch.bfloat16}
    assert all(torch.equal(tensor, exact[name]) for name, tensor in network.refine.state_dict().items())


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_auto_loses_nothing_visible_on_a_real_picture(shared_data, runtime):
    lr, hr = (
        np.array(Image.open(shared_data / "data/testsets/Set5" / path))
        for path in ("LR_bicubic/X4/butterflyx4.png", "HR/butterfly.png")
    )
    scores = [
        psnr_y(MaskGuidedSR.from_pretrained("rfdn-x4", device="cpu", dtype=d, runtime=runtime).upscale(lr), hr, 4)
        for d in ("float32", "auto")
    ]
    assert abs(scores[0] - scores[1]) <= 0.02


FAULTS = """
import gc, resource, torch
from mga_kernels.system import allocator
class Owner: pass
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.empty(64 << 20, dtype=torch.uint8).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults(); plain = faults()
owner = Owner(); assert allocator.keep_memory(owner)
for _ in range(4):
    faults()  # an aligned block does not fit where one of its size was, until free neighbours join
kept = faults()
del owner; gc.collect()
print(plain, kept, faults())
"""


@pytest.mark.skipif(allocator._glibc() is None, reason="the C library is not glibc")
def test_memory_is_kept_while_a_plan_lives_and_given_back_after_it():
    """Pages that the system has to provide again, by what large tensors come from."""
    result = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    plain, kept, after = map(int, result.stdout.split())
    page = resource.getpagesize()
    assert plain * page > 64 << 20
    assert kept * page < 8 << 20
    assert after * page > 64 << 20


def test_pytorch_plans_keep_memory_and_count_their_owners():
    if allocator._glibc() is None:
        pytest.skip("the C library is not glibc")
    gc.collect()  # plans of other tests
    before = allocator._owners
    made = planner(small_network("fsrcnn"), "pytorch", torch.float32)
    several = [made.plan(16, 16, 3), made.plan(16, 20, 3)]
    assert allocator._owners == before + 2
    several.clear()
    gc.collect()
    assert allocator._owners == before


@pytest.mark.filterwarnings("ignore::mga_kernels.errors.CheckpointNote")
@pytest.mark.parametrize("original", [originals.compact, originals.span], ids=["compact", "span"])
@pytest.mark.parametrize("scale", [4, 8])
def test_a_pixel_shuffle_that_kernels_do_not_make_is_made_by_pytorch(original, scale):
    """They make one of 4 at once at most."""
    state, forward = original(scale)
    network = recognise(dict(state), "it", input_range=None if original is originals.compact else "0..255")
    model = MaskGuidedSR(network, device="cpu", dtype="float32")
    image = photographs(13, 17)[0]
    made = model.upscale((image.permute(1, 2, 0) * 255).round().byte().numpy())
    with torch.no_grad():
        expected = (255 * forward((255 * image[None]).round() / 255).clamp(0, 1)).round()[0].permute(1, 2, 0)
    assert expected.std() > 5, "a flat picture proves nothing"
    assert np.abs(made - expected.numpy()).max() <= 1
    deep = model.upscale((image.permute(1, 2, 0) * 65535).round().to(torch.int32).numpy().astype(np.uint16))
    assert np.abs(deep / 257 - made).max() <= 2
    if scale == 8:
        with pytest.raises(InputError, match="pixel shuffle of 8"):
            MaskGuidedSR(network, device="cpu", dtype="float32", runtime="own")
