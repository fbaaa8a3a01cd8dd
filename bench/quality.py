"""Quality of a model on Set5, Set14 and B100: every variant, and every order of selection at equal K; and what its
way of running photographs, in bf16 where that is faster, loses against float32 on Set5.

    python bench/quality.py --model fsrcnn-x4 --data DIR --k 240

``DIR`` holds Set5/, Set14/ and B100/, each with HR/ and LR_bicubic/X2, X3, X4. The figures go, with the versions that
made them, to bench/results/quality_MODEL.json, and as a Markdown table to the standard output. The protocol is that
of ``mga evaluate``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch

from mga.evaluation.folder import evaluate
from mga.evaluation.metrics import psnr_y
from mga.evaluation.models import variant_of
from mga.evaluation.testsets import find_pairs, load_pair
from mga.files.records import to_json
from mga_kernels import MaskGuidedSR, __version__
from mga_kernels.errors import MGAError
from mga_kernels.system.files import whole_file

SETS = ("Set5", "Set14", "B100")
RUNS = {
    "base": ("base", "largest"),
    "all": ("all", "largest"),
    "decomposed": ("decomposed", "largest"),
    "masked, largest": ("masked", "largest"),
    "masked, random": ("masked", "random"),
    "masked, smallest": ("masked", "smallest"),
}


def set_pairs(data: Path, testset: str, scale: int) -> list[tuple[Path, Path | None]]:
    return find_pairs(data / testset / "HR", data / testset / f"LR_bicubic/X{scale}", scale)


def photograph_loss(model: MaskGuidedSR, pairs: list[tuple[Path, Path | None]]) -> dict[str, Any]:
    """What ``upscale`` loses in PSNR-Y (dB) against the same network on float32 tensors."""
    losses = {}
    for entry, (hr_path, lr_path) in zip(
        evaluate(model, pairs, variant_of(model, "masked"))["images"], pairs, strict=True
    ):
        hr, lr = load_pair(hr_path, lr_path, model.scale)
        losses[entry["name"]] = entry["psnr_y"] - psnr_y(model.upscale(lr), hr, model.scale)
    mean = sum(losses.values()) / len(losses)
    return {"run": model.info()["photographs"], "loss_db": mean, "loss_db_by_image": losses}


def measure(model: MaskGuidedSR, data: Path) -> dict[str, dict[str, dict[str, float]]]:
    """{run: {set: {"psnr_y", "ssim_y"}}}."""
    figures: dict[str, dict[str, Any]] = {name: {} for name in RUNS}
    for testset in SETS:
        pairs = set_pairs(data, testset, model.scale)
        for name, (variant, selection) in RUNS.items():
            figures[name][testset] = evaluate(model, pairs, variant, selection)["mean"]
            print(f"{testset} {name}: {figures[name][testset]['psnr_y']:.4f} dB", file=sys.stderr, flush=True)
    return figures


def table(figures: dict[str, dict[str, dict[str, float]]]) -> str:
    """PSNR-Y / SSIM-Y, and the mean gain in PSNR over the base."""
    lines = [f"| variant | {' | '.join(SETS)} | mean gain over base |", "|---|" + "---|" * (len(SETS) + 1)]
    for name, sets in figures.items():
        gain = sum(sets[s]["psnr_y"] - figures["base"][s]["psnr_y"] for s in SETS) / len(SETS)
        cells = " | ".join(f"{sets[s]['psnr_y']:.3f} / {sets[s]['ssim_y']:.4f}" for s in SETS)
        lines.append(f"| {name} | {cells} | {gain:+.4f} dB |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="fsrcnn-x4")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--k", type=int, default=240, help="patches refined per image (the authors' 240)")
    args = parser.parse_args()
    try:
        model = MaskGuidedSR.from_pretrained(args.model, k=args.k)
        photographs = {"set": "Set5", **photograph_loss(model, set_pairs(args.data, "Set5", model.scale))}
        figures = measure(model, args.data)
        name = Path(args.model).stem
        target = Path(__file__).parent / "results" / f"quality_{name}.json"
        versions = {"mga_kernels": __version__, "torch": torch.__version__, "device": str(model.device)}
        record = {"model": name, "scale": model.scale, "k": args.k, "versions": versions, "figures": figures}
        record["photographs"] = photographs
        target.parent.mkdir(exist_ok=True)
        with whole_file(target) as stream:
            stream.write(to_json(record).encode())
    except MGAError as error:
        print(f"quality: {error}", file=sys.stderr)
        return 1
    print(table(figures))
    print(f"\nphotographs ({photographs['run']}) lose {photographs['loss_db']:.4f} dB on Set5")
    return 0


if __name__ == "__main__":
    sys.exit(main())
