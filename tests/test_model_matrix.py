"""Every network x variant x scale on a photograph: values, gradients, files, and what torch makes of the -M path.

A network that MGA_NETWORKS names is tested along with the others.
"""

from __future__ import annotations

import copy
import itertools
import math
import os
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from network_zoo import NAMES, one_thread, photographs, random_model
from torch import Tensor

from mga_kernels import _native
from mga_kernels.checkpoints import load_model, save_model
from mga_kernels.networks import VARIANTS, MaskGuidedNetwork
from mga_kernels.ops import last_backend

HEIGHT, WIDTH = 17, 23  # no multiples of p: 5 x 6 cells after the extension
K = 7

pytestmark = pytest.mark.usefixtures("free_choice")


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    with one_thread():
        yield


@pytest.fixture(
    params=[(name, scale) for name in NAMES for scale in (2, 3, 4)], ids=lambda pair: f"{pair[0]}-x{pair[1]}"
)
def model(request) -> MaskGuidedNetwork:
    return random_model(*request.param)


@pytest.fixture(params=zip(NAMES, itertools.cycle((2, 3, 4)), strict=False), ids=lambda pair: f"{pair[0]}-x{pair[1]}")
def one_scale(request) -> MaskGuidedNetwork:
    """Of every network, for what is dear and no matter of the scale: each scale has two of them."""
    return random_model(*request.param)


@pytest.fixture(scope="module")
def images() -> Tensor:
    images = photographs(HEIGHT, WIDTH)
    assert (images.std(dim=(2, 3)) > 0.02).all(), "a photograph with something to see"
    return images


def extended(tensor: Tensor, height: int, width: int) -> Tensor:
    missing = (0, height - tensor.shape[2]), (0, width - tensor.shape[3])
    return torch.from_numpy(np.pad(tensor.numpy(), ((0, 0), (0, 0), *missing), mode="reflect"))


def by_hand(model: MaskGuidedNetwork, images: Tensor, variant: str) -> Tensor:
    """One image from the halves, cell by cell, with slices instead of operators."""
    p, s, h = model.config.patch_size, model.config.scale, model.refine.halo
    rows, columns = math.ceil(images.shape[2] / p), math.ceil(images.shape[3] / p)
    coarse, feature = model.base(images * model.config.value_range)
    result = extended(coarse, rows * p * s, columns * p * s)
    feature = extended(feature, rows * p, columns * p)
    padded = F.pad(feature, (h, h, h, h))
    if variant == "decomposed":
        result = model.refine(padded)
    elif variant != "base":
        masks = model.mask(feature).flatten(1).numpy()
        for b, mask in enumerate(masks):
            cells = range(rows * columns) if variant == "all" else np.argsort(-mask, kind="stable")[:K]
            for y, x in (divmod(int(cell), columns) for cell in cells):
                patch = padded[b : b + 1, :, y * p : y * p + p + 2 * h, x * p : x * p + p + 2 * h]
                result[b, :, y * p * s : (y + 1) * p * s, x * p * s : (x + 1) * p * s] = model.refine(patch)[0]
    return (result / model.config.value_range)[..., : s * images.shape[2], : s * images.shape[3]].clamp(0, 1)


@pytest.mark.parametrize("variant", [variant for variant in VARIANTS if variant != "masked"])
def test_a_photograph_is_assembled_from_the_halves(one_scale, images, variant):
    check_photograph(one_scale, images, variant)


def test_the_masked_path_runs_at_every_scale(model, images):
    """Both halves, and so what the other variants are made of."""
    check_photograph(model, images, "masked")


def check_photograph(model: MaskGuidedNetwork, images: Tensor, variant: str) -> None:
    image = model(images, K, variant)
    assert image.shape == (2, 3, model.config.scale * HEIGHT, model.config.scale * WIDTH)
    expected = by_hand(model, images, variant)
    assert (image - expected).abs().max() <= 1e-5  # NaN would fail it too
    assert ((expected > 0) & (expected < 1)).float().mean() > 0.3, "where both are clamped, equality proves little"
    changed = (expected - by_hand(model, images, "base")).abs() > 1e-3
    share = {"base": 0, "masked": K * 4 * 4 / (HEIGHT * WIDTH)}.get(variant, 1)
    assert 0.3 * share <= changed.float().mean() <= share, "the variants must be different images"
    if variant == "masked":
        native = "reference" if _native.LIBRARY_ERROR else "cpu"
        assert (last_backend("gather_patches"), last_backend("paste_patches_")) == (native, native)


def reached(output: Tensor, parameters: dict[str, Tensor]) -> set[str]:
    """Names of the parameters that get a gradient that is not zero."""
    noise = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
    gradients = torch.autograd.grad((output * noise).sum(), list(parameters.values()), allow_unused=True)
    found = {name: gradient for name, gradient in zip(parameters, gradients, strict=True) if gradient is not None}
    assert all(gradient.isfinite().all() for gradient in found.values())
    return {name for name, gradient in found.items() if gradient.any()}


def test_gradients_reach_every_parameter_that_should_get_one(one_scale, images, monkeypatch):
    """Through -A: the Refine-Net and what makes the coarse feature, and nothing else, as no coarse pixel is left.

    Through the MP module: the module and what makes the coarse feature. Every other parameter of the Base-Net makes the
    coarse image out of the feature. Every ReLU is leaky here, so that what gets no gradient is cut off, not dead.
    """
    monkeypatch.setattr(F, "relu", lambda x, inplace=False: F.leaky_relu(x, 0.1))
    model = copy.deepcopy(one_scale).requires_grad_(True)
    parameters = dict(model.named_parameters())
    of = {half: {name for name in parameters if name.startswith(half)} for half in ("base.", "mask.", "refine.")}
    _, feature = model.coarse(images)
    trunk = reached(feature, parameters)
    upsampler = reached(model.base.upsample(feature.detach()), parameters)
    assert trunk | upsampler == of["base."]
    assert not trunk & upsampler
    assert reached(model(images, variant="all"), parameters) == trunk | of["refine."]
    _, feature = model.coarse(images)
    assert reached(model.mask(feature), parameters) == trunk | of["mask."]
    assert reached(model(images, K), parameters) == of["base."] | of["refine."], "-M trains all but the mask"


def test_a_saved_model_is_the_same_model(one_scale, images, tmp_path):
    model = one_scale
    save_model(tmp_path / "model.safetensors", model, {}, {})
    loaded = load_model(tmp_path / "model.safetensors")
    assert loaded.config == model.config
    with torch.inference_mode():
        for variant in VARIANTS:
            assert torch.equal(loaded(images, K, variant), model(images, K, variant)), variant


def test_the_masked_path_can_be_exported(one_scale, images):
    model = one_scale
    program = torch.export.export(model, (images, K))
    operators = {str(node.target) for node in program.graph.nodes if str(node.target).startswith("mga.")}
    if _native.LIBRARY_ERROR is None:
        assert {"mga.gather_patches.default", "mga.paste_patches_.default"} <= operators
    other = images.flip(3)  # the trace must not have kept which cells were selected
    assert (program.module()(other, K) - model(other, K)).abs().max() <= 1e-6


def compiled_equals_eager(model: MaskGuidedNetwork, images: Tensor, backend: str) -> None:
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend=backend)  # fullgraph: a graph break is an error
    for given in (images, images.flip(3)):
        assert (compiled(given, K) - model(given, K)).abs().max() <= 1e-5


def test_the_masked_path_compiles_without_graph_breaks(one_scale, images):
    compiled_equals_eager(one_scale, images, "aot_eager" if one_scale.config.network == "fsrcnn" else "eager")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="needs a C++ compiler")
def test_inductor_compiles_the_masked_path(images):
    """One network at one scale: the C++ of all would take minutes."""
    compiled_equals_eager(random_model("fsrcnn", 2), images, "inductor")
