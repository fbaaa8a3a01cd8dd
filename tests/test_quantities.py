"""Numbers of numpy and torch are numbers wherever the package takes one; bools, NaN and infinity are none."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from network_zoo import random_model
from tiny_model import write_tiny_model

from mga_kernels import MaskGuidedSR, quantities
from mga_kernels.checkpoints import load_model
from mga_kernels.errors import InputError
from mga_kernels.export import export_model
from mga_kernels.export.program import facts
from mga_kernels.networks import MaskGuidedNetwork, ModelConfig, WholeConfig
from mga_kernels.networks.amount import Amount
from mga_kernels.system.memory import parse_memory

WHOLE = [int, np.int64, np.int8, np.uint16, lambda n: np.array(n), lambda n: torch.tensor(n)]
REAL = [float, np.float64, np.float32, np.float16, lambda x: np.array(x), lambda x: torch.tensor(x), Fraction]
NEITHER = [True, np.True_, np.array(True), torch.tensor(True), "3", None, [3], np.array([3]), 3j, b"3", Decimal("1.5")]
NOT_FINITE = [math.nan, math.inf, -math.inf, np.float32("nan"), np.array(np.inf), torch.tensor(math.nan)]


@pytest.fixture(scope="module")
def network():
    return random_model("fsrcnn", 2, k=5)


def model_of(network, **settings) -> MaskGuidedSR:
    return MaskGuidedSR(network, device="cpu", runtime="pytorch", **settings)


@pytest.mark.parametrize("kind", WHOLE)
def test_whole_numbers(kind):
    assert (quantities.integer(kind(7)), type(quantities.integer(kind(7)))) == (7, int)
    assert quantities.real(kind(7)) == 7


@pytest.mark.parametrize("kind", REAL)
def test_real_numbers(kind):
    assert (quantities.real(kind(0.25)), type(quantities.real(kind(0.25)))) == (0.25, float)
    assert quantities.integer(kind(4.0)) is None, "it is no whole number by its type"


@pytest.mark.parametrize("value", [*NEITHER, *NOT_FINITE])
def test_what_is_no_number(value):
    assert quantities.real(value) is None
    assert quantities.integer(value) is None


def test_numbers_that_no_float_can_hold():
    assert quantities.real(Fraction(10**400)) is None
    assert quantities.integer(10**400) == 10**400
    assert quantities.real(np.float32(0.575)) == 0.575, "as it is written"


@pytest.mark.parametrize("kind", WHOLE)
def test_amounts_in_whole_numbers(network, kind):
    model = model_of(network, k=kind(7), memory=kind(100) * np.int64(10**7) if kind is not int else 10**9)
    assert (model.k, type(model.k), model.memory) == (7, int, 10**9)
    assert model.grid(kind(20), kind(28)) == (5, 7)
    assert model.resolve_k(kind(20), kind(28), k=kind(3)) == 3
    model.warmup(kind(20), kind(28))
    assert model.info()["prepared"] == ["28x20, K = 7"]
    image = torch.rand(1, 3, 20, 28, generator=torch.Generator().manual_seed(0))
    found = model(image, k=kind(3), selection="random", seed=kind(4))
    assert torch.equal(found, model(image, k=3, selection="random", seed=4))
    assert [r.refined for r in model.upscale_all([np.zeros((8, 8, 3), np.uint8)], ahead=kind(1), savers=kind(2))] == [4]


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16, np.array, torch.tensor, Fraction])
def test_amounts_in_real_numbers(network, kind):
    assert model_of(network, fraction=kind(0.25)).resolve_k(80, 80) == 100
    assert model_of(network, threshold=kind(0.5)).amount == Amount(threshold=0.5)
    assert model_of(network, max_ms=kind(1.5)).amount == Amount(max_ms=1.5)
    assert parse_memory(kind(4096.0)) == 4096
    assert hash(Amount(fraction=kind(0.25))) == hash(Amount(fraction=0.25))


@pytest.mark.parametrize("value", [*(v for v in NEITHER if v is not None), *NOT_FINITE])
@pytest.mark.parametrize("name", ["k", "fraction", "threshold", "max_ms", "memory"])
def test_other_things_are_refused_with_a_sentence(name, value):
    if (name, value) == ("memory", "3"):
        pytest.skip("memory may be a text")
    with pytest.raises(InputError, match="got "):
        parse_memory(value) if name == "memory" else Amount(**{name: value})


@pytest.mark.parametrize("name", ["k", "fraction", "threshold", "max_ms", "memory"])
@pytest.mark.parametrize("value", [-1, np.int64(-1), np.float32(-0.5)])
def test_negative_amounts(name, value):
    if name == "threshold":
        assert Amount(threshold=value).threshold == value
        return
    with pytest.raises(InputError, match="got "):
        parse_memory(value) if name == "memory" else Amount(**{name: value})


@pytest.mark.parametrize("value", [True, np.True_, 0, -1, 2.5, 8.0, np.float32(8), math.nan, math.inf, "8", None])
def test_sizes_that_no_image_has(network, value):
    model = model_of(network)
    for call in (model.grid, model.resolve_k, model.warmup):
        with pytest.raises(InputError, match="height of an image, a whole number of 1 or more, got"):
            call(value, 8)
        with pytest.raises(InputError, match="width of an image, a whole number of 1 or more, got"):
            call(8, value)


@pytest.mark.parametrize("value", [True, np.True_, 1.0, math.nan, "1", -1])
def test_other_counts(network, value):
    model = model_of(network)
    for name in ("ahead", "savers"):
        with pytest.raises(InputError, match=f"number of .*got {value!r}"):
            model.upscale_all([], **{name: value})
    with pytest.raises(InputError, match="seed"):
        model(torch.zeros(1, 3, 8, 8), selection="random", seed=value)


def test_configurations_hold_plain_numbers():
    numbers = {"scale": np.int64(2), "patch_size": np.int8(4), "k": np.uint16(5), "split": np.array([1, 1])}
    config = ModelConfig("fsrcnn", **numbers)
    assert config == ModelConfig("fsrcnn", 2, 4, 5, (1, 1))
    assert ModelConfig.from_json(config.to_json()) == config
    MaskGuidedNetwork(config)
    assert json.loads(WholeConfig("fsrcnn", np.int64(2), np.int32(3)).to_json())["blocks"] == 3
    for wrong in ({"scale": True}, {"scale": 2.5}, {"k": True}, {"k": 2.0}, {"split": (True, 1)}, {"split": (1.0, 1)}):
        with pytest.raises(InputError):
            ModelConfig("fsrcnn", **{"scale": 2} | wrong)


def test_texts_that_are_no_memory():
    assert [parse_memory(text) for text in ("8GiB", "500 MB", "1.5g", "4096")] == [8 << 30, 500_000_000, 3 << 29, 4096]
    for text in ("", "GiB", "-1GiB", "nan", "inf", "1e9", "0", "9" * 400 + "GiB", "1 2", "0x10"):
        with pytest.raises(InputError, match="memory: expected"):
            parse_memory(text)


def test_exports_take_them_too(tmp_path):
    file = write_tiny_model(tmp_path / "tiny.safetensors")
    written = export_model(file, tmp_path / "a.pt2", k=np.int64(2))
    assert json.loads(json.dumps(written)) == facts(load_model(file), Amount(k=2))
