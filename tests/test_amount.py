"""How much is refined: a threshold of the mask, and what measuring chooses (with a clock of the test's own)."""

import json
import logging
import math
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_model import write_tiny_model

from mga.cli import main
from mga_kernels import MaskGuidedSR, ops
from mga_kernels.engine import choice, timings
from mga_kernels.engine.choice import largest_k
from mga_kernels.errors import InputError, OutOfMemoryError
from mga_kernels.networks import MaskGuidedNetwork, ModelConfig
from mga_kernels.networks.amount import Amount, above
from mga_kernels.ops.gather_patches import reference as gathering
from mga_kernels.ops.paste_patches import reference as pasting
from mga_kernels.runtimes import plan as plan_module
from mga_kernels.runtimes.pytorch.modules import ModulePlan, ModulePlanner

SIZE = 40, 52  # 10 x 13 cells
CELLS = 130


def network(**settings) -> MaskGuidedNetwork:
    torch.manual_seed(3)
    made = MaskGuidedNetwork(ModelConfig("fsrcnn", 2, **settings)).eval().requires_grad_(False)
    made.mask.conv2.weight.mul_(20)
    return made


def model_of(made: MaskGuidedNetwork, **settings) -> MaskGuidedSR:
    """Run by PyTorch's modules, whose plan these tests watch."""
    return MaskGuidedSR(made, **{"device": "cpu", "runtime": "pytorch", "dtype": "float32"} | settings)


def picture(height: int = SIZE[0], width: int = SIZE[1], seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """An empty cache file of the test's own."""
    monkeypatch.setenv("MGA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(choice, "TIMINGS", timings.Timings())
    return tmp_path / "cache" / "timings.json"


class Clock:
    """Time that passes only in plans: ``base_ms`` an image and ``cell_ms`` a refined cell; ``dense_ms`` for -D."""

    def __init__(self, base_ms: float = 2.0, cell_ms: float = 0.05, dense_ms: float = 8.0):
        self.now, self.runs = 0.0, 0
        self.base_ms, self.cell_ms, self.dense_ms = base_ms, cell_ms, dense_ms

    def spend(self, milliseconds: float) -> None:
        self.now, self.runs = self.now + milliseconds / 1000, self.runs + 1


@pytest.fixture
def clock(monkeypatch) -> Clock:
    made = Clock()
    run, dense = ModulePlan.run, ModulePlan.dense

    def timed_run(self, *arguments, **named):
        made.spend(made.base_ms + made.cell_ms * self.capacity)
        return run(self, *arguments, **named)

    def timed_dense(self, *arguments, **named):
        made.spend(made.dense_ms)
        return dense(self, *arguments, **named)

    monkeypatch.setattr(ModulePlan, "run", timed_run)
    monkeypatch.setattr(ModulePlan, "dense", timed_dense)
    monkeypatch.setattr(timings, "ENOUGH", 0)
    monkeypatch.setattr(timings, "time", SimpleNamespace(perf_counter=lambda: made.now))
    return made


@pytest.mark.parametrize(
    "arguments",
    [
        {"threshold": math.nan},
        {"threshold": "high"},
        {"threshold": True},
        {"threshold": 0.5, "fraction": 0.5},
        {"max_ms": 0},
        {"max_ms": -1},
        {"max_ms": math.inf},
        {"max_ms": 5, "k": 3},
        {"max_ms": 5, "threshold": 0.1},
        {"max_ms": 5, "fraction": 0.1},
    ],
)
def test_impossible_amounts_are_refused(arguments):
    with pytest.raises(InputError, match="K: "):
        model_of(network(), device="cpu", **arguments)


def test_what_is_counted_without_looking():
    assert [Amount(**given).count(80, 50) for given in ({}, {"k": 7}, {"k": 99}, {"fraction": 0.5})] == [50, 7, 80, 40]
    assert Amount(fraction=0.575).count(100, 50) == 58  # 57.5, of which the even neighbour
    assert [Amount(threshold=0.1).count(80, 50), Amount(k=9, threshold=0.1).count(80, 50)] == [50, 9]
    assert not Amount()
    assert all([Amount(k=0), Amount(fraction=0.0)])


def test_above_in_both_forms():
    mask = torch.tensor([[[0.1, 0.5, 0.9], [0.5, math.nan, 0.7]]])
    indices = torch.tensor([[0, 1, 2, 4, 5]], dtype=torch.int32)
    assert above(mask, indices, 0.5).tolist() == [[2, 5]]
    assert above(mask, indices, 0.5, static=True).tolist() == [[-1, -1, 2, -1, 5]]
    assert above(mask, indices, 1.0).shape == (1, 0)


@pytest.fixture(params=["cpu", "device"])
def way(request, monkeypatch):
    """``above`` as on a CPU, or as on a GPU with the operators as their definition is there."""
    if request.param == "device":
        monkeypatch.setenv("MGA_BACKEND", "reference")
        monkeypatch.setattr(plan_module, "above", partial(above, static=True))
        for module in (gathering, pasting):
            monkeypatch.setattr(module, "check_inside", lambda *_: None)
    return request.param


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_only_cells_above_the_threshold_change(way, monkeypatch, share):
    plan = ModulePlanner(network()).plan(*SIZE, 60)
    image = torch.from_numpy(picture())
    with torch.inference_mode():
        coarse = plan.run(image, k=0).clone()
        whole = plan.buffer()
        plan.coarse(image, whole)
        mask, indices = plan.select(60)
    values = mask.flatten()[indices[0].long()]
    wanted = round(share * 60)
    plan.threshold = float(values.sort(descending=True).values[wanted]) if wanted < 60 else -1e9
    expected = indices[:, values > plan.threshold]
    assert expected.shape[1] == wanted
    with torch.inference_mode():
        if wanted:
            plan.refine(expected, whole)
    expected_picture = plan.crop(whole).clone()

    gathered = []
    gather = plan.gather
    monkeypatch.setattr(plan, "gather", lambda cells: (gathered.append(cells.shape[1]), gather(cells)))
    found = plan.run(image)
    assert torch.equal(found, expected_picture)
    assert torch.equal(found, coarse) == (wanted == 0)
    assert plan.chosen() == wanted
    assert gathered == {"cpu": [wanted] if wanted else [], "device": [60]}[way]
    if way == "device":
        assert ops.last_backend("paste_patches_") == "reference"


def test_photographs_and_tensors_with_a_threshold():
    image = picture()
    plain = model_of(network(), device="cpu", k=50).explain(image)
    threshold = float(np.median(plain.mask.ravel()[plain.indices]))
    expected = plain.indices[plain.mask.ravel()[plain.indices] > threshold]
    assert 20 < len(expected) < 30

    model = model_of(network(), device="cpu", k=50, threshold=threshold)
    assert model.resolve_k(*SIZE) == 50
    made = model.upscale(image, return_result=True)
    assert made.refined == len(expected)
    result = made.image
    told = model.explain(image)
    assert np.array_equal(told.indices, expected)
    assert np.array_equal(told.image, result)
    assert model.info()["prepared"] == [f"52x40, K <= 50 above {threshold:g}"]
    cells = (plain.image != plain.coarse).any(axis=2).reshape(10, 8, 13, 8).any(axis=(1, 3)).ravel()
    changed = (result != plain.coarse).any(axis=2).reshape(10, 8, 13, 8).any(axis=(1, 3)).ravel()
    assert np.flatnonzero(changed).tolist() == [i for i in expected if cells[i]]

    tensors = torch.stack([torch.from_numpy(picture(seed=s)).permute(2, 0, 1) / 255 for s in (1, 2)])
    together = model(tensors)
    assert np.array_equal((together[0].permute(1, 2, 0) * 255).round().byte().numpy(), result)
    assert (together[1] - model(tensors[1:])[0]).abs().max() <= 1e-6
    assert not torch.equal(together[1], model(tensors[1:], k=50)[0]), "k in a call is without the threshold"


@pytest.mark.parametrize(("milliseconds", "runs"), [(200, 3), (50, 3), (14, 6), (1, 20)])
def test_measuring_takes_turns_and_the_median(monkeypatch, milliseconds, runs):
    now, calls = 0.0, []

    def call(name, times):
        def run():
            nonlocal now
            now += next(times) / 1000
            calls.append(name)

        return run

    monkeypatch.setattr(timings, "time", SimpleNamespace(perf_counter=lambda: now))
    slow_start = iter([9000, *[milliseconds] * 30])
    outlier = iter([9000, 2 * milliseconds, 7 * milliseconds, *[2 * milliseconds] * 30])
    found = timings.measure(call("a", slow_start), call("b", outlier))
    assert found == pytest.approx([milliseconds, 2 * milliseconds])
    assert "".join(calls).startswith("abab")
    assert 4 <= len(calls) / 2 == 1 + runs


def line(base, cell, cells=10**9):
    return lambda k: base + cell * min(k, cells)


@pytest.mark.parametrize(
    ("time_of", "first", "cells", "limit", "expected"),
    [
        (line(10, 0.01), 1000, 32400, 100, (8600, 9000)),
        (line(10, 0.01), 1000, 32400, 12, (164, 200)),  # below the first
        (line(10, 0.01), 1000, 5000, 100, (5000, 5000)),  # all cells
        (line(10, 0.01), 1000, 700, 100, (700, 700)),
        (line(10, 0.01), 1000, 5000, 9, (0, 0)),  # not even none
        (line(10, 5), 1000, 5000, 13, (0, 0)),  # not even one
        (lambda k: 10 + 0.32 * math.ceil(k / 32), 1000, 32400, 100, (8600, 9000)),  # in steps
        (lambda k: math.inf if k > 3000 else 10 + 0.01 * k, 1000, 32400, 100, (1000, 3000)),  # memory ends
        (lambda k: 10 - 0.001 * k, 1000, 5000, 100, (5000, 5000)),  # noise
        (lambda k: 10 + 140 * math.sqrt(k / 280), 1 << 40, 280, 60, (20, 35)),  # neighbours share halos
        (lambda k: 10 + 140 * math.sqrt(k / 280), 1 << 40, 280, 30, (3, 5)),
        (lambda k: 10 + 140 * math.sqrt(k / 280), 1 << 40, 280, 120, (120, 172)),
    ],
)
def test_the_largest_k_for_a_time(time_of, first, cells, limit, expected):
    k, times = largest_k(time_of, first, cells, limit)
    assert expected[0] <= k <= expected[1]
    assert k == 0 or times[k] == time_of(k) <= limit, "K was measured"
    assert len(times) <= 1 + choice.TRIES


def test_a_time_decides_k_once_for_each_size(clock, cache):
    model = model_of(network(k=40), device="cpu", max_ms=5.0)  # (5 - 2) / 0.05 = 60 cells
    image = picture()
    made = model.upscale(image, return_result=True)
    result, k = made.image, made.refined
    assert 57 <= k <= 60
    assert model.resolve_k(*SIZE) == k
    assert model.info()["prepared"] == [f"52x40, K = {k}"]
    assert np.array_equal(result, model_of(network(), device="cpu", k=k).upscale(image))

    choice.TIMINGS = timings.Timings()  # as in another process
    clock.runs = 0
    again = model_of(network(k=40), device="cpu", max_ms=5.0)
    assert again.resolve_k(*SIZE) == k
    assert clock.runs == 0, "it was known from the file"
    for other in (
        model_of(network(k=40), device="cpu", max_ms=6.0),
        model_of(network(k=40), device="cpu", max_ms=5.0, dtype="bfloat16"),
        model_of(network(k=41), device="cpu", max_ms=5.0),
    ):
        clock.runs = 0
        assert other.resolve_k(*SIZE) >= 57
        assert clock.runs > 0
    clock.runs = 0
    assert again.resolve_k(8, 8) == 4, "all cells"
    assert clock.runs > 0
    assert len(json.loads(cache.read_text())["entries"]) == 5


def test_a_time_too_short_is_k_0_and_a_warning(clock):
    model = model_of(network(), device="cpu", max_ms=1.5)
    with pytest.warns(UserWarning, match=r"max_ms = 1.5: an image of 52x40 takes 2 ms .* K = 0"):
        result = model.upscale(picture(), return_result=True)
    assert result.refined == 0
    assert np.array_equal(result.image, model_of(network(), device="cpu", k=0).upscale(picture()))


def test_images_that_do_not_fit_are_no_k_0(clock, monkeypatch):
    def refuse(*_):
        raise OutOfMemoryError("too large")

    model = model_of(network(), device="cpu", max_ms=5.0)
    monkeypatch.setattr(model._runner.planner, "plan", refuse)
    with pytest.raises(OutOfMemoryError):
        model.upscale(picture())


@pytest.mark.parametrize("content", ["", "[]", '{"format": 1}', '{"format": 1, "entries": 3}', "\xff\xfe", "entry"])
def test_a_damaged_cache_is_ignored_and_written_anew(clock, cache, content):
    def choose() -> int:
        choice.TIMINGS = timings.Timings()
        return model_of(network(k=40), device="cpu", max_ms=5.0).resolve_k(*SIZE)

    choose()
    clock.runs = 0
    if content == "entry":
        cache.write_text(cache.read_text().replace('"k": ', '"k": "many", "was": '))
        expected = choose()
    else:
        cache.write_bytes(content.encode("latin-1"))
        with pytest.warns(UserWarning, match="cannot be read and is ignored"):
            expected = choose()
    assert 57 <= expected <= 60
    assert clock.runs > 0
    clock.runs = 0
    assert choose() == expected
    assert clock.runs == 0


def test_a_cache_that_cannot_be_written_is_no_failure(clock, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MGA_CACHE", str(tmp_path / "file" / "below"))
    with pytest.warns(UserWarning, match="is not kept.*MGA_CACHE"):
        assert model_of(network(), device="cpu", max_ms=5.0).resolve_k(*SIZE) > 50


def test_auto_runs_the_faster(clock, caplog):
    caplog.set_level(logging.INFO, "mga_kernels")
    image = picture()
    masked = model_of(network(), device="cpu", k=100, mode="masked")  # 2 + 5 ms against 8 ms
    dense = model_of(network(), device="cpu", mode="dense")
    results = [model.upscale(image, return_result=True) for model in (masked, dense)]
    assert [result.refined for result in results] == [100, None]
    expected = [result.image for result in results]
    assert not np.array_equal(*expected)
    assert (masked.info()["mode"], dense.info()["prepared"]) == ("masked", ["52x40, dense"])

    model = model_of(network(), device="cpu", k=100, mode="auto")
    assert np.array_equal(model.upscale(image), expected[0])
    assert model.info()["prepared"] == ["52x40, K = 100: 7 ms, dense 8 ms"]
    assert not caplog.records

    model = model_of(network(), device="cpu", k=125, mode="auto")
    result = model.upscale(image, return_result=True)
    assert np.array_equal(result.image, expected[1])
    assert result.refined is None
    assert model.info()["prepared"] == ["52x40, dense: 8 ms, masked with K = 125 8.25 ms"]
    assert [record.getMessage() for record in caplog.records] == [
        "52x40: masked takes 8.25 ms, dense 8 ms; dense is run"
    ]
    told = model.explain(image)
    assert np.array_equal(told.image, expected[1])
    assert np.array_equal(told.indices, np.arange(CELLS))

    clock.runs = 0
    slower = model_of(network(), device="cpu", k=125)
    slower.upscale(image)
    assert clock.runs == 1
    assert slower.info()["prepared"] == [
        '52x40, K = 125: 8.25 ms, though dense takes 8 ms; mode="auto" runs the faster'
    ]
    none = model_of(network(), device="cpu", k=0, mode="auto")
    none.upscale(image)
    assert clock.runs == 2, "K = 0 needs no measuring"


def test_dense_is_the_decomposed_network():
    expected = model_of(network(), device="cpu")(torch.from_numpy(picture()).permute(2, 0, 1)[None] / 255, "decomposed")
    found = model_of(network(), device="cpu", mode="dense").upscale(picture())
    assert np.abs((expected[0].permute(1, 2, 0) * 255).numpy() - found).max() <= 0.51


def test_modes_that_make_no_sense():
    with pytest.raises(InputError, match="mode 'fast' does not exist; choose one of masked, dense, auto"):
        model_of(network(), mode="fast")
    with pytest.raises(InputError, match="leave out k"):
        model_of(network(), k=4, mode="dense")


def test_the_command_says_what_was_refined(tmp_path, capsys, clock):
    from PIL import Image

    model, source = write_tiny_model(tmp_path / "tiny.safetensors", k=40), tmp_path / "a.png"
    Image.fromarray(picture()).save(source)

    def run(*options: str) -> str:
        command = ["upscale", "--model", str(model), str(source), "-o", str(tmp_path / "o.png"), *options]
        assert main([*command, "--runtime", "pytorch"]) == 0
        (tmp_path / "o.png").unlink()
        return capsys.readouterr().out

    assert "K = 0," in run("--threshold", "1e6")
    assert "K = 7," in run("--threshold=-1e6", "--k", "7")
    assert "104x80, dense," in run("--mode", "dense")
    said = run("--max-ms", "1")
    assert "K = 0," in said
    assert "a.png: max_ms = 1: an image of 52x40 takes 2 ms" in said
    for options, message in (
        (["--threshold", "0.1", "--fraction", "0.5"], "either fraction or threshold"),
        (["--mode", "dense", "--k", "3"], "leave out k"),
    ):
        assert main(["upscale", "--model", str(model), str(source), "-o", str(tmp_path / "o.png"), *options]) == 1
        assert message in capsys.readouterr().err
    for options in (["--threshold", "nan"], ["--max-ms", "0"], ["--mode", "fast"]):
        with pytest.raises(SystemExit):
            main(["upscale", "--model", str(model), str(source), "-o", str(tmp_path / "o.png"), *options])
