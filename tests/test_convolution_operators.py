"""The operators of the CPU convolutions: kernels against definitions bit by bit, records, and who decides what runs."""

import dataclasses

import pytest
import torch
from network_zoo import random_model
from operator_cases import convolution_cases
from pair_layers import planes_of, poisoned, rounded
from torch import nn

from mga_kernels import _native, ops, records, runtimes
from mga_kernels.architectures.rfdn.cpu import RfdnWeights
from mga_kernels.errors import BackendError, InputError
from mga_kernels.ops.convolution import weight as packing
from mga_kernels.runtimes.cpu import choose, pairs
from mga_kernels.runtimes.cpu.chains import PairChain
from mga_kernels.runtimes.cpu.layers import Conv, Scale
from mga_kernels.runtimes.cpu.pairs import Grid, Planes
from mga_kernels.runtimes.cpu.stages import Stage
from mga_kernels.runtimes.cpu.storage import Chain

CONVOLUTION = sorted(convolution_cases(torch.Generator()))


@pytest.fixture
def both(monkeypatch):
    """both(run) calls ``run`` by the kernels and by the definitions, and gives what it returns."""

    def run_both(run):
        results = []
        for backend in ("cpu", "reference"):
            monkeypatch.setenv("MGA_BACKEND", backend)
            torch.manual_seed(5)
            results.append(run())
            assert ops.last_backend("pair_chain_") == backend
        monkeypatch.delenv("MGA_BACKEND")
        return results

    return run_both


def conv(outputs, inputs, size, **settings):
    factors = {"bias": torch.randn(outputs), "slope": torch.rand(outputs)}
    return Conv(rounded(outputs, inputs, size, size, scale=0.3), **{**factors, **settings})


def run_chain(stages, channels, size=(7, 37), scale=1, planes=8, kept="out", grid=None, **settings):
    """Planes of ``planes`` channels, or what ``kept`` is; with their borders, and what is measured."""
    grid = grid or Grid(1, size)
    x = planes_of(rounded(channels, grid.height, grid.width))
    skip = planes_of(rounded(planes, grid.height * scale, grid.width * scale))
    out = poisoned(planes, grid.height * scale, grid.width * scale) if isinstance(kept, str) else kept
    used = {part for stage in stages for part in (stage.x, stage.out, stage.skip)}
    external = [name for name in ("x", "skip", "out") if name in used]
    measured = PairChain(stages, external)(grid, {"x": x, "skip": skip, "out": out}, **settings)
    return out.data, *measured


STAGES = {
    "1x1": lambda: [Stage(conv(8, 6, 1), "x", "out")],
    "3x3 of odd channels": lambda: [Stage(conv(7, 5, 3), "x", "out")],
    "5x5 with a skip": lambda: [Stage(conv(8, 6, 5), "x", "out", "skip")],
    "9x9 less a shift": lambda: [Stage(conv(8, 4, 9, shift=torch.randn(8)), "x", "out")],
    "blocks of unequal size": lambda: [Stage(conv(26, 6, 3), "x", "hidden"), Stage(conv(8, 26, 1), "hidden", "out")],
    "factors": lambda: [Stage(conv(8, 6, 1), "x", "hidden"), Stage(Scale(8, 0.2), "hidden", "out", "skip")],
    "rings": lambda: [
        Stage(conv(12, 6, 3), "x", "first"),
        Stage(conv(6, 12, 5), "first", ("second", 2)),
        Stage(conv(2, 12, 1), "first", "second"),
        Stage(conv(8, 8, 3), "second", "out", "skip"),
    ],
}


@pytest.mark.parametrize("name", STAGES)
def test_a_chain_is_its_definition(name, both):
    found, expected = both(lambda: run_chain(STAGES[name](), int(STAGES[name]()[0].layer.inputs)))
    assert found[0].isfinite().all()
    assert found[0][:, 1:-1].count_nonzero() > 100
    assert torch.equal(found[0], expected[0])


@pytest.mark.parametrize("enlarged", [False, True])
@pytest.mark.parametrize("shuffle", [2, 3])
def test_a_shuffle_is_its_definition(shuffle, enlarged, both):
    def run():
        if enlarged:
            layer = Conv.of_enlarged(nn.Conv2d(6, 8, 3), shuffle, 0.2)
        else:
            layer = conv(8 * shuffle**2, 6, 3, shuffle=shuffle)
        return run_chain([Stage(layer, "x", "out")], 6, scale=shuffle)

    found, expected = both(run)
    assert torch.equal(found[0], expected[0])


def test_numbers_at_the_edge_of_their_range_are_those_of_the_definition(both):
    """Denormal products and sums, and infinities."""

    def run():
        layer = Conv(rounded(8, 6, 3, 3) * 2.0 ** torch.randint(-70, 60, (8, 6, 3, 3)))
        grid, out = Grid(1, (7, 37)), poisoned(8, 7, 37)
        x = planes_of(rounded(6, 7, 37) * 2.0 ** torch.randint(-70, 70, (6, 7, 37)))
        PairChain([Stage(layer, "x", "out")], ["x", "out"])(grid, {"x": x, "out": out})
        return (out.data,)

    found, expected = both(run)
    assert torch.equal(found[0], expected[0])


def test_a_gate_is_its_definition_but_for_the_sigmoid(both):
    found, expected = both(lambda: run_chain([Stage(conv(8, 6, 3), "x", "out", "skip", gate=True)], 6))
    torch.testing.assert_close(found[0], expected[0], rtol=2**-7, atol=0)


def test_measured_sums_are_those_of_the_definition(both):
    found, expected = both(lambda: run_chain([Stage(conv(8, 6, 3), "x", "out", measure=True)], 6, (20, 70)))
    assert torch.equal(found[0], expected[0])
    torch.testing.assert_close(found[1], expected[1], rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
@pytest.mark.parametrize("added", [False, True])
def test_pictures_are_those_of_the_definition(scale, added, both):
    if added and scale == 1:
        pytest.skip("an image that is added is enlarged")

    def run():
        layer = conv(3 * scale**2, 6, 3, slope=1.0, floats=True)
        picture = torch.full((1, 7 * scale, 37 * scale, 3), 99, dtype=torch.uint8)
        image = torch.randint(256, (7, 37, 3), dtype=torch.uint8) if added else None
        return run_chain([Stage(layer, "x", "out", enlarge=scale)], 6, kept=picture, added=image, gain=0.3)

    found, expected = both(run)
    assert found[0].float().std() > 30
    assert torch.equal(found[0], expected[0])


def test_float_planes_and_masks_are_those_of_the_definition(both):
    def run():
        floats = torch.full((3, 7, 37), 99.0)
        rows, columns = torch.arange(7) % 2, torch.arange(37) % 5 > 0
        masks = {"hidden": (pairs.lanes(columns), rows.to(torch.uint8))}
        stages = [Stage(conv(8, 6, 3), "x", "hidden"), Stage(conv(3, 8, 3, floats=True), "hidden", "out")]
        return run_chain(stages, 6, kept=floats, masks=masks)

    found, expected = both(run)
    assert torch.equal(found[0], expected[0])


def test_patches_in_a_grid_are_those_of_the_definition(both):
    def run():
        grid = Grid(7, (6, 6), 3)
        stages = [
            Stage(Conv.of_enlarged(nn.Conv2d(6, 8, 3), 2), "x", "large", crop=True),
            Stage(conv(3, 8, 3, floats=True), "large", "out", crop=True),
        ]
        return run_chain(stages, 6, grid=grid, kept=torch.full((7, 8, 8, 3), 99, dtype=torch.uint8))

    found, expected = both(run)
    assert torch.equal(found[0], expected[0])


@pytest.mark.parametrize(
    ("shape", "shuffle", "phased"),
    [
        ((8, 6, 3, 3), 1, False),
        ((3, 5, 9, 9), 1, False),
        ((26, 7, 1, 1), 1, False),
        ((72, 4, 3, 3), 3, False),
        ((104, 6, 3, 3), 2, False),
        ((32, 5, 3, 3), 2, True),
        ((72, 6, 3, 3), 3, True),
    ],
)
def test_packed_weights_are_those_of_the_definition(shape, shuffle, phased):
    weight = rounded(*shape).bfloat16()
    backends = ops.operators()["pack_pair_weight"].backends
    packed = backends["cpu"].run(weight, shuffle, phased)
    assert torch.equal(packed, backends["reference"].run(weight, shuffle, phased))
    unpacked = packing.unpack(packed, shape[0] // shuffle**2, shape[2], shuffle, phased)
    kept = unpacked[:, : shape[1]]
    assert torch.equal(kept[kept != 0], weight[kept != 0])
    assert ((kept == 0).float().mean() > 0.3) == phased


@pytest.mark.parametrize(
    ("shape", "shuffle", "phased"),
    [((8, 5, 3, 3), 1, False), ((24, 6, 3, 3), 2, False), ((16, 6, 3, 3), 2, True), ((36, 7, 3, 3), 3, True)],
)
def test_the_fake_weight_has_the_size_of_the_packed_one(shape, shuffle, phased):
    with torch._subclasses.FakeTensorMode():
        fake = torch.ops.mga.pack_pair_weight(torch.empty(shape, dtype=torch.bfloat16), shuffle, phased)
    assert fake.shape == ops.pack_pair_weight(torch.zeros(shape, dtype=torch.bfloat16), shuffle, phased).shape


@pytest.mark.parametrize("op", [op for op in CONVOLUTION if op not in ("pair_chain_", "convolve_maps_")])
def test_opcheck(op, generator):
    arguments = convolution_cases(generator)[op]
    assert set(torch.library.opcheck(getattr(torch.ops.mga, op).default, arguments).values()) == {"SUCCESS"}


@pytest.mark.parametrize("op", ["pair_chain_", "convolve_maps_"])
def test_opcheck_of_layers(op, generator, monkeypatch):
    """With the arguments that the operator of torch gets."""
    seen, arguments = [], convolution_cases(generator)[op]
    monkeypatch.setattr(_native, "call", lambda op, *given: seen.append(given))
    ops.operators()[op].backends["cpu"].run(*arguments)
    tests = ("test_schema", "test_faketensor")
    report = torch.library.opcheck(getattr(torch.ops.mga, op).default, seen[0], test_utils=tests)
    assert set(report.values()) == {"SUCCESS"}


def test_the_library_has_the_records_of_python():
    for name, kind in records.RECORDS.items():
        assert set(torch.ops.mga.record_fields(name).split()) == {field.name for field in dataclasses.fields(kind)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda fields: fields.replace("lead ", ""), r"record 'stage' .* \(lead\)"),
        (lambda fields: f"{fields} tempo" if "lead" in fields else fields, r"record 'stage' .* \(tempo\)"),
        (lambda fields: fields.replace("inset", "margin"), r"record 'frame' .* \(inset, margin\)"),
        (lambda fields: fields.replace("mask", "mask mask"), r"record 'slot' .* \(one twice\)"),
        (lambda fields: "", r"record 'slot' .* \(mask, pairs, rows, scale\)"),
    ],
)
def test_a_library_with_other_records_is_not_used(monkeypatch, change, message):
    original = torch.ops.mga.record_fields
    monkeypatch.setattr(torch.ops.mga, "record_fields", lambda name: change(original(name)))
    reason = _native._load_library()
    assert reason.startswith("the native library was built from other sources than this Python")
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(reason)
    assert reason.endswith(_native.REMEDY)


def test_numbers_follow_the_order_of_the_library(monkeypatch):
    slot = records.SlotRecord(scale=1, mask=2, pairs=3, rows=4)
    monkeypatch.setattr(records, "_numbers", records._numbers.copy())
    names = {name: [field.name for field in dataclasses.fields(kind)] for name, kind in records.RECORDS.items()}
    for order, numbers in ((list, [1, 2, 3, 4]), (reversed, [4, 3, 2, 1])):
        assert records.adopt(lambda name, order=order: " ".join(order(names[name]))) is None
        assert records.encode([slot, slot]) == numbers * 2


@pytest.mark.parametrize(("dtype", "op"), [(torch.float32, "convolve_maps_"), (torch.bfloat16, "pair_chain_")])
def test_the_variable_of_the_backends_reaches_the_convolutions(monkeypatch, dtype, op):
    network = random_model("rfdn", 4)
    monkeypatch.setenv("MGA_BACKEND", "reference")
    assert all("MGA_BACKEND is reference" in choose.slow(kept) for kept in choose.STORAGES.values())
    weights, _ = runtimes.prepare(network, torch.device("cpu"), dtype, "own")
    assert weights.description.endswith("(reference kernels, slow)")
    plan = weights.plan(24, 32, 2)
    plan.coarse(torch.randint(256, (24, 32, 3), dtype=torch.uint8), None)
    assert ops.last_backend(op) == "reference"
    monkeypatch.setenv("MGA_BACKEND", "cuda")
    with pytest.raises(BackendError, match=f"MGA_BACKEND=cuda: {op} has only cpu, reference"):
        plan.coarse(torch.randint(256, (24, 32, 3), dtype=torch.uint8), None)


def test_gradients_are_refused_by_the_kernels():
    reason = ops.operators()["pair_chain_"].backends["cpu"].can_run([torch.ones(1, requires_grad=True)], [])
    assert "no backward" in reason


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stages": []}, "0 stages, 1 weights and 1 epilogues"),
        ({"slots": [records.SlotRecord(1)]}, "2 tensors for 1 slots"),
        ({"slots": [records.SlotRecord(1, mask=0), records.SlotRecord(1)]}, "a slot names mask 0 of 0"),
        ({"stages": [records.StageRecord(0, 0, 2, 0, 3)]}, "stage 0 names slots that there are not"),
        ({"stages": [records.StageRecord(0, 0, 1, 0, 4)]}, "the kernel size must be 1, 3, 5 or 9"),
        ({"stages": [records.StageRecord(0, 0, 1, 0, 3, statistics=1)]}, "numbered 0, 1, ... without a gap"),
        ({"tensors": [torch.zeros(3), torch.zeros(3).bfloat16()]}, "bfloat16 tensors must be pair planes"),
        ({"tensors": [torch.zeros(3).double()] * 2}, "tensors must be planes, float32 or uint8"),
    ],
)
def test_chains_that_make_no_sense_are_refused(change, message):
    layer, planes = Conv(rounded(4, 6, 3, 3)), Planes(6, 5, 20)
    given = {
        "tensors": [planes.data, Planes(4, 5, 20).data],
        "slots": [records.SlotRecord(1), records.SlotRecord(1)],
        "masks": [],
        "weights": [pairs.pack(layer).weight],
        "epilogues": [pairs.pack(layer).epilogue],
        "stages": [records.StageRecord(0, 0, 1, 0, 3)],
        "frame": records.FrameRecord(5, 20),
    }
    ops.pair_chain_(**given)
    with pytest.raises(InputError, match=message):
        ops.pair_chain_(**{**given, **change})


def reached(value: object, seen: set[int]) -> set[Chain]:
    """All chains in an object, its attributes and what these hold."""
    if id(value) in seen or isinstance(value, nn.Module | torch.Tensor | type):
        return set()
    seen.add(id(value))
    if isinstance(value, Chain):
        return {value}
    held = (
        value
        if isinstance(value, list | tuple | set)
        else list(vars(value).values() if hasattr(value, "__dict__") else ())
    )
    held = list(value.values()) if isinstance(value, dict) else held
    return set().union(*(reached(item, seen) for item in held))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("network", "scale"),
    [
        ("rfdn", 4),
        ("fsrcnn", 4),
        ("pan", 4),
        ("pan", 3),
        ("rcan", 4),
        ("imdn", 4),
        ("srresnet", 4),
        ("srresnet", 2),
        ("pan-split", 4),
        ("pan-split", 3),
        ("msrresnet-split", 4),
    ],
)
def test_a_plan_lists_all_its_chains(network, scale, dtype):
    """By which the memory of their rings is estimated; found here by looking at everything that the weights hold."""
    weights, _ = runtimes.prepare(random_model(network, scale), torch.device("cpu"), dtype, "own")
    listed = weights.chains
    assert len(listed) == len(set(listed))
    assert set(listed) == reached(weights, set())


def test_rings_take_what_the_largest_chain_has_for_each_thread():
    weights = RfdnWeights(random_model("rfdn", 4).halves(), choose.STORAGES["bfloat16"])
    plan, rings = weights.plan(12, 100, 3), [chain.ring_bytes(100) for chain in weights.chains]
    assert weights.room_bytes(plan) == torch.get_num_threads() * max(rings)
