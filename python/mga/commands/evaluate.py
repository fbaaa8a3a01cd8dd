"""``mga evaluate``: PSNR-Y and SSIM-Y of a model on a folder of HR images, or many models on many sets in one table.

    mga evaluate --hr HR/ --model net.pth                    # one model in one variant, figures of every image
    mga evaluate --sets testsets/ --scale 4 --variant base masked -o TABLE.md     # one model, all sets in a folder
    mga evaluate SUITE.toml -o TABLE.md --json FIGURES.json  # models x variants x K on many sets
    mga evaluate FIGURES.json -o TABLE.md                    # a table of the rows in the file, as they are

The second and the third go on from the rows in the JSON file that this code has measured on this machine, and lose none
of the others (``mga.evaluation.suite``, whose ``config`` documents SUITE.toml). The protocol is that of
``mga.evaluation.metrics``. Without LR images they are made from the HR images by MATLAB's bicubic, the HR images being
cropped to a multiple of the scale first. The authors of the mask-guided scheme evaluated with K = 240 on the small test
sets (Set5, Set14, B100); the default here is the model's own K.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rich.progress import track
from rich.table import Table

from mga_kernels.errors import InputError
from mga_kernels.images import check_output
from mga_kernels.networks import VARIANTS
from mga_kernels.networks.amount import Amount
from mga_kernels.ops.select_patches import SELECTIONS
from mga_kernels.system.files import identities

from ..console.screen import screen
from ..evaluation.testsets import find_pairs, scale_of
from ..files.records import Record, write_text
from .options import DEFAULT_MODEL, add_model_arguments, add_overrides


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "suite",
        nargs="?",
        metavar="SUITE.toml|FIGURES.json",
        help="models and sets (see mga.evaluation.suite.config), or figures of which the table is made, as they are",
    )
    what.add_argument("--hr", type=Path, metavar="DIR", help="folder of HR images")
    what.add_argument("--sets", type=Path, metavar="DIR", help="folder of test sets, in the usual layouts")
    parser.add_argument(
        "--lr", type=Path, metavar="DIR", help="folder of LR images, NAMExS.png or NAME.png for NAME.png of --hr"
    )
    parser.add_argument(
        "--scale",
        type=int,
        help="of the model and of the LR images (default: by the sizes of --hr and --lr, or the model's)",
    )
    parser.add_argument("--variant", nargs="+", choices=VARIANTS, help="default masked; several with --sets")
    parser.add_argument("--selection", choices=SELECTIONS, help="which cells are refined (default: the model's)")
    parser.add_argument("--seed", type=int, default=0, help="of --selection random")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--save", type=Path, metavar="DIR", help="write the SR images there, as PNG")
    add_overrides(parser)
    parser.add_argument("-o", "--output", type=Path, metavar="TABLE.md", help="write the table of many sets there")


def run(args: argparse.Namespace) -> int:
    """The command: evaluate, print a table, write the files."""
    for path in (args.json, args.output):
        if path is not None and not path.parent.is_dir():
            raise InputError(f"evaluate: {path} cannot be written, its folder does not exist")
    files = [Path(path).resolve() for path in (args.suite, args.json, args.output) if path is not None]
    if len(set(files)) < len(files):
        raise InputError("evaluate: the suite, --json and -o are different files; one would be written over another")
    if args.suite is None and args.scale is None:
        of_images = args.hr is not None and args.lr is not None
        args.scale = scale_of(args.hr, args.lr) if of_images else _scale_of_model(args)
    if args.overrides and (args.suite is None or Path(args.suite).suffix == ".json"):
        raise InputError("evaluate: --set goes with SUITE.toml, whose fields it overrides")
    if args.hr is None:
        return _run_suite(args)
    if len(args.variant or ()) > 1:
        raise InputError("evaluate: --hr takes one --variant; --sets and a suite take several")
    if args.output is not None:
        raise InputError("evaluate: -o goes with --sets or a suite; --json takes the figures of one folder")
    return _run_folder(args)


def _scale_of_model(args: argparse.Namespace) -> int:
    from mga_kernels.checkpoints import load_checkpoint

    return load_checkpoint(args.model, args.colour, args.input_range, args.model_scale).config.scale


def _run_suite(args: argparse.Namespace) -> int:
    from mga_kernels.checkpoints import is_whole
    from mga_kernels.engine.arguments import check_whole

    from ..evaluation.suite.config import ModelEntry, Suite, load_suite
    from ..evaluation.suite.markdown import to_markdown
    from ..evaluation.suite.table import measure, rows_of
    from ..settings.toml import overrides_of

    for name in ("lr", "save"):
        if getattr(args, name) is not None:
            raise InputError(f"evaluate: --{name} goes with --hr")
    if args.suite is not None:
        _refuse_settings(args)
        if Path(args.suite).suffix == ".json":
            return _table_of_figures(args)
        suite = load_suite(args.suite, overrides_of(args.overrides, "evaluate"))
    else:
        if is_whole(args.model):
            check_whole(**{name: getattr(args, name) for name in ("variant", "k", "fraction", "selection")})
        k = [args.k] if args.k is not None else [f"{100 * args.fraction}%"] if args.fraction is not None else []
        conventions = (args.colour or "", args.input_range or "", args.model_scale or 0)
        model = ModelEntry(Path(args.model).stem, args.model, *conventions)
        suite = Suite(args.scale, [model], [str(args.sets)], variants=args.variant or ["masked"], k=k, seed=args.seed)
        suite.selections = [args.selection] if args.selection else []
        suite.device, suite.dtype = args.device, args.dtype
        suite.check()
    rows = measure(rows_of(suite), suite.image_sets(), suite, args.json)
    return _write_table(args, to_markdown(rows, suite, f"Evaluation, x{suite.scale}"))


def _table_of_figures(args: argparse.Namespace) -> int:
    """The rows of a file of figures, as they are."""
    from ..evaluation.suite.store import tables

    if args.json is not None:
        raise InputError("evaluate: --json is for figures that are measured; leave it out")
    if not Path(args.suite).is_file():
        raise InputError(f"evaluate: there is no file of figures {args.suite}")
    return _write_table(args, tables(Path(args.suite)))


def _refuse_settings(args: argparse.Namespace) -> None:
    """InputError for an option that a suite decides."""
    defaults = {"model": DEFAULT_MODEL, "device": "auto", "dtype": "auto", "seed": 0}
    names = ("model", "scale", "variant", "k", "fraction", "selection", "seed", "device", "dtype")
    for name in (*names, "colour", "input_range", "model_scale"):
        if getattr(args, name) != defaults.get(name):
            option = name.replace("_", "-")
            raise InputError(f"evaluate: --{option} is a setting of the suite; change it in {args.suite}")


def _write_table(args: argparse.Namespace, text: str) -> int:
    if args.output is not None:
        write_text(args.output, text)
    print(text, end="")
    return 0


def _run_folder(args: argparse.Namespace) -> int:
    from ..evaluation.folder import evaluate
    from ..evaluation.models import variant_of
    from ..evaluation.suite.store import is_store
    from .models import load

    if args.json is not None and is_store(args.json):
        raise InputError(f"evaluate: {args.json} holds the rows of a suite, which would be lost; name another file")
    pairs = find_pairs(args.hr, args.lr, args.scale)
    if args.save is not None:
        inputs = identities(path for pair in pairs for path in pair if path)
        for hr, _ in pairs:
            check_output(args.save / f"{hr.stem}.png", overwrite=True, inputs=inputs)
    model = load(args, args.scale, runtime="pytorch")  # images go through it as tensors, so nothing else is prepared
    console = screen(highlight=False)
    result = {"model": str(args.model)} | evaluate(
        model,
        track(pairs, "evaluating", console=screen(stderr=True), transient=True, disable=not console.is_terminal),
        variant_of(model, args.variant[0] if args.variant else "masked"),
        args.selection,
        args.seed,
        args.save,
    )
    if args.json is not None:
        write_text(args.json, json.dumps(result, indent=2, allow_nan=False) + "\n")
    console.print(_table(result))
    return 0


def _table(result: Record) -> Table:
    amount = Amount(result["k"], result["fraction"], result["threshold"])
    how = f", {amount}, {result['selection']}" if result["variant"] == "masked" else ""
    table = Table(title=f"{result['model']} x{result['scale']} {result['variant']}{how}")
    table.add_column("image")
    table.add_column("PSNR-Y (dB)", justify="right")
    table.add_column("SSIM-Y", justify="right")
    for entry in [*result["images"], {"name": "mean"} | result["mean"]]:
        psnr = "equal" if entry["psnr_y"] is None else f"{entry['psnr_y']:.3f}"
        if entry["name"] == "mean" and entry is not result["images"][-1]:
            table.add_section()
        table.add_row(entry["name"], psnr, f"{entry['ssim_y']:.4f}")
    return table
