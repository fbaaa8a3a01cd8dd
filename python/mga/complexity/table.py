"""Our counts beside the figures of Tables 1 and 3 to 6 of the paper, as JSON and as Markdown."""

from __future__ import annotations

from functools import cache

import torch

from mga_kernels import __version__
from mga_kernels.networks import ModelConfig

from ..files.records import Record
from . import paper
from .counting import NetworkCosts
from .paper import DATASETS, Row

TOLERANCE = 1e-3  # relative; the rounding of the printed figure where that is coarser


def sizes_of_mean(pixels: float) -> tuple[tuple[int, int, float], ...]:
    """Two LR sizes (width, height, weight), about 4:3, whose weighted mean has exactly this number of pixels.

    Nearly all costs are proportional to the number of pixels or do not depend on it, so that these two images stand for
    all. Sides are multiples of 8, so that no patch size crops anything.
    """
    width = 8 * round((pixels * 4 / 3) ** 0.5 / 8)
    height = int(pixels / width) // 8 * 8
    share = (pixels / width - height) / 8
    return (width, height, 1 - share), (width, height + 8, share)


def agrees(ours: float, printed: str) -> bool:
    """Whether ``ours``, in the unit of the printed figure, is within the tolerance of it."""
    rounding = 0.5 * 10.0 ** -len(printed.partition(".")[2])
    return abs(ours - float(printed)) <= max(TOLERANCE * float(printed), rounding * (1 + 1e-9))


@cache
def _costs(config_json: str) -> NetworkCosts:
    return NetworkCosts(ModelConfig.from_json(config_json))


def costs_of(row: Row) -> NetworkCosts:
    """Costs of the row's network, which rows with the same configuration share."""
    return _costs(row.config().to_json())


@cache
def mean_pixels(dataset: str, scale: int, patch_size: int) -> float:
    """Mean number of LR pixels of a data set, cropped to a multiple of p (Test2K, Test4K: of 4)."""
    if dataset == "Urban100":
        return paper.URBAN100_PIXELS[scale, patch_size]
    wanted = paper.INFERRED_FROM[scale]
    row = next(r for r in paper.rows() if r.scale == scale and (r.table, r.network, r.variant) == wanted)
    width, height = 512, 384
    macs_per_pixel = costs_of(row).cost(row.variant, width, height).macs / (width * height)
    return float(row.gmacs[dataset]) * 1e9 / macs_per_pixel


def compare(row: Row) -> Record:
    """Our figures of a row and the paper's, as they go into the JSON file."""
    costs = costs_of(row)
    params = costs.parameters(row.variant)
    result: Record = {
        "table": row.table,
        "name": row.name,
        "network": row.network,
        "scale": row.scale,
        "variant": row.variant,
        "setting": row.setting,
        "params": {"ours": params},
        "gmacs": {},
        "gflops_torch": {},
    }
    if row.params is not None:
        unit = {"K": 1e3, "M": 1e6}[row.params[-1]]
        result["params"] = {"ours": params} | _judged(row, "params", params / unit, row.params[:-1])
        result["params"]["paper"] = row.params
    for dataset in DATASETS:
        sizes = sizes_of_mean(mean_pixels(dataset, row.scale, costs.config.patch_size))
        cost = costs.mean_cost(row.variant, sizes)
        gmacs = cost.macs / 1e9
        result["gmacs"][dataset] = {"ours": gmacs} | _judged(row, dataset, gmacs, row.gmacs[dataset])
        result["gflops_torch"][dataset] = cost.flops / 1e9
    return result


def _judged(row: Row, column: str, ours: float, printed: str) -> Record:
    note = paper.note(row, column)
    return {
        "paper": printed,
        "difference_percent": 100 * (ours / float(printed) - 1),
        "agrees": None if note else agrees(ours, printed),
        "note": note,
    }


def make_table() -> Record:
    """The whole table, as it goes into the JSON file."""
    rows = [compare(row) for row in paper.rows()]
    verdicts = [cell["agrees"] for row in rows for cell in (row["params"], *row["gmacs"].values()) if "paper" in cell]
    tested = [verdict for verdict in verdicts if verdict is not None]
    return {
        "figures": len(verdicts),
        "tested": len(tested),
        "agree": sum(tested),
        "versions": {"mga_kernels": __version__, "torch": torch.__version__.partition("+")[0]},
        "mean_lr_pixels": [
            {"dataset": dataset, "scale": scale, "patch_size": p, "pixels": mean_pixels(dataset, scale, p)}
            for dataset in DATASETS
            for scale, p in paper.URBAN100_PIXELS
            if p == 4 or dataset == "Urban100"
        ],
        "rows": rows,
    }


def summary(table: Record) -> str:
    return (
        f"{table['agree']} of {table['tested']} figures of the paper agree within 0.1 % or their rounding; "
        f"{table['figures'] - table['tested']} more are misprints, or no test"
    )


def disagreements(table: Record) -> list[str]:
    """A line for every figure that should agree and does not."""
    return [
        f"Table {row['table']}, {row['name']} x{row['scale']}, {column}: {cell['ours']:.6g}, the paper has "
        f"{cell['paper']} ({cell['difference_percent']:+.3f} %)"
        for row in table["rows"]
        for column, cell in [("params", row["params"]), *row["gmacs"].items()]
        if cell.get("agrees") is False
    ]
