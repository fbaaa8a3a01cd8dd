"""Exported graphs in the runtimes that read them, against ``MaskGuidedSR`` in float32; each test names the runtime."""

from __future__ import annotations

import importlib.util
import json

import pytest
import torch
from network_zoo import photographs, random_model

from mga.cli import main
from mga_kernels import MaskGuidedSR
from mga_kernels.checkpoints import save_model
from mga_kernels.errors import InputError
from mga_kernels.export import export_model, formats
from mga_kernels.export.graph import MaskGuidedGraph, select
from mga_kernels.export.program import facts, trace
from mga_kernels.networks import MaskGuidedNetwork
from mga_kernels.networks.amount import Amount
from mga_kernels.ops.select_patches.reference import select_patches

SIZES = ((1, 1), (3, 9), (16, 16), (23, 31), (60, 61))  # below p, odd, no multiples of p; none is that of the export
NEAR = 1e-5
CASES = [
    ("fsrcnn", 4, {"k": 7}),
    ("fsrcnn", 3, {"fraction": 0.3}),
    pytest.param("pan", 2, {"fraction": 0.3}, marks=pytest.mark.slow),
    ("rfdn", 4, {"k": 7}),
    pytest.param("srresnet", 3, {"k": 7}, marks=pytest.mark.slow),
    pytest.param("rcan", 4, {"fraction": 0.3}, marks=pytest.mark.slow),
]


def needs(*packages: str) -> pytest.MarkDecorator:
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def check(network: MaskGuidedNetwork, amount: dict, run, near: float = NEAR) -> None:
    """``run`` against the engine at all sizes, and once that refining changed what is compared."""
    engine = MaskGuidedSR(network, **amount, device="cpu", dtype="float32", runtime="pytorch")
    changed = 0.0
    for height, width in SIZES:
        image = photographs(height, width)[1:].contiguous()
        expected, coarse = engine(image), engine(image, "base")
        found = torch.as_tensor(run(image))
        assert found.shape == expected.shape
        assert (found - expected).abs().max() <= near, (height, width)
        changed = max(changed, float((expected - coarse).abs().max()))
    assert changed > 0.05, "an image that refining does not change proves nothing"


def run_onnxruntime(path):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda image: session.run(None, {"image": image.numpy()})[0]


def run_openvino(path):
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    model = core.compile_model(core.read_model(path), "CPU", settings)
    return lambda image: model([image.numpy()])[0]


@needs("onnx", "onnxscript", "onnxruntime")
@pytest.mark.parametrize(("name", "scale", "amount"), CASES)
def test_onnx_gives_the_image_of_the_engine(tmp_path, name, scale, amount):
    network = random_model(name, scale)
    written = export_model(network, tmp_path / "model.onnx", **amount)
    check(network, amount, run_onnxruntime(tmp_path / "model.onnx"))
    if importlib.util.find_spec("openvino") is not None:
        check(network, amount, run_openvino(tmp_path / "model.onnx"))

    import onnx

    model = onnx.load(tmp_path / "model.onnx")
    assert {entry.key: json.loads(entry.value) for entry in model.metadata_props} == written
    assert {node.domain for node in model.graph.node} == {""}, "an operator that is no standard one"
    config = network.config
    kept = [written[fact] for fact in ("network", "scale", "patch_size", "halo")]
    assert kept == [name, scale, config.patch_size, 1]


@pytest.mark.parametrize(("name", "scale", "amount"), [CASES[3]])
def test_torch_export_gives_the_image_of_the_engine(name, scale, amount):
    """What is written then, and read again, which takes torch long: test_the_command_says_what_it_wrote."""
    network = random_model(name, scale)
    check(network, amount, trace(network, Amount(**amount)).module())


@needs("executorch", "torchao")
@pytest.mark.slow
def test_executorch_gives_the_image_of_the_engine(tmp_path):
    network = random_model("fsrcnn", 2)
    written = export_model(network, tmp_path / "model.pte", fraction=0.3, largest=(60, 64))
    from executorch.runtime import Runtime

    program = Runtime.get().load_program(tmp_path / "model.pte")
    assert json.loads(program.load_method("metadata").execute([])[0]) == written
    method = program.load_method("forward")
    check(network, {"fraction": 0.3}, lambda image: method.execute([image])[0].clone())


@pytest.mark.parametrize("name", ["fsrcnn", "pan", "rfdn", "srresnet", "rcan"])
def test_the_graph_is_the_network(name):
    """In PyTorch, where the graph runs the same convolutions: all rules of K, both filters, every mask."""
    settings = {"mask": {"filter_source": "feature", "order": "pool-then-softmax"}} if name == "pan" else {}
    settings |= {"mask": {"classes": 1}, "selection": "smallest"} if name == "srresnet" else {}
    network = random_model(name, 3, patch_size=2, **settings)
    engine = MaskGuidedSR(network, device="cpu", dtype="float32", runtime="pytorch")
    for amount in ({"k": 0}, {"k": 7}, {"k": 10_000}, {"fraction": 0.0}, {"fraction": 0.04}):
        graph = MaskGuidedGraph(network, Amount(**amount)).eval()
        for height, width in SIZES[: 2 if name == "rcan" else 4]:
            image = photographs(height, width)[1:]
            assert (graph(image) - engine(image, **amount)).abs().max() <= NEAR, (amount, height, width)


@pytest.mark.parametrize("order", ["largest", "smallest"])
def test_ties_go_to_the_lower_index(order, generator):
    mask = torch.randint(0, 4, (1, 9, 11), generator=generator).float()
    for k in (1, 5, 40, 98, 99):
        assert select(mask.flatten(), k, order).tolist() == select_patches(mask, k, order, 0)[0].tolist()


@needs("onnx", "onnxscript", "onnxruntime")
def test_ties_in_onnx_go_to_the_lower_index(tmp_path):
    """A mask that counts the neighbours of a cell, without rounding: all inner cells are equal."""
    network = random_model("fsrcnn", 2)
    for part in (network.mask.conv1, network.mask.conv2, network.mask.conv_kernel):
        for parameter in part.parameters():
            parameter.zero_()
    network.mask.conv_kernel.bias.fill_(1)
    export_model(network, tmp_path / "model.onnx", k=7)
    check(network, {"k": 7}, run_onnxruntime(tmp_path / "model.onnx"))
    if importlib.util.find_spec("openvino") is not None:
        check(network, {"k": 7}, run_openvino(tmp_path / "model.onnx"))


def test_a_share_is_rounded_as_the_engine_does():
    network = random_model("fsrcnn", 2)
    for share in (0.01, 0.125, 0.25, 0.3, 0.5, 1 / 3, 0.999, 1.0):
        graph = MaskGuidedGraph(network, Amount(fraction=share))
        for cells in range(1, 400):
            assert graph._count(cells) == Amount(fraction=share).count(cells, 0), (share, cells)


def test_the_command_says_what_it_wrote(tmp_path, capsys):
    network = random_model("fsrcnn", 2)
    save_model(tmp_path / "tiny.safetensors", network, {"weights": "none"}, {})
    command = ["export", str(tmp_path / "tiny.safetensors"), "-o", str(tmp_path / "out.pt2"), "--k", "5"]
    assert main(command) == 0
    assert "fsrcnn x2, K = 5" in capsys.readouterr().out
    held = {formats.METADATA: ""}
    check(network, {"k": 5}, torch.export.load(tmp_path / "out.pt2", extra_files=held).module())
    assert json.loads(held[formats.METADATA]) == facts(network, Amount(k=5))
    before = (tmp_path / "out.pt2").read_bytes()
    assert main(command) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert (tmp_path / "out.pt2").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("out.txt", {}, "choose one of onnx, pt2, pte"),
        ("out.pt2", {"k": -1}, "k is the number of patches"),
        ("out.pt2", {"k": 3, "fraction": 0.5}, "not both"),
        ("out.pt2", {"fraction": 1.5}, "between 0 and 1"),
        ("missing/out.pt2", {}, "does not exist"),
    ],
)
def test_what_cannot_be_done_is_said_and_leaves_nothing(tmp_path, name, settings, said):
    with pytest.raises(InputError, match=said):
        export_model(random_model("fsrcnn", 2), tmp_path / name, **settings)
    assert list(tmp_path.iterdir()) == []


def test_random_cells_cannot_be_exported(tmp_path):
    with pytest.raises(InputError, match="random cells"):
        export_model(random_model("fsrcnn", 2, selection="random"), tmp_path / "out.pt2")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "package", "extra"), [("onnx", "onnx", "export"), ("pte", "executorch", "executorch")]
)
def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch, kind, package, extra):
    imported = importlib.import_module

    def refuse(name, *arguments):
        if name.split(".")[0] == package:
            raise ModuleNotFoundError(f"No module named {name!r}")
        return imported(name, *arguments)

    monkeypatch.setattr(formats.importlib, "import_module", refuse)
    with pytest.raises(InputError, match=rf"{package}.*mga_kernels\[{extra}\]"):
        export_model(random_model("fsrcnn", 2), tmp_path / f"out.{kind}")
    assert list(tmp_path.iterdir()) == []
