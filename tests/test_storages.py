"""In which storage a network runs in our convolutions: what its class declares, the processor and a dtype say."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from network_zoo import ROOT, random_model
from PIL import Image
from test_classes import network_of as network_of_classes

from mga_kernels import MaskGuidedSR, info
from mga_kernels.architectures.fsrcnn.cpu import FsrcnnWeights
from mga_kernels.architectures.imdn.cpu import ImdnWeights
from mga_kernels.architectures.msrresnet.cpu import MsrresnetWeights
from mga_kernels.architectures.rfdn.cpu import RfdnWeights
from mga_kernels.checkpoints import shipped_models
from mga_kernels.errors import InputError
from mga_kernels.networks import RegionConfig, RegionNetwork, WholeConfig, WholeNetwork
from mga_kernels.networks.registry import package_networks
from mga_kernels.runtimes.cpu import choose

TOLD = """
import json
from mga_kernels import MaskGuidedSR, info
from mga_kernels.checkpoints import shipped_models
told = {name: MaskGuidedSR.from_pretrained(name, device="cpu").info() for name in shipped_models()}
print(json.dumps([info.collect()["cpu"]["kernels"]["convolutions"], told]))
"""


def whole(kind: str, scale: int = 4, **settings) -> WholeNetwork:
    torch.manual_seed(1)
    return WholeNetwork(WholeConfig(kind, scale, 2, settings)).eval().requires_grad_(False)


def in_regions(kind: str = "msrresnet") -> RegionNetwork:
    torch.manual_seed(1)
    return RegionNetwork(RegionConfig(WholeConfig("compact", 4, 1, {"channels": 16}), WholeConfig(kind, 4, 2))).eval()


WITH_BOTH = {  # with both plans, and the classes that declare which is faster
    "halves": (RfdnWeights, lambda: random_model("rfdn", 4)),
    "cut in two": (MsrresnetWeights, lambda: random_model("msrresnet-split", 4)),
    "gated": (ImdnWeights, lambda: random_model("imdn", 4)),
    "whole": (MsrresnetWeights, lambda: whole("msrresnet")),
    "classes": (FsrcnnWeights, network_of_classes),
}
ONLY_MAPS = {"span": lambda: whole("span"), "compact": lambda: whole("compact"), "regions": in_regions}


def storage_of(network, **settings) -> str:
    """By its first words how it runs photographs."""
    told = str(MaskGuidedSR(network, device="cpu", **settings).info()["photographs"])
    assert "in convolutions of our own (" in told
    return told.partition(" ")[0].strip(",")


@pytest.mark.parametrize("isa", [None, "avx2", "avx512", "avx512_bf16", "neon"])
def test_every_shipped_model_runs_in_convolutions_of_our_own(forks, isa):
    """On each instruction set that has fast ones, in a process of its own."""
    result = forks.result(TOLD, MGA_CPU_ISA=isa, MGA_BACKEND=None)
    if "has no such instruction set" in result.stderr:
        pytest.skip(f"this processor has no {isa}")
    assert result.returncode == 0, result.stderr
    kernels, told = json.loads(result.stdout)
    if " slow" in kernels:
        pytest.skip(kernels)
    assert list(told) == list(shipped_models())
    of_maps = f"float32, in convolutions of our own ({kernels.partition(' in float32')[0]} kernels)"
    of_pairs = "bfloat16 with float32 sums, in convolutions of our own (avx512_bf16 kernels)"
    for name, facts in told.items():
        assert facts["why not"] == [], name
        run = facts["photographs"].removesuffix(", in regions")
        assert run in (of_maps, *([of_pairs] if "in bfloat16" in kernels else [])), name
        if not name.startswith(("fsrcnn", "rfdn")):
            assert run == of_maps


@pytest.mark.parametrize("faster", choose.STORAGES)
@pytest.mark.parametrize("name", WITH_BOTH)
def test_the_class_of_a_network_says_which_storage_is_faster(monkeypatch, name, faster):
    kind, network = WITH_BOTH[name]
    monkeypatch.setattr(choose, "slow", lambda kept: None)
    monkeypatch.setattr(kind, "faster", faster)
    assert storage_of(network()) == faster


def test_every_network_names_a_storage_that_there_is():
    named = {
        one.part("cpu").faster
        for network in package_networks()
        for one in (network, network.cut())
        if one is not None and one.cpu
    }
    assert named <= set(choose.STORAGES)


@pytest.mark.parametrize("slow", [None, 'it is slow; runtime="own" runs them all the same'], ids=["fast", "slow"])
@pytest.mark.parametrize("name", ONLY_MAPS)
def test_networks_without_a_plan_in_pairs_run_in_maps(monkeypatch, name, slow):
    """Where bfloat16 is slow, too, nothing is promised of ``runtime="own"`` that it does not keep."""
    monkeypatch.setattr(choose, "slow", lambda kept: slow if kept.narrow else None)
    assert storage_of(ONLY_MAPS[name]()) == "float32"
    said = "there are none in bfloat16 for "
    with pytest.raises(InputError, match=said):
        MaskGuidedSR(ONLY_MAPS[name](), device="cpu", runtime="own", dtype="bfloat16")
    told = MaskGuidedSR(ONLY_MAPS[name](), device="cpu", dtype="bfloat16").info()
    assert str(told["why not"][0]).startswith(f"a plan of our own: {said}")
    assert str(told["photographs"]).startswith("bfloat16, in ")


@pytest.mark.parametrize("name", WITH_BOTH)
def test_a_storage_is_only_taken_where_its_kernels_are_fast(monkeypatch, name):
    kind, network = WITH_BOTH[name]
    for faster, fast in (("bfloat16", "float32"), ("float32", "bfloat16")):
        monkeypatch.setattr(kind, "faster", faster)
        monkeypatch.setattr(choose, "slow", lambda kept, fast=fast: None if kept.name == fast else "they are slow")
        assert storage_of(network()) == storage_of(network(), runtime="own") == fast
    monkeypatch.setattr(choose, "slow", lambda kept: f"{kept.name} is slow")
    told = MaskGuidedSR(network(), device="cpu").info()["why not"]
    assert "a plan of our own: float32 is slow" in told
    assert storage_of(network(), runtime="own") == "float32", "the less slow one"
    assert storage_of(network(), runtime="own", dtype="bfloat16") == "bfloat16"


@pytest.mark.parametrize("name", WITH_BOTH)
def test_a_dtype_that_is_asked_for_decides(monkeypatch, name):
    kind, network = WITH_BOTH[name]
    monkeypatch.setattr(choose, "slow", lambda kept: None)
    for faster in choose.STORAGES:
        monkeypatch.setattr(kind, "faster", faster)
        assert [storage_of(network(), dtype=dtype) for dtype in choose.STORAGES] == list(choose.STORAGES)
    told = MaskGuidedSR(network(), device="cpu", dtype="float16").info()
    assert told["photographs"] == "float16, in PyTorch"
    assert told["why not"][0] == "a plan of our own: dtype float16 was asked for"


@pytest.mark.parametrize("name", shipped_models())
def test_float32_is_what_pytorch_makes_of_it(name):
    """Of a photograph. A value that is other by a share of a level becomes another byte with this probability, so that
    2 of 10,000 bytes that are other by one are what an error of 1e-6 in 0..1 leads to. Of regions all cells are
    compared, since the definition's halo is larger than that of any plan."""
    photo = np.array(Image.open(ROOT / "python/mga/assets/demo.png").convert("RGB"))[200:360, 300:480]
    amount = {"fraction": 1.0} if name.endswith("-regions") else {}
    own, exact = (
        MaskGuidedSR.from_pretrained(name, device="cpu", dtype="float32", runtime=runtime, **amount)
        for runtime in ("own", "pytorch")
    )
    assert str(own.info()["photographs"]).startswith(choose.described(choose.STORAGES["float32"]))
    difference = np.abs(own.upscale(photo).astype(int) - exact.upscale(photo))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 2e-4


def test_what_runs_is_said_of_the_processor():
    told = info.collect()["cpu"]["kernels"]["convolutions"]
    fast = [kept for kept in choose.STORAGES.values() if choose.slow(kept) is None]
    assert told == " and ".join(f"{kept.kernels()} in {kept.name}" for kept in fast) or not fast
