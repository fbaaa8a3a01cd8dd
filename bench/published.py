"""Published networks against the figures that they were measured to have, and graphs of ncnn against ncnn itself.

    python bench/published.py [FILE ...] [--shared DIR] [--graphs DIR ...] [-o bench/results/published.md]

``--shared``, by default MGA_SHARED or ../shared, holds data/checkpoints, data/testsets and data/MANIFEST.md; only files
whose names are given are run, by default all. Each is loaded as anybody loads it, and run in float32 on the sets for
which there is a figure (FIGURES), without one on Set5: on tensors by ``mga evaluate``'s protocol, and as photographs
from bytes to bytes as it runs here. Both must be within 0.005 dB; networks of luma are compared before their luma
becomes bytes of RGB, which photographs are not. Then graphs of ncnn, of data/checkpoints/ncnn and of ``--graphs``, are
run by ncnn (the extra ``peers``) and by convolutions of our own on the same crop of a photograph: no value within 0..1
may differ by more than 0.003 levels of 255. Those of the network in PyTorch, which clamps nothing, are compared
everywhere. A graph without weights of its own has those of the x4 beside it. The figures go to FILE.md, where -o is
given, and FILE.json. The status is 1 where something differs by more.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from contenders import ncnn_net
from images import _version
from quality import set_pairs

from mga.evaluation.folder import evaluate
from mga.evaluation.metrics import psnr_y
from mga.evaluation.testsets import find_pairs, load_pair
from mga.files.records import to_json
from mga_kernels import MaskGuidedSR, runtimes
from mga_kernels.checkpoints import load_checkpoint
from mga_kernels.checkpoints.ncnn import Graph
from mga_kernels.errors import MGAError
from mga_kernels.images import read_image

ALIKE = 0.005  # dB of a figure
LEVELS = 0.003  # of 255, between two programs that run one graph
PHOTOGRAPHS = "photographs"  # data/photos/test, whose LR images are made
HEIGHT, WIDTH = 48, 64  # of the crop that graphs are run on

SPAN_X4 = {"Set5": 32.203, "Set14": 28.642, "B100": 27.608, PHOTOGRAPHS: 35.956}
UNKNOWN: dict[str, float | None] = {"Set5": None}  # what a file without a figure is run on
# PSNR-Y in dB as MANIFEST.md has it, of the authors' code: {file: {set: figure}}.
FIGURES: dict[str, Mapping[str, float | None]] = {
    # ncnn, too, makes 26.633 with its graph of this file; 26.644 is what realesr-general-x4v3 makes.
    "RealESRGAN_x4plus.safetensors": {"Set5": 26.644},
    "realesr-general-x4v3.safetensors": UNKNOWN,
    "realesr-animevideov3.safetensors": {"Set5": 28.250},
    "spanx4_ch48.safetensors": SPAN_X4,
    "spanx4_ch48_full.safetensors": SPAN_X4,
    "spanx2_ch48.safetensors": {"Set5": 38.070, "Set14": 33.690},
    "span-ntire_x4_ch28.safetensors": {"Set5": 31.739, "Set14": 28.401, "B100": 27.446, PHOTOGRAPHS: 35.694},
    "2xHFA2kSPAN_27k.safetensors": UNKNOWN,
    "4xSPANkendata.safetensors": UNKNOWN,
    "pan_x4_zhaohengyuan1.pth": {"Set5": 32.131, "Set14": 28.611, "B100": 27.598},
    "rfdn_x4_njulj-aim2020.pth": {"Set5": 32.159, "Set14": 28.645, "B100": 27.606},
    "imdn_x4_Zheng222.pth": {"Set5": 32.210, "Set14": 28.582},
    "fsrcnn_x2_XDpaddle.pth": {"Set5": 37.038, "Set14": 32.676},
    "fsrcnn_x4_XDpaddle.pth": {"Set5": 30.474, "Set14": 27.534},
    "fsrcnn_x2_Saafke.pth": UNKNOWN,
    "fsrcnn_x4_Saafke.pth": {"Set5": 28.411, "Set14": 26.183},
    "fsrcnn-ycbcr3_x4_Nhat-Thanh.pth": {"Set5": 28.26},
    "msrresnet-nf36_x4_XDpaddle.pth": {"Set5": 31.688, "Set14": 28.294},
}


def pairs_of(shared: Path, name: str, scale: int) -> list[tuple[Path, Path | None]]:
    """HR and LR files of a set."""
    if name == PHOTOGRAPHS:
        return find_pairs(shared / "data/photos/test", None, scale)
    return set_pairs(shared / "data/testsets", name, scale)


def as_photographs(model: MaskGuidedSR, pairs: list[tuple[Path, Path | None]]) -> float:
    """Mean PSNR-Y in dB of what ``upscale`` makes of LR images."""
    found = []
    for hr_path, lr_path in pairs:
        hr, lr = load_pair(hr_path, lr_path, model.scale)
        found.append(psnr_y(np.asarray(model.upscale(lr)), hr, model.scale))
    return float(np.mean(found))


def figures_of(path: Path, shared: Path, sets: Mapping[str, float | None]) -> Iterator[dict[str, Any]]:
    """A row for each set: what is known, what was found, and whether it is the same."""
    model = MaskGuidedSR.from_checkpoint(path, device="cpu", dtype="float32")
    config = model.config
    facts = {"file": path.name, "network": f"{config.network} x{config.scale}", "runs": model.info()["photographs"]}
    for name, figure in sets.items():
        pairs = pairs_of(shared, name, model.scale)
        tensors = evaluate(model, pairs, "whole")["mean"]["psnr_y"]
        row = {"set": name, "published": figure, "tensors": tensors, "photographs": as_photographs(model, pairs)}
        if figure is not None:
            compared = ("tensors",) if config.colour == "y" else ("tensors", "photographs")
            row["within"] = all(abs(row[kind] - figure) <= ALIKE for kind in compared)
        yield facts | row


def crop_of(shared: Path) -> np.ndarray:
    """The middle of a photograph, float32 (HEIGHT, WIDTH, 3) in 0..1."""
    rgb = read_image(shared / "data/testsets/Set5/HR/butterfly.png").rgb
    top, left = (rgb.shape[0] - HEIGHT) // 2, (rgb.shape[1] - WIDTH) // 2
    return np.ascontiguousarray(rgb[top : top + HEIGHT, left : left + WIDTH], np.float32) / 255


def by_ncnn(path: Path, crop: np.ndarray) -> np.ndarray:
    """What ncnn makes of the graph, float32 (sH, sW, 3), not clamped."""
    import ncnn as runtime

    graph = Graph(path)
    extractor = ncnn_net(str(path), str(path.with_suffix(".bin"))).create_extractor()
    given = np.ascontiguousarray(crop.transpose(2, 0, 1))  # whose memory the extractor reads
    extractor.input(graph.source, runtime.Mat(given))
    status, made = extractor.extract(graph.result)
    if status:
        raise RuntimeError(f"ncnn cannot run {path.name}: status {status}")
    return np.array(made).transpose(1, 2, 0)


def graph_row(path: Path, crop: np.ndarray) -> dict[str, Any]:
    """Differences in levels of 255 between three that run one graph."""
    network = load_checkpoint(path)
    exact = by_ncnn(path, crop)
    image = torch.from_numpy(crop)
    defined = network(image.permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()
    planner, _ = runtimes.deep(network, torch.device("cpu"), "own")
    own = planner.plan(HEIGHT, WIDTH, 0).run(image).numpy()
    assert exact.shape == defined.shape == own.shape
    ours = 255 * float(np.abs(own - exact.clip(0, 1)).max())
    return {
        "graph": path.name,
        "network": f"{network.config.network} x{network.config.scale}",
        "ours": ours,
        "PyTorch": 255 * float(np.abs(defined - exact).max()),
        "clamped": float(np.mean((exact < 0) | (exact > 1))),
        "within": ours <= LEVELS,
    }


def graphs(folders: list[Path], shared: Path) -> Iterator[dict[str, Any]]:
    crop = crop_of(shared)
    for folder in folders:
        for path in sorted(folder.glob("*.param")):
            with tempfile.TemporaryDirectory() as together:
                weights = path.with_suffix(".bin")
                if not weights.exists():
                    weights = folder / f"{path.stem.rpartition('-')[0]}-x4.bin"
                target = Path(together) / path.name
                shutil.copyfile(path, target)
                shutil.copyfile(weights, target.with_suffix(".bin"))
                yield graph_row(target, crop)


def table(record: dict[str, Any]) -> str:
    """Markdown of what goes into the JSON file."""
    figures, compared = record["figures"], record["graphs"]
    lines = ["| file | network | set | published | tensors | differ | photographs | differ | within 0.005 dB |"]
    lines.append("|---|---|---|--:|--:|--:|--:|--:|---|")
    for row in figures:
        known = row["published"]
        cells = [row["file"], row["network"], row["set"], "" if known is None else f"{known:.3f}"]
        for kind in ("tensors", "photographs"):
            cells += [f"{row[kind]:.3f}", "" if known is None else f"{row[kind] - known:+.4f}"]
        lines.append(f"| {' | '.join(cells)} | {verdict(row)} |")
    if compared:
        lines += ["", "Largest differences from ncnn, in levels of 255:", ""]
        lines.append("| graph | network | ours | PyTorch | values beyond 0..1 | within 0.003 |")
        lines.append("|---|---|--:|--:|--:|---|")
    for row in compared:
        cells = [row["graph"], row["network"], f"{row['ours']:.5f}", f"{row['PyTorch']:.5f}", f"{row['clamped']:.2%}"]
        lines.append(f"| {' | '.join(cells)} | {verdict(row)} |")
    runs = "; ".join(sorted({row["runs"] for row in figures}))
    programs = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return "\n".join([*lines, "", f"Photographs ran in {runs}; {programs}."]) + "\n"


def verdict(row: dict[str, Any]) -> str:
    return {True: "yes", False: "**no**", None: ""}[row.get("within")]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", metavar="FILE", help="names in data/checkpoints (default all)")
    usual = os.environ.get("MGA_SHARED", Path(__file__).resolve().parents[2] / "shared")
    parser.add_argument("--shared", type=Path, default=usual, help="folder of data/ (default MGA_SHARED or ../shared)")
    parser.add_argument("--graphs", type=Path, nargs="*", default=[], help="more folders of graphs of ncnn")
    parser.add_argument("-o", "--out", type=Path, help="file of the table, beside which the JSON goes")
    args = parser.parse_args(arguments)
    folder = args.shared / "data/checkpoints"
    if not folder.is_dir():
        print(f"published: there is no {folder}; --shared or MGA_SHARED names the folder of data/", file=sys.stderr)
        return 1
    figures: list[dict[str, Any]] = []
    try:
        for path in sorted(path for path in folder.iterdir() if path.suffix in (".pth", ".safetensors")):
            if not args.files or path.name in args.files:
                figures += figures_of(path, args.shared, FIGURES.get(path.name, UNKNOWN))
                print(f"published: {path.name}", file=sys.stderr, flush=True)
        compared = list(graphs([folder / "ncnn", *args.graphs], args.shared))
    except ImportError as error:
        print(f"published: graphs are not compared, since {error.name} is not installed", file=sys.stderr)
        compared = []
    except (MGAError, RuntimeError) as error:
        print(f"published: {error}", file=sys.stderr)
        return 1
    names = ("torch", "ncnn") if compared else ("torch",)
    record = {"versions": {name: _version(name) for name in names}, "figures": figures, "graphs": compared}
    print(table(record), end="")
    if args.out is not None:
        args.out.write_text(table(record))
        args.out.with_suffix(".json").write_text(to_json(record))
    return 0 if all(row.get("within", True) for row in figures + compared) else 1


if __name__ == "__main__":
    sys.exit(main())
