"""Graphs of ncnn: the network that they are, its weights, and what is refused, in a sentence and in bounded memory."""

from __future__ import annotations

import re
import shutil
import struct
import tracemalloc
import warnings

import local_originals as originals
import made_graphs
import ncnn_files
import numpy as np
import pytest
import torch
from network_zoo import photographs
from PIL import Image
from test_local_networks import rrdbnet, tempered
from test_span_trials import enlarging_span

from mga.cli import main
from mga_kernels import MaskGuidedSR
from mga_kernels.architectures.span.published import KNOWN
from mga_kernels.checkpoints import is_whole, load_checkpoint, recognise
from mga_kernels.errors import CheckpointError, CheckpointNote, InputError

TOLERANCE = {"float": 1e-5, "half": 2e-3, "table": 0.1, "signed": 0.1}


@pytest.mark.parametrize("storage", TOLERANCE)
@pytest.mark.parametrize(
    "settings",
    [{}, {"enlargements": 0, "blocks": 1}, {"unshuffled": 2}, {"unshuffled": 4, "blocks": 1}, {"plus": True}],
    ids=str,
)
def test_rrdbnet(tmp_path, settings, storage):
    state, forward = rrdbnet(**settings)
    enlargements, blocks = settings.get("enlargements", 2), settings.get("blocks", 2)
    unshuffled = settings.get("unshuffled", 1)
    path = ncnn_files.rrdbnet(tmp_path / "net.param", state, blocks, enlargements, unshuffled, storage)
    check(path, "rrdbnet", 2**enlargements // unshuffled, forward, TOLERANCE[storage])


@pytest.mark.parametrize("storage", TOLERANCE)
@pytest.mark.parametrize("scale", [1, 2, 4])
def test_compact(tmp_path, scale, storage):
    state, forward = tempered(originals.compact(scale, 3))
    path = ncnn_files.compact(tmp_path / "net.param", state, 3, scale, storage=storage)
    check(path, "compact", scale, forward, TOLERANCE[storage])


@pytest.mark.parametrize("shrunk", [0.5, 0.75])
def test_compact_whose_result_is_shrunk(tmp_path, shrunk):
    """As the x2 and x3 of animevideov3 are."""
    state, forward = tempered(originals.compact(4, 3))
    path = ncnn_files.compact(tmp_path / "net.param", state, 3, 4, shrunk, "float")

    def bicubic(image: torch.Tensor) -> torch.Tensor:
        large = forward(image)
        rows, columns = (_cubic(side, round(shrunk * side), large.dtype) for side in large.shape[2:])
        return rows @ large @ columns.T

    check(path, "compact", round(4 * shrunk), bicubic, 1e-5)


def _cubic(length: int, made: int, dtype: torch.dtype, a: float = -0.75) -> torch.Tensor:
    """Weights (made, length) of cubic interpolation that does not smooth before, the border repeated."""
    weights = torch.zeros(made, length, dtype=dtype)
    for row in range(made):
        centre = (row + 0.5) * length / made - 0.5
        for tap in range(int(np.floor(centre)) - 1, int(np.floor(centre)) + 3):
            t = abs(centre - tap)
            near = (a + 2) * t**3 - (a + 3) * t**2 + 1
            weights[row, min(max(tap, 0), length - 1)] += near if t <= 1 else a * (t**3 - 5 * t**2 + 8 * t - 4)
    return weights


@pytest.mark.parametrize(("relu", "slope"), [("0=0.000000e+00", 0.0), ("0=1.000000e-01", 0.1), ("", None)])
def test_activations_that_no_tensor_tells_are_in_the_graph(tmp_path, relu, slope):
    state, forward = tempered(originals.compact(2, 3))
    if slope is not None:
        for name in [name for name in state if state[name].ndim == 1 and name.endswith("weight")]:
            state[name] = torch.full_like(state[name], slope)
    check(ncnn_files.compact(tmp_path / "a.param", state, 3, 2, 1.0, "float", relu), "compact", 2, forward, 1e-5)


@pytest.mark.parametrize("storage", ["float", "half"])
@pytest.mark.parametrize("known", [*KNOWN, None], ids=lambda known: known and f"{known.settings}")
def test_span_and_its_constants(tmp_path, known, storage):
    """Whatever they are, they are in the graph."""
    value_range, mean = (64.0, (0.1, 0.2, 0.3)) if known is None else known.settings.values()
    state, forward = tempered(originals.span(2, 8, value_range, mean, gain=2 / value_range))
    path = ncnn_files.span(tmp_path / "n.param", originals.span_folded(state), value_range, mean, 2, storage)
    network = check(path, "span", 2, forward, 1e-4 if storage == "float" else 0.02)
    settings = network.config.settings
    assert settings["value_range"] == value_range
    assert settings["mean"] == (mean if known else pytest.approx(mean, abs=1e-6))


def check(path, name: str, scale: int, forward: originals.Forward, tolerance: float):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        network = load_checkpoint(path)
    assert (network.config.network, network.config.scale) == (name, scale)
    assert is_whole(path)
    image = photographs(16, 20)
    expected = forward(image)
    assert expected.std() > 0.03
    assert (network(image) - expected).abs().max() < tolerance
    other = load_checkpoint(path.with_suffix(".bin"))
    assert other.config == network.config, "the file of weights means the same"
    return network


def test_the_weights_are_those_of_the_file_that_it_was_made_of(tmp_path):
    state = {name: t.half().float() for name, t in rrdbnet()[0].items()}
    graph = load_checkpoint(ncnn_files.rrdbnet(tmp_path / "net.param", state, 2, 2)).state_dict()
    file = recognise(state, "it").state_dict()
    assert graph.keys() == file.keys()
    assert all(torch.equal(tensor, graph[name]) for name, tensor in file.items())


def test_lines_in_any_order_and_by_any_name(tmp_path):
    """What a graph is does not depend on names, nor on the order of its lines as far as no weights follow it."""
    state, forward = tempered(originals.compact(2, 3))
    path = ncnn_files.compact(tmp_path / "net.param", state, 3, 2, storage="float")
    first, counts, *rows = path.read_text().splitlines()
    moved = [row for row in rows if not row.startswith(("Interp", "Input"))]
    moved = [*moved[:-1], moved[-1], *(row for row in rows if row.startswith(("Interp", "Input")))]
    path.write_text("\n".join([first, counts, *moved]).replace("data", "in0") + "\r\n")
    check(path, "compact", 2, forward, 1e-5)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (("0=2.000000e-01", "0=1.000000e-01"), "looks like rrdbnet, but its graph computes something else"),
        (("1=2.000000e+00 2=2.000000e+00", "1=3.000000e+00 2=3.000000e+00"), "looks like rrdbnet, but"),
        (("0=1 1=2.000000e+00", "0=2 1=2.000000e+00"), "computes something else"),
        (("Concat ", "Softmax "), "its layers of the kinds Softmax are unknown here; supported are"),
        (("Interp ", "Deconvolution "), "kinds Deconvolution are unknown here"),
        (("ReLU ", "HardSwish "), "kinds HardSwish are unknown here"),
        ((" 1=3 ", " 1=5 "), r"weights for 8 channels and kernels of 5x3, which does not fit|cut off|end within"),
        (("0=2 1=1 2=2", "0=77 1=1 2=2"), "the operation 77 of its layer .* is unknown here"),
        ((" 4=1 ", " 4=0 "), "is no convolution of .* channels that keeps the size"),
        ((" 4=1 ", " 3=2 4=1 "), "is no convolution of .* channels that keeps the size"),
        ((" 4=1 ", " 9=77 4=1 "), "the activation 77 of its layer"),
    ],
)
def test_other_graphs_are_told_apart(tmp_path, changed, said):
    path = ncnn_files.rrdbnet(tmp_path / "net.param", rrdbnet(blocks=1)[0], 1, 2)
    before = path.read_text()
    path.write_text(before.replace(*changed))
    assert path.read_text() != before
    refused(path, said)


HOSTILE = {
    "empty": ("", "is empty; download it again"),
    "its first line alone": ("7767517\n", "does not begin with 7767517 and two numbers"),
    "no counts": ("7767517\nmany more\n", "does not begin with"),
    "letters": ("7767517\n3 3\nInput a 0 1 data\n\x1b[2J\nc d\n", "is no layer"),
    "fewer layers than it says": ("7767517\n9 9\nInput a 0 1 data\n", "says that it has 9 layers and has 1"),
    "very many layers": ("7767517\n999999999 1\nInput a 0 1 data\n", "999,999,999 layers, and at most 20,000"),
    "digits without end": ("7767517\n" + "9" * 5000 + " 1\nInput a 0 1 data\n", "layers, and at most"),
    "very many inputs": ("7767517\n1 1\nInput a 99999 1 data\n", "fewer names than it says"),
    "a loop": (
        "7767517\n3 3\nInput a 0 1 data\nSwish b 1 1 y x\nSwish c 1 1 x y\n",
        "layer b takes what comes of itself: the graph has a loop",
    ),
    "itself": ("7767517\n2 2\nInput a 0 1 data\nSwish b 1 1 x x\n", "has a loop"),
    "nothing that makes it": ("7767517\n2 2\nInput a 0 1 data\nSwish b 1 1 z x\n", "takes z, which no layer makes"),
    "two makers": ("7767517\n2 2\nInput a 0 1 data\nSwish b 1 1 data data\n", "two of its layers make data"),
    "no input": ("7767517\n1 1\nMemoryData a 0 1 x 0=3\n", "0 inputs and 1 outputs|end within"),
    "no convolution": (
        "7767517\n2 2\nInput a 0 1 data\nSwish b 1 1 data x\n",
        "it has no convolution|more than the graph",
    ),
    "a convolution of terabytes": (
        "7767517\n2 2\nInput a 0 1 data\nConvolution b 1 1 data x 0=64 1=3 4=1 5=1 6=2147483520\n",
        "end within those of the layer b",
    ),
    "weights below zero": ("7767517\n2 2\nInput a 0 1 data\nConvolution b 1 1 data x 0=4 1=3 6=-36\n", "does not fit"),
    "a number that is none": ("7767517\n2 2\nInput a 0 1 data\nSwish b 1 1 data x 0=nan\n", "is no number"),
    "a number without end": ("7767517\n2 2\nInput a 0 1 data\nPReLU b 1 1 data x 0=1e400\n", "is no finite number"),
    "an array that is none": ("7767517\n2 2\nInput a 0 1 data\nReLU b 1 1 data x -23300=9,1.0\n", "number of values"),
    "an array for a number": ("7767517\n2 2\nInput a 0 1 data\nReLU b 1 1 data x -23300=1,1.0\n", "is an array|more"),
    "an enlargement without end": (
        "7767517\n2 2\nInput a 0 1 data\nInterp b 1 1 data x 0=1 1=1e9 2=1e9\n",
        "does not enlarge by a number|more than the graph",
    ),
    "an enlargement of enlargements": (
        "7767517\n9 9\nInput a 0 1 data\n"
        + "".join(f"Interp b{i} 1 1 {'data' if not i else f'x{i - 1}'} x{i} 0=1 1=16 2=16\n" for i in range(8)),
        "values; refused",
    ),
    "a constant of terabytes": ("7767517\n2 2\nInput a 0 1 data\nMemoryData b 0 1 x 0=999999 1=999999\n", "end within"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_graphs(tmp_path, name):
    text, said = HOSTILE[name]
    (tmp_path / "net.param").write_text(text)
    (tmp_path / "net.bin").write_bytes(b"")
    tracemalloc.start()
    try:
        refused(tmp_path / "net.param", said)
        assert tracemalloc.get_traced_memory()[1] < 100e6, "imports aside"
    finally:
        tracemalloc.stop()


def refused(path, said: str) -> None:
    with pytest.raises(CheckpointError, match=said) as caught:
        load_checkpoint(path)
    text = str(caught.value)
    assert "\n" not in text
    assert text.isprintable()
    assert not re.search(r"\.\s[A-Z]|Traceback|Error\b", text)


def test_damaged_weights(tmp_path):
    path = ncnn_files.compact(tmp_path / "net.param", originals.compact(2, 3)[0], 3, 2)
    weights, data = path.with_suffix(".bin"), path.with_suffix(".bin").read_bytes()
    for end in (0, 3, 4, 100, len(data) // 2, len(data) - 1):
        weights.write_bytes(data[:end])
        refused(path, r"net.bin, have [\d,]+ bytes and end within those of the layer .*both files are of one network")
    weights.write_bytes(data + bytes(4))
    refused(path, "have 4 bytes more than the graph takes")
    weights.write_bytes(data[:-4] + struct.pack("<f", float("nan")))
    refused(path, "hold NaN or infinity, so it is damaged")
    weights.unlink()
    refused(path, "its weights are missing: net.bin must lie beside it")
    weights.mkdir()
    refused(path, "its weights are missing")


def test_a_file_of_another_name_and_what_cannot_be_decided(tmp_path):
    path = ncnn_files.compact(tmp_path / "net.param", originals.compact(2, 3)[0], 3, 2)
    shutil.copy(path, tmp_path / "alone.param")
    refused(tmp_path / "alone.param", "alone.bin must lie beside it")
    for given in ({"colour": "rgb"}, {"input_range": "0..1"}, {"scale": 2}):
        with pytest.raises(InputError, match="cannot be given, because it is part of its graph; leave it out"):
            load_checkpoint(path, **given)
    path.unlink()
    with pytest.raises(CheckpointError, match=r"weights of ncnn \(.bin\) without their graph"):
        load_checkpoint(tmp_path / "net.bin")


def test_the_command_takes_it(tmp_path):
    state = enlarging_span(255.0, originals.DIV2K, 2)
    path = ncnn_files.span(tmp_path / "net.param", state, 255.0, originals.DIV2K, 2)
    picture = (photographs(20, 24)[0].permute(1, 2, 0) * 255).round().byte().numpy()
    Image.fromarray(picture).save(tmp_path / "photo.png")
    arguments = ["upscale", tmp_path / "photo.png", "-o", tmp_path / "large.png", "--model", path, "--scale", "2"]
    assert main([*map(str, arguments)]) == 0
    model = MaskGuidedSR.from_checkpoint(path)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "large.png")), model.upscale(picture))


PAIRS = {"realesr-animevideov3-x4": "realesr-animevideov3", "spanx4_ch48": "spanx4_ch48"}


@pytest.mark.parametrize("stem", PAIRS)
def test_published_graphs_hold_what_the_published_files_hold(shared_data, stem):
    folder = shared_data / "data/checkpoints"
    graph = load_checkpoint(folder / f"ncnn/{stem}.param")
    file = load_checkpoint(folder / f"{PAIRS[stem]}.safetensors")
    assert graph.config == file.config
    assert all(torch.equal(tensor, graph.state_dict()[name]) for name, tensor in file.state_dict().items())


def test_the_published_graph_that_shrinks(shared_data, tmp_path):
    folder = shared_data / "data/checkpoints/ncnn"
    shutil.copyfile(folder / "realesr-animevideov3-x2.param", tmp_path / "a.param")
    shutil.copyfile(folder / "realesr-animevideov3-x4.bin", tmp_path / "a.bin")
    with warnings.catch_warnings():
        warnings.simplefilter("error", CheckpointNote)
        config = load_checkpoint(tmp_path / "a.param").config
    assert (config.scale, config.settings["enlarged"]) == (2, 4)


def test_suffixes_in_capitals_are_found_beside_each_other(tmp_path):
    """As some systems write names."""
    text, data = made_graphs.graph(tmp_path, "compact")
    for graph, weights in (("a.PARAM", "a.BIN"), ("b.param", "b.BIN"), ("c.PARAM", "c.bin")):
        (tmp_path / graph).write_text(text)
        (tmp_path / weights).write_bytes(data)
        for name in (graph, weights):
            assert load_checkpoint(tmp_path / name).config.network == "compact"
