"""Programs: networks that an earlier run has kept, run without PyTorch, with the bytes of the engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pictures import picture
from PIL import Image
from test_plain_plans import network

from mga_kernels import MaskGuidedSR, _native
from mga_kernels.alone import program as programs
from mga_kernels.alone import rooms
from mga_kernels.alone import run as running
from mga_kernels.alone.program import Chain, Program
from mga_kernels.alone.run import Run
from mga_kernels.catalogue import shipped_models
from mga_kernels.checkpoints import read_metadata
from mga_kernels.engine import quick
from mga_kernels.engine.quick import Quick
from mga_kernels.errors import InputError
from mga_kernels.images import Photo
from mga_kernels.records import LayerRecord
from mga_kernels.runtimes.cpu import programs as made_of
from mga_kernels.runtimes.cpu.programs import program_of

pytestmark = pytest.mark.usefixtures("free_choice")

ROOT = Path(__file__).resolve().parent.parent
KEY = {"package": [1, 2]}
WITH_PROGRAMS = ["span", "span-odd", "span-range-1", "compact-odd", "compact-bytes", "rrdbnet", "edsr", "edsr-odd"]
COMMAND = """
import sys
from mga.cli import main
code = main(sys.argv[1:])
print("torch" in sys.modules)
sys.exit(code)
"""


def engine(name: str) -> MaskGuidedSR:
    return MaskGuidedSR(network(name), device="cpu", runtime="own")


def program(name: str) -> Program:
    found = program_of(engine(name)._runner.planner)
    assert found is not None
    return found


@pytest.mark.parametrize("name", WITH_PROGRAMS)
def test_a_program_makes_the_bytes_of_the_engine(name, tmp_path, monkeypatch):
    model = engine(name)
    programs.write(tmp_path / "program", KEY, program_of(model._runner.planner))
    read = programs.read(tmp_path / "program", KEY)
    for height, width in ((17, 30), (64, 41)):
        rgb = picture(height, width)
        assert np.array_equal(Run(read, height, width)(rgb), model.upscale(rgb))


def test_in_bands_on_any_number_of_threads_and_of_one_image_after_another(monkeypatch):
    model, images = engine("span"), [picture(70, 40, seed=seed) for seed in (1, 2)]
    whole = [model.upscale(image) for image in images]
    monkeypatch.setattr(rooms, "ROOMY", 0)
    monkeypatch.setattr(rooms, "SMALL", 0)
    for threads in (1, 3):
        monkeypatch.setattr(running, "threads", lambda threads=threads: threads)
        run = Run(program("span"), 70, 40)
        assert run._bands == [12]
        assert all(np.array_equal(run(image), made) for image, made in zip(images, whole, strict=True))


def test_what_it_takes_is_counted(monkeypatch):
    taken = []
    monkeypatch.setattr(running, "aligned", lambda *size: taken.append(programs.aligned(*size)) or taken[-1])
    run = Run(program("edsr"), 20, 36)
    made = run(picture(20, 36))
    assert run.bytes == made.nbytes + sum(array.nbytes for array in taken)


@pytest.mark.parametrize("name", ["rcan-range-1", "rrdbnet-x2-of-blocks"])
def test_networks_with_steps_between_their_layers_have_none(name):
    assert program_of(engine(name)._runner.planner) is None


def test_nor_have_those_with_a_mask_or_of_much_memory(monkeypatch):
    masked = MaskGuidedSR.from_pretrained("fsrcnn-x2", device="cpu")
    assert program_of(masked._runner.planner) is None
    monkeypatch.setattr(made_of, "LARGEST", 1 << 10)
    assert program_of(engine("span")._runner.planner) is None


def test_a_forced_backend_makes_none(monkeypatch):
    monkeypatch.setenv("MGA_BACKEND", "reference")
    assert program_of(MaskGuidedSR(network("span"), device="cpu", runtime="own")._runner.planner) is None


def changed(data: bytes, how: str) -> bytes:
    length = int.from_bytes(data[8:16], "little")
    header = json.loads(data[16 : 16 + length])
    match how:
        case "another format":
            return b"MGAPRG99" + data[8:]
        case "cut":
            return data[:-100]
        case "cut in its header":
            return data[:60]
        case "empty":
            return b""
        case "a value":
            return data[:-1000] + bytes([data[-1000] ^ 1]) + data[-999:]
        case "a long header":
            return data[:8] + (1 << 40).to_bytes(8, "little") + data[16:]
        case "no JSON":
            return data[:16] + b"[" * length + data[16 + length :]
        case "another record":
            header["chains"][0]["layers"][0]["colour"] = 1
        case "a layer too many":
            header["chains"][0]["layers"].append(header["chains"][0]["layers"][0])
        case "a strange slot":
            header["chains"][0]["slots"][0] = 7
        case "an array of nothing":
            header["arrays"][0] = [0, None]
        case "no chains":
            del header["chains"]
    text = json.dumps(header).encode()
    return data[:8] + len(text).to_bytes(8, "little") + text + data[16 + length :]


DAMAGES = [
    *("another format", "cut", "cut in its header", "empty", "a value", "a long header", "no JSON", "another record"),
    *("a layer too many", "a strange slot", "an array of nothing", "no chains"),
]


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_file_is_none(how, tmp_path):
    path = tmp_path / "program"
    programs.write(path, KEY, program("span-odd"))
    assert programs.read(path, KEY) is not None
    path.write_bytes(changed(path.read_bytes(), how))
    assert programs.read(path, KEY) is None


def test_a_file_of_something_else_is_none(tmp_path):
    path = tmp_path / "program"
    programs.write(path, KEY, program("span-odd"))
    assert programs.read(path, KEY | {"package": [1, 3]}) is None
    assert programs.read(tmp_path / "none", KEY) is None
    assert programs.read(tmp_path, KEY) is None


def test_the_kernels_refuse_a_program_that_does_not_fit():
    found = program("span-odd")
    (chain,) = found.chains

    def refused(layers: tuple[LayerRecord, ...], slots=chain.slots, weights=chain.weights) -> str:
        with pytest.raises(RuntimeError) as error:
            Run(replace(found, chains=(Chain(slots, layers, weights, chain.epilogues),)), 9, 9)(picture(9, 9))
        return str(error.value)

    first, *others = chain.layers
    assert "names maps that there are not" in refused((replace(first, out=99), *others))
    assert "weight has" in refused((replace(first, size=5, tile=0), *others))
    assert "weight has" in refused(chain.layers, weights=(chain.weights[0][:-1], *chain.weights[1:]))
    assert "outside of its map" in refused((replace(first, out_channel=8 * 100), *others))
    assert "a layer needs" in refused(chain.layers[:-1]) or "for each layer" in refused(chain.layers[:-1])


def test_arrays_of_other_types_are_refused():
    found = program("span-odd")
    (chain,) = found.chains
    wide = tuple(weight.astype(np.float64) for weight in chain.weights)
    with pytest.raises(RuntimeError, match="neither float32 nor uint8"):
        Run(replace(found, chains=(replace(chain, weights=wide),)), 9, 9)(picture(9, 9))


class Loaded:
    """An engine in the place of one that would be loaded; ``count``: how often."""

    def __init__(self, name: str):
        self.model, self.count = engine(name), 0

    def __call__(self) -> MaskGuidedSR:
        self.count += 1
        return self.model


def test_what_is_not_plain_is_the_engines(monkeypatch):
    load = Loaded("span")
    model = Quick(program("span"), load)
    plain, small = Photo(picture(12, 9)), Photo(picture(12, 3))
    made = model.upscale(plain)
    assert (made.refined, load.count) == (None, 0)
    assert np.array_equal(made.image.rgb, load.model.upscale(plain.rgb))
    assert np.array_equal(model.upscale(small).image.rgb, load.model.upscale(small.rgb))
    assert load.count == 1
    deep = Photo((picture(12, 9).astype(np.uint16) << 8) + 3)
    assert np.array_equal(model.upscale(deep).image.rgb, load.model.upscale(deep, return_result=True).image.rgb)
    assert model.model.reach == load.model.model.reach
    assert load.count == 1


@pytest.mark.parametrize("how", ["little", "none"])
def test_without_room_for_the_image_the_engine_does_it(how, monkeypatch):
    load = Loaded("span")
    model, photo = Quick(program("span"), load), Photo(picture(12, 9))
    if how == "little":
        monkeypatch.setattr(quick, "available_memory", lambda: Run(model.program, 12, 9).bytes)
    else:
        monkeypatch.setattr(running, "aligned", lambda *size: (_ for _ in ()).throw(MemoryError))
    assert np.array_equal(model.upscale(photo).image.rgb, load.model.upscale(photo.rgb))
    assert load.count == 1


def test_a_kept_model_is_found_until_something_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("MGA_CACHE", str(tmp_path))
    load = Loaded("span")
    assert quick.find("span-x4-fast", "auto", load) is None
    quick.keep("span-x4-fast", "auto", MaskGuidedSR.from_pretrained("span-x4-fast", device="cpu", runtime="own"))
    assert isinstance(quick.find("span-x4-fast", "cpu", load), Quick)
    assert quick.find("span-x4", "cpu", load) is None
    assert quick.find("../span-x4-fast", "cpu", load) is None
    for variable in quick.FORCING:
        with monkeypatch.context() as forced:
            forced.setenv(variable, "reference")
            assert quick.find("span-x4-fast", "cpu", load) is None
    with monkeypatch.context() as other:
        other.setattr(quick, "_package", lambda: [0, 0])
        assert quick.find("span-x4-fast", "cpu", load) is None
    with monkeypatch.context() as absent:
        absent.setattr(quick, "find_spec", lambda name: None)
        assert quick.find("span-x4-fast", "cpu", load) is None
    assert quick.find("span-x4-fast", "cpu", load) is not None


def test_where_pytorch_may_find_a_gpu_only_the_cpu_asked_for_is_quick(tmp_path, monkeypatch):
    monkeypatch.setenv("MGA_CACHE", str(tmp_path))
    monkeypatch.setattr(made_of.torch.version, "cuda", "13.0")
    monkeypatch.setattr(quick, "DEVICES", (str(tmp_path / "device"),))
    model, load = MaskGuidedSR.from_pretrained("span-x4-fast", device="cpu", runtime="own"), Loaded("span")

    def found() -> list[bool]:
        return [quick.find("span-x4-fast", device, load) is not None for device in ("auto", "cpu")]

    (tmp_path / "device").touch()
    quick.keep("span-x4-fast", "auto", model)
    assert found() == [False, False]
    quick.keep("span-x4-fast", "cpu", model)
    assert found() == [False, True]
    monkeypatch.setattr(quick.sys, "platform", "win32")
    (tmp_path / "device").unlink()
    assert found() == [False, True]
    monkeypatch.setattr(quick.sys, "platform", "linux")
    assert found() == [True, True]


def test_where_nothing_can_be_kept_nothing_is_said(tmp_path, monkeypatch, recwarn):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MGA_CACHE", str(tmp_path / "file"))
    quick.keep("span-x4-fast", "auto", MaskGuidedSR.from_pretrained("span-x4-fast", device="cpu", runtime="own"))
    with pytest.raises((InputError, OSError)):
        programs.write(tmp_path / "file/programs/x", KEY, program("span-odd"))
    assert not recwarn


def command(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """The command in a process that has imported nothing, and whether it imported PyTorch as its last line."""
    environment = {**os.environ, "MGA_CACHE": str(folder / "cache")}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "python"), os.environ.get("PYTHONPATH", "")])
    asked = [sys.executable, "-c", COMMAND, *map(str, words)]
    return subprocess.run(asked, capture_output=True, text=True, env=environment, cwd=folder)


def upscaled(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    return command(folder, "upscale", *words)


def test_models_are_listed_without_pytorch_and_as_their_files_say(tmp_path):
    listed = command(tmp_path, "models", "--json").stdout.splitlines()
    assert listed[-1] == "False"
    said = json.loads("\n".join(listed[:-1]))
    assert said.keys() == shipped_models().keys()
    for name in said:
        config = read_metadata(name)["config"]
        facts = said[name]["network"], said[name]["scale"], said[name]["masked"]
        assert facts == (config.network, config.scale, config.masked)


@pytest.mark.skipif(not _native.map_kernels()[1], reason="where our convolutions are slow, PyTorch's are chosen")
def test_the_second_command_needs_no_pytorch_and_makes_the_same_file(tmp_path):
    Image.fromarray(picture(30, 41)).save(tmp_path / "photo.png")
    options = [], ["--dtype", "float32", "--mode", "dense"], ["--quality", "whole", "--device", "cpu"]
    results = [
        upscaled(tmp_path, "photo.png", "-o", f"{n}.png", "--model", "span-x4-fast", *more)
        for n, more in enumerate(options)
    ]
    assert [result.stderr for result in results] == ["", "", ""]
    said = [result.stdout.splitlines() for result in results]
    assert [lines[-1] for lines in said] == ["True", "False", "False"]
    assert said[0][0].replace("0.png", "1.png").rpartition(",")[0] == said[1][0].rpartition(",")[0]
    files = [(tmp_path / f"{n}.png").read_bytes() for n in range(3)]
    assert files[0] == files[1] == files[2]
    asked = upscaled(tmp_path, "photo.png", "-o", "3.png", "--model", "span-x4-fast", "--runtime", "pytorch")
    assert asked.stdout.splitlines()[-1] == "True"
    refused = upscaled(tmp_path, "photo.png", "-o", "4.png", "--model", "span-x4-fast", "--scale", "9")
    assert refused.returncode == 1
    assert refused.stderr == "mga: upscale: the model span-x4-fast is for x4, not for --scale 9\n"
