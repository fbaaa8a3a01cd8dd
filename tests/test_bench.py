"""The benchmarks' own claims: they check what they time."""

import argparse
import ast
import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch

from mga_kernels import ops

BENCH = Path(__file__).resolve().parent.parent / "bench"

CONVOLUTION = {name for name in ops.operators() if ".ops.convolution." in getattr(ops, name).__module__}


@pytest.fixture
def workloads(monkeypatch):
    """The module, at a size that takes no time."""
    monkeypatch.syspath_prepend(str(BENCH))
    import workloads

    for name, value in {"HEIGHT": 48, "WIDTH": 64, "ROWS": 12, "COLUMNS": 16, "CELLS": 192}.items():
        monkeypatch.setattr(workloads, name, value)
    monkeypatch.setattr(workloads, "COUNTS", {"some": 20, "all": 192})
    return workloads


@pytest.mark.parametrize(
    "name",
    [
        "select_patches",
        "gather_patches",
        "paste_patches",
        "high_pass",
        "image_to_input",
        "output_to_image",
    ],
)
def test_a_wrong_result_is_not_timed(workloads, name, monkeypatch):
    workload = getattr(workloads, name)("some", "cpu")
    workload.check()
    backend = ops.operators()[workload.op].backends["cpu"]
    right = backend.run

    def wrong(*arguments):
        result = right(*arguments)
        result[(0,) * result.ndim] += 1
        return result

    monkeypatch.setattr(backend, "run", wrong)
    with pytest.raises(AssertionError, match="not that of the reference"):
        workload.check()


def test_a_wrong_mask_is_not_timed(workloads, monkeypatch):
    workload = workloads.mask_head("softmax-then-pool", "cpu")
    workload.check()
    backend = ops.operators()["mask_head"].backends["cpu"]
    right = backend.run
    monkeypatch.setattr(backend, "run", lambda *a: right(*a) + 0.01)
    with pytest.raises(AssertionError, match="not close"):
        workload.check()


@pytest.mark.parametrize("path", sorted(BENCH.glob("bench_*.py")), ids=lambda path: path.name)
def test_every_file_of_benchmarks_is_found_by_pytest(path):
    functions = [node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
    assert any(name.startswith("test_") for name in functions)


@pytest.mark.parametrize("path", sorted(BENCH.rglob("*.py")), ids=lambda path: path.name)
def test_benchmarks_run_as_callers_do(path):
    """In inference mode a result would be no ordinary tensor, and some layers take other ways."""
    calls = [ast.unparse(node) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    assert not {"torch.inference_mode()", "inference_mode()", "torch.inference_mode(True)"} & set(calls)


def test_every_operator_has_a_benchmark(workloads):
    """Which is found by the name of its folder. The CPU convolutions are measured as whole networks."""
    import bench_operators

    assert set(bench_operators.CASES) == {name.rstrip("_") for name in set(ops.operators()) - CONVOLUTION}
    assert all(callable(getattr(workloads, name)) for name in bench_operators.CASES)


def test_bytes_of_gather_are_those_it_touches(workloads):
    """Counted again by gathering pixel numbers and looking which ones come out."""
    height, width = workloads.HEIGHT, workloads.WIDTH
    number = torch.arange(1.0, height * width + 1, dtype=torch.float64).reshape(1, 1, height, width)
    for case, k in workloads.COUNTS.items():
        indices = ops.select_patches(workloads._mask("cpu"), k)
        seen = ops.gather_patches(number, indices, 4, 1).unique()
        read = int((seen > 0).sum()) * workloads.CHANNELS * 4
        written = k * workloads.CHANNELS * 36 * 4
        assert workloads.gather_patches(case, "cpu").bytes_moved == read + written


@pytest.fixture
def images(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    import images

    return images


def test_whole_images_are_checked_timed_and_reported(images, tmp_path, quick_python):
    import report

    args = argparse.Namespace(only=["D, ours", "D, PyTorch bf16", "as written"], budget=0.01, play=None, held=None)
    record = images.run_one(args, "fsrcnn", 4, "192x160")
    (tmp_path / "images_fsrcnn-x4_192x160.json").write_text(json.dumps(record))
    assert record["missing"] == {}
    assert record["instructions"] in report.INSTRUCTIONS
    rows = record["contenders"]
    assert list(rows) == ["M, ours", "D, ours", "M, PyTorch fp32 as written", "D, PyTorch bf16 channels-last"]
    for row in rows.values():
        assert 0 < row["min"] <= row["median"] <= row["max"]
        assert row["times_ours"] == pytest.approx(row["median"] / rows["M, ours"]["median"], rel=0.02)
    assert rows["M, ours"]["psnr_against_fp32"] >= 40
    assert rows["M, PyTorch fp32 as written"]["psnr_against_fp32"] is None
    records = report.load(tmp_path)
    cells = report.summary(records)[2].split("|")
    assert float(cells[5]) == pytest.approx(1 / rows["D, ours"]["times_ours"], abs=1e-3)
    alone = record["gmacs"]["D"] - record["gmacs"]["D alone"]  # the transposed convolution, by each pixel it makes
    assert alone == pytest.approx((12 * 56 * 48 * 40 + 56 * 48 * 40 + 9 * 9 * 56 * 3 * 192 * 160) / 1e9, abs=1e-3)
    assert float(cells[6]) == pytest.approx(record["gmacs"]["M"] / record["gmacs"]["D alone"], abs=1e-3)
    assert float(cells[8]) == pytest.approx(1 / rows["D, PyTorch bf16 channels-last"]["times_ours"], abs=1e-3)
    assert float(cells[9]) == pytest.approx(record["gmacs"]["M"] / record["gmacs"]["D"], abs=1e-3)
    assert "| M, ours |" in report.table(records)
    record["processor"] += ", held to avx2"
    (tmp_path / "images_fsrcnn-x4_192x160_held.json").write_text(json.dumps(record))
    free, held = (line.split("|")[3].strip() for line in report.summary(report.load(tmp_path))[2:])
    assert held == f"{free}, held"


def agreement(images, *names, k=0):
    return images.Agreement([images.Contender(n, n.partition(",")[0], lambda: None) for n in names], 8, k)


def test_contenders_of_one_function_must_agree(images):
    picture = images.test_image(64, 48)
    assert picture.std() > 30, "a flat picture proves nothing"
    judge = agreement(images, "D, PyTorch fp32", "D, other", "original, other")
    judge.check({"D, PyTorch fp32": picture, "D, other": picture, "original, other": picture[::-1]})
    assert judge.found == {"D, PyTorch fp32": None, "D, other": images.EQUAL, "original, other": None}
    with pytest.raises(SystemExit, match="D, other and D, PyTorch fp32 make different pictures"):
        judge.check({"D, other": picture[::-1]})


def test_few_cells_may_be_chosen_differently_and_not_many(images):
    picture = images.test_image(256, 256)  # 1024 cells of 8 x 8 pixels

    def with_other_cells(number):
        other = picture.copy()
        for i in range(number):
            other[i // 32 * 8 :, i % 32 * 8 :][:8, :8] ^= 128
        return other

    judge = agreement(images, "M, fp32", "M, ours", k=100)
    judge.check({"M, fp32": picture, "M, ours": with_other_cells(5)})
    assert judge.found["M, ours"] == images.EQUAL
    with pytest.raises(SystemExit, match="M, ours and M, fp32 make different pictures"):
        judge.check({"M, ours": with_other_cells(6)})


def test_the_check_sees_a_refinement_that_is_forgotten(images):
    """For the shipped Base-Net too, at the share of cells that 4K has."""
    from contenders import as_written, make_networks

    image = images.test_image(240, 136)
    network, _ = make_networks("rfdn", 4, image)
    k = 60
    with torch.inference_mode():
        right, forgotten = as_written(network, k)(image), as_written(network, 0)(image)
        judge = images.Agreement([images.Contender(n, "M", lambda: None) for n in ("M, fp32", "M, ours")], 16, k)
        judge.check({"M, fp32": right})
        with pytest.raises(SystemExit, match="different pictures"):
            judge.check({"M, ours": forgotten})


def test_convolutions_are_checked_timed_and_reported(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(BENCH))
    import convolutions

    target = tmp_path / "page.md"
    assert convolutions.main(["--channels", "48", "--sizes", "40x30", "--rounds", "2", "-o", str(target)]) == 0
    lines = target.read_text().splitlines()
    assert [line.split("|")[1:3] for line in lines if "40x30" in line] == [[" 48 ", " 40x30 "]] * 2
    assert convolutions.main(["--last", "--sizes", "40x30", "--rounds", "1", "-o", str(target)]) == 0
    assert "| 40x30 |" in target.read_text()
    monkeypatch.setattr(convolutions, "read", lambda *_: torch.zeros(48, 30, 40))
    with pytest.raises(AssertionError, match="times the error of PyTorch"):
        convolutions.main(["--channels", "48", "--sizes", "40x30", "-o", str(target)])


@pytest.mark.parametrize("existing", [False, True])
def test_the_first_result_of_a_folder_is_awaited(monkeypatch, capsys, existing):
    """Of a command that notes what it is asked for, and makes the result that is missing."""
    monkeypatch.syspath_prepend(str(BENCH))
    import folder_start

    code = (
        "import os, sys, time\n"
        "images, results = sys.argv[1], sys.argv[3]\n"
        "missing = sorted(set(os.listdir(images)) - set(os.listdir(results)))\n"
        "assert len(missing) == (1 if '--skip-existing' in sys.argv else 5)\n"
        "open(f'{results}/{missing[0]}', 'w').close()\n"
        "time.sleep(60)\n"
    )
    monkeypatch.setattr(folder_start, "COMMAND", [sys.executable, "-S", "-c", code])
    folder_start.main(["--files", "5", *(["--skip-existing"] if existing else [])])
    assert re.fullmatch(
        r"5 files: the first result after \d+\.\d s, \d\.\d s of the processor\n", capsys.readouterr().out
    )
    monkeypatch.setattr(folder_start, "COMMAND", [sys.executable, "-S", "-c", "raise SystemExit(3)"])
    with pytest.raises(SystemExit, match="no result, status 3"):
        folder_start.main(["--files", "5"])


def test_the_decomposed_contender_is_the_networks_own(images):
    from contenders import Decomposed, make_networks

    network, _ = make_networks("pan", 2, images.test_image(64, 64))
    image = torch.rand(1, 3, 24, 20)
    with torch.inference_mode():
        found = Decomposed(network)(image)
        assert torch.equal((found / network.value_range).clamp(0, 1), network(image, variant="decomposed"))


def test_a_contender_that_cannot_be_made_says_why(images):
    from contenders import make

    def absent():
        import nothing_of_this_name  # noqa: F401

    assert make(images.Contender("x", "D", absent)) == "not installed: nothing_of_this_name"
    assert make(images.Contender("x", "D", lambda: torch.zeros(1) @ torch.zeros(2))).startswith("RuntimeError: ")


@pytest.mark.skipif(shutil.which(os.environ.get("CC", "cc")) is None, reason="there is no C compiler")
@pytest.mark.parametrize(("network", "size"), [("fsrcnn", "1080p"), ("rfdn", "540p"), ("srresnet", "4K")])
def test_a_second_image_of_one_size_allocates_nothing_large(network, size, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    import memory

    args = argparse.Namespace(network=network, scale=4, memory=None)
    assert memory.in_child(args, "allocations", size) == {"of 1 MiB and more": 0, "largest bytes": 0}


def test_the_table_of_conversions_compares_with_the_fastest_stock_runtime(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    import conversions

    from mga.evaluation.suite.config import ModelEntry, Suite

    def timed(function, stock, median, times_ours):
        return {"function": function, "stock": stock, "median": median, "times_ours": times_ours}

    def row(model, variant, gmacs, psnr, **amount):
        return {"model": model, "variant": variant, "gmacs": gmacs, "sets": {"Set14": {"psnr_y": psnr}}} | amount

    record = {
        "size": "64x48",
        "threads": 2,
        "processor": "of a test",
        "contenders": {
            conversions.HOST: timed("original", False, 0.5, 1.0),
            "original, PyTorch fp32": timed("original", True, 1.0, 2.0),
            "original, OpenVINO bf16": timed("original", True, 1.1, 1.6),  # of a heat in which all was slower
            "2+1, -D": timed("converted", False, 1.2, 2.4),
            "2+1, K = 25%": timed("converted", False, 0.4, 0.8),
        },
    }
    quality = [
        row("net", "whole", 10.0, 30.0),
        row("2+1", "decomposed", 11.0, 30.1),
        row("2+1", "masked", 6.0, 29.95, k=None, fraction=0.25),
        row("2+1", "masked", 8.0, 29.99, k=40, fraction=None),
    ]
    suite = Suite(2, [ModelEntry("net", "net.pth"), ModelEntry("2+1", "split.safetensors")], k=["25%", 40])
    lines = [line for line in conversions.table(suite, record, quality).splitlines() if line.startswith("| ")][2:]
    assert lines == [
        "| net |  | 10.0 | 1.000 | 1.100 | 1.000 | 30.000 |",
        "| 2+1 | all, as one image (-D) | 11.0 | 1.100 | 1.200 | 1.500 | 30.100 (+0.100) |",
        "| 2+1 | 25% | 6.0 | 0.600 | 0.400 | 0.500 | 29.950 (-0.050) |",
        "| 2+1 | 40 | 8.0 | 0.800 |  |  | 29.990 (-0.010) |",
    ]


def test_ncnn_makes_the_picture_of_the_module(monkeypatch):
    """Of images that are gone by the time that it reads them, one after the other."""
    pytest.importorskip("ncnn")
    pytest.importorskip("pnnx")
    monkeypatch.syspath_prepend(str(BENCH))
    from contenders import eager, ncnn

    torch.manual_seed(2)
    layers = [torch.nn.Conv2d(3, 12, 3, padding=1), torch.nn.LeakyReLU(0.1), torch.nn.Conv2d(12, 12, 1)]
    module = torch.nn.Sequential(*layers, torch.nn.PixelShuffle(2)).eval()
    with torch.no_grad():
        run, expected = ncnn(module, 1.0, (40, 56)), eager(module, 1.0, torch.float32)
        for seed in range(3):
            image = torch.randint(0, 256, (40, 56, 3), generator=torch.Generator().manual_seed(seed)).byte().numpy()
            assert abs(run(image).astype(int) - expected(image)).max() <= 1
