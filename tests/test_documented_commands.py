"""Every command and every Python block of README.md and docs/ does what it is printed for.

Those in fenced blocks run as they stand, in a folder that has the files that they name; a page that prints a new one
needs nothing here, as long as its files are in that folder. What takes minutes is cut short by words behind it
(SHORTER), or only parsed, for a reason (NOT_RUN). Of commands between backquotes the verb and the options exist, and
the files of this project.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import shutil
from pathlib import Path

import documented
import numpy as np
import originals
import pytest
import torch
from black_boxes import swinir
from documented import PROGRAMS, ROOT, Command
from forks import Forks
from pictures import save_smooth_picture
from PIL import Image
from test_example import Published
from ui_page import served

from mga.cli import COMMANDS, build_parser, main
from mga.training.packs import write_pack
from mga_kernels.checkpoints.native import load_native

NOT_RUN = {  # how a command begins -> why it is parsed only
    "make": "of the tests themselves; its targets exist",
    "pip": "it would install",
    "python -m pytest": "a run of tests in a test; the files exist and have such tests",
    "mga evaluate configs/": "hours, on test sets that are not here; the file is a suite",
    "mga train configs/": "hours, on packs that are not here; the file is a recipe",
}
SHORTER = {  # verb -> words that make it short
    "convert": ["--minutes", "0.01", "--set", "crop=16", "--set", "batch=1"],
    "train": ["--budget", "3", "--set", "crop=8", "--set", "batch=1"],
    "report": ["--k", "0", "4"],
    "ui": ["--port", "0"],
    "cluster": ["--cpus", "1"],
}
EXTRAS = {
    "video": ("av",),
    "export": ("onnx", "onnxscript"),
    "ui": ("starlette", "uvicorn"),
    "cluster": ("ray", "pyarrow"),
}  # verb -> packages without which it is an error
PRINTED = list({(*one.environment, *one.words): one for one in documented.printed_commands()}.values())  # each once
PYTHON = [block for block in documented.blocks() if block.language == "python"]
PLACES = ("bench/", "configs/", "csrc/", "docs/", "examples/", "mga_kernels/", "python/", "tests/")
OF_OTHERS = {  # options that pages name, of other programs than those here
    "--help": "argparse's",
    "--no-build-isolation": "pip's",
    "--no-deps": "pip's",
    "--nproc-per-node": "torchrun's",
    "--strict": "mkdocs'",
}
# The command, but that a training ends with a look at one flat colour, not at 125.
ONE_COLOUR = """import sys, mga.cli, mga.training.flat as flat
flat.flat_colours = lambda: [(0, 128, 255)]
sys.exit(mga.cli.main())"""

MINE = '''
"""A network of one's own, for what docs/own_network.md prints."""
import torch
from torch import nn
from torch.nn.functional import pixel_shuffle


class BaseNet(nn.Module):
    def __init__(self, scale, blocks):
        super().__init__()
        self.scale = scale
        self.body = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), *(nn.Conv2d(64, 64, 1) for _ in range(blocks)))
        self.last = nn.Conv2d(64, 3 * scale**2, 1)

    def upsample(self, feature):
        return pixel_shuffle(self.last(feature), self.scale)

    def forward(self, image):
        feature = self.body(image)
        return self.upsample(feature), feature


class RefineNet(nn.Module):
    halo = 1

    def __init__(self, scale, blocks):
        super().__init__()
        self.scale = scale
        self.body = nn.Sequential(nn.Conv2d(64, 64, 3), *(nn.Conv2d(64, 64, 1) for _ in range(blocks)))
        self.last = nn.Conv2d(64, 3 * scale**2, 1)

    def forward(self, patches):
        return pixel_shuffle(self.last(self.body(patches)), self.scale)


'''


def code(page: str, part: str) -> str:
    """The Python block of a page that contains ``part``."""
    return next(block.text for block in PYTHON if block.page == page and part in block.text)


@pytest.fixture(scope="module")
def stocked(tmp_path_factory) -> Path:
    """A folder with every file that the pages name, small."""
    folder = tmp_path_factory.mktemp("as_printed")
    save_smooth_picture(folder / "photo.jpg", 24, 32, 0)
    save_smooth_picture(folder / "photo.png", 64, 64, 1)
    for name, sides in {"photos": (24, 32), "HR": (96, 128), "hr": (96, 128), "testsets/Mine/HR": (64, 64)}.items():
        (folder / name).mkdir(parents=True)
        for i in range(2):
            save_smooth_picture(folder / name / f"{i}.png", *sides, i)
    (folder / "LR").mkdir()
    for path in sorted((folder / "HR").iterdir()):
        image = Image.open(path)
        image.resize((image.width // 4, image.height // 4), Image.Resampling.BICUBIC).save(folder / "LR" / path.name)
    published = {"net.pth": originals.msrresnet(4, blocks=16), "network.pth": originals.srresnet(blocks=16)}
    for name, (state, _) in published.items():
        torch.save(dict(state), folder / name)
    torch.save(swinir(4) or {"conv_first.weight": torch.zeros(8, 3, 3, 3)}, folder / "swinir.pth")

    torch.save(load_native("rfdn-x4").body.state_dict(), folder / "rfdn.pth")  # which is a published network
    torch.save(Published(4, blocks=16, channels=8).state_dict(), folder / "mine_x4.pth")
    shutil.copytree(ROOT / "examples", folder / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture
def as_printed(stocked, tmp_path, monkeypatch) -> Path:
    """A copy of that folder, as the current one; what is measured is kept in it, too."""
    folder = tmp_path / "as_printed"
    shutil.copytree(stocked, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MGA_CACHE", str(folder / "cache"))
    return folder


def reason_not_to_run(asked: Command) -> str | None:
    line = " ".join(asked.words)
    return next((why for start, why in NOT_RUN.items() if line.startswith(start)), None)


def run(asked: Command, capsys: pytest.CaptureFixture, forks: Forks) -> None:
    verb = asked.words[1]
    other = "--black-box" in asked.words  # which trains nothing, and another library runs
    untrained = other or ("--extend" in asked.words and not asked.words[asked.words.index("--extend") + 1].isdigit())
    words = asked.words[1:] if untrained else [*asked.words[1:], *SHORTER.get(verb, ())]
    needed = ("spandrel",) if other else EXTRAS.get(verb, ())
    if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
        assert main(words) == 1
        assert "pip install 'mga_kernels[" in capsys.readouterr().err
        pytest.skip(f"{', '.join(missing)} is not installed; the command says so")
    if verb == "ui":  # which serves until it is ended
        with served(*words[1:], folder=Path.cwd()) as page:
            assert page.opened().upscale(Path("photo.jpg"), "--model", "span-x4")["state"] == "done"
        return
    if not asked.environment:
        code, said = main(words), capsys.readouterr()
        assert code == 0, said.err
        return
    forks.run(ONE_COLOUR, *words, **asked.environment)  # for what would stay registered in this process


@pytest.fixture(scope="module")
def mine(stocked, tmp_path_factory, forks) -> Path:
    """That folder with mine.py, its weights and mine.toml: what docs/own_network.md says, in its own words."""
    folder = tmp_path_factory.mktemp("mine") / "as_printed"
    shutil.copytree(stocked, folder)
    definition = code("docs/own_network.md", "register_network")
    (folder / "mine.py").write_text(MINE + definition)
    weights = code("docs/own_network.md", "save_model")
    torch_file = (
        "import torch, mine\nfrom mga_kernels.networks import ModelConfig, MaskGuidedNetwork\n"
        "base = MaskGuidedNetwork(ModelConfig('mine', 4)).base\ntorch.save(base.state_dict(), 'mine_x4.pth')\n"
    )
    forks.run(torch_file + weights, folder=folder)
    shutil.copy(folder / "start.safetensors", folder / "mine.safetensors")
    settings = next(block.text for block in documented.blocks() if block.text.startswith("# mine.toml"))
    (folder / "mine.toml").write_text(settings)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    write_pack(folder / "train.safetensors", [("a", (pixels, pixels[::4, ::4]))], 4)
    return folder


def video(path: Path) -> None:
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
        for i in range(3):
            picture = np.full((24, 32, 3), 60 + 40 * i, np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode(None))


@pytest.mark.usefixtures("few_colours")
@pytest.mark.parametrize("asked", [one for one in PRINTED if reason_not_to_run(one) is None], ids=str)
def test_a_printed_command_works(asked, as_printed, capsys, request, forks):
    if "mine.py" in asked.environment.values():
        shutil.copytree(request.getfixturevalue("mine"), as_printed, dirs_exist_ok=True)
    before = set(as_printed.rglob("*"))
    if asked.words[1] == "video" and importlib.util.find_spec("av"):
        video(as_printed / "in.mp4")
    run(asked, capsys, forks)
    outputs = [asked.words[i + 1] for i, word in enumerate(asked.words) if word in ("-o", "--json", "--save")]
    for output in outputs:
        path = as_printed / output
        assert path not in before
        assert any(path.iterdir()) if path.is_dir() else path.stat().st_size > 0


@pytest.mark.parametrize("asked", [one for one in PRINTED if reason_not_to_run(one) is not None], ids=str)
def test_a_printed_command_that_is_not_run_could_be(asked, monkeypatch):
    match asked.words:
        case ["mga", *words]:
            monkeypatch.chdir(ROOT)
            build_parser(words[0]).parse_args(words)
            check_configuration(next(word for word in words if word.endswith(".toml")), monkeypatch)
        case ["make", target]:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        case ["python", "-m", "pytest", *words]:
            assert all((ROOT / word).is_file() for word in words if word.startswith("tests/"))
        case ["pip", "install", *_]:
            pass
        case _:
            pytest.fail(f"{asked}: nothing checks such a command")


def check_configuration(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It can be read, whatever its variables name."""
    for name in re.findall(r"\$\{([A-Z_]+)\}", (ROOT / file).read_text()):
        monkeypatch.setenv(name, "somewhere")
    if "models" in (ROOT / file).read_text():
        from mga.evaluation.suite.config import load_suite

        assert load_suite(ROOT / file, {}).models
    else:
        from mga.training.recipe import load_recipe

        assert load_recipe(ROOT / file, {}).train


def subparser(verb: str) -> argparse.ArgumentParser:
    (commands,) = build_parser(verb)._subparsers._group_actions
    return commands.choices[verb]


def options_of(program: list[str]) -> set[str]:
    """The long options of ``mga VERB`` or of a file of Python code, which names them in its text."""
    if program[0] == "mga":
        return set(subparser(program[1])._option_string_actions)
    return set(re.findall(r'"(--[\w-]+)"', Path(program[0]).read_text()))


@pytest.mark.parametrize("asked", documented.mentioned_commands(), ids=str)
def test_a_mentioned_command_exists(asked):
    match asked.words:
        case ["mga", "COMMAND", "--help"]:
            return
        case ["mga", verb, *words]:
            assert verb in COMMANDS
            known = options_of(["mga", verb])
        case ["torchrun", "--nproc-per-node", _, "-m", "mga", verb, *words]:
            known = options_of(["mga", verb])
        case ["make", target]:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
            return
        case ["python", "-m", module]:
            assert importlib.util.find_spec(module) is not None
            return
        case ["python", file, *words]:
            known = options_of([str(ROOT / file)])
        case ["pip", "install" | "wheel", *_]:
            return
        case _:
            pytest.fail(f"{asked}: nothing checks such a command")
    assert {word for word in words if word.startswith("--")} <= known
    assert all((ROOT / word).is_file() for word in words if word.startswith("configs/"))


def test_options_in_the_text_are_options_of_something():
    """Of a command, or of a program in bench/."""
    known = set(OF_OTHERS).union(*(options_of(["mga", verb]) for verb in COMMANDS))
    known = known.union(*(options_of([str(path)]) for path in (ROOT / "bench").glob("*.py")))
    named = {
        (page, option) for page, span in documented.spans() for option in re.findall(r"(?<!\S)--[a-z][\w-]*", span)
    }
    assert named
    assert not sorted((page, found) for page, found in named if found not in known)


def test_files_in_the_text_exist():
    """Those of the project, whole or with * for a part of the name; <name> and NAME stand for any."""
    named = set()
    for page, span in documented.spans():
        if span.startswith(PLACES) and re.fullmatch(r"[\w./*<>-]+", span):
            named.add((page, re.sub(r"<\w+>|NAME", "*", span)))
    assert len(named) > 50
    assert not sorted((page, path) for page, path in named if not any(ROOT.glob(path.rstrip("/"))))


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_printed_python_runs(block, as_printed, request):
    if "register_network" in block.text or "save_model" in block.text:
        assert (request.getfixturevalue("mine") / "start.safetensors").stat().st_size  # for which they have run
        return
    if "spandrel" in block.text:
        pytest.importorskip("spandrel")
        shutil.copy("net.pth", "4x.pth")
    if "import ray" in block.text:
        pytest.importorskip("ray", reason="Ray is not installed: pip install 'mga_kernels[ray]'")
    layer = {}
    if "PairChain" in block.text:
        from mga_kernels.runtimes.cpu.chains import PairChain
        from mga_kernels.runtimes.cpu.layers import Conv
        from mga_kernels.runtimes.cpu.stages import Stage

        one = Conv(torch.zeros(4, 4, 3, 3))
        layer = {"PairChain": PairChain, "Stage": Stage, "first": one, "second": one}
    given = {"paths": ["photo.jpg", "photo.png"], "tensor": torch.rand(1, 3, 8, 8), **layer}
    given["MaskGuidedSR"] = __import__("mga_kernels").MaskGuidedSR
    exec(compile(block.text, str(block), "exec"), given)
    if "large.png" in block.text:
        assert Image.open("large.png").size == (128, 96)


def test_every_program_is_looked_for():
    """A block of commands of a program that PROGRAMS lacks would be passed over."""
    for block in documented.blocks():
        if block.language in ("", "bash", "sh", "console"):
            starts = {line.split()[0] for line in block.text.splitlines() if re.match(r"\$ |[a-z]+ \S+ -", line)}
            assert starts <= {*PROGRAMS, "$", "def", "rows"}, block
