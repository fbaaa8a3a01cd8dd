"""The complexity table as a Markdown document."""

from __future__ import annotations

from ..files.records import Record
from .paper import DATASETS, NOTES
from .table import summary

TITLES = {
    1: "Table 1: five networks",
    3: "Table 3: one channel in the mask module, x4",
    4: "Table 4: FSRCNN x2",
    5: "Table 5: other splits of PAN, x2",
    6: "Table 6: patch sizes of FSRCNN-M, x4",
}
INTRODUCTION = """# Complexity of the networks, and the paper's figures

Made by `mga complexity --table`, which runs no network and reads no image. GMACs are 10^9 multiply-accumulates by the
convention that the paper's tables agree with; it stands in `mga.complexity.counting`. Each figure is followed by the
paper's and the difference in percent; a letter marks what was set aside and a cross what disagrees. GFLOPs are those of
`torch.utils.flop_counter` on the same images (two for each multiply-accumulate, transposed convolutions by their
input), for what this implementation computes, -D with the border that it needs.

{summary}.

A data set stands for its mean number of LR pixels, represented by two image sizes near it, weighted so that the mean is
exact; the images themselves are not needed. Means, LR images cropped to a multiple of p:

{pixels}

Test2K and Test4K are not published: their means are inferred from one figure for each scale (b)."""
REMARKS = """## Known deviations

* -M is counted up to 0.04 % too high: the paper charges less for the mask module than its two convolutions cost. Here
  the second one is charged once for each cell; at full resolution, as the released code runs it, -M would be up to
  0.3 % above the paper.
* -D is charged without the border of one pixel around the feature that the Refine-Net consumes; with it, -D would be
  0.2 % to 0.6 % above the paper (but for FSRCNN, 0.02 %).
* Table 6 needs the mean size on Urban100 for p = 2 and 8 too, which is known to some pixels only (0.02 % of a figure).
  With that for p = 4, FSRCNN-M(2) and (8) would be 0.3 % below and 0.4 % above the paper."""


def to_markdown(table: Record) -> str:
    pixels = [
        f"* {mean['dataset']} x{mean['scale']}, p = {mean['patch_size']}: {mean['pixels']:,.2f}"
        for mean in table["mean_lr_pixels"]
    ]
    parts = [INTRODUCTION.format(summary=summary(table), pixels="\n".join(pixels))]
    for number, title in TITLES.items():
        rows = [row for row in table["rows"] if row["table"] == number]
        parts.append(f"## {title}\n\n{_rows(rows)}")
    parts.append("## Set aside\n\n" + "\n".join(f"* {key}: {note}" for key, note in NOTES.items()))
    parts.append(REMARKS)
    return "\n\n".join(parts) + "\n"


def _rows(rows: list[Record]) -> str:
    head = ["network", "scale", "parameters", *(f"{name} GMACs" for name in DATASETS), "Urban100 GFLOPs (torch)"]
    lines = [f"| {' | '.join(head)} |", "|---|---|" + "---:|" * (len(head) - 2)]
    for row in rows:
        cells = [row["name"], f"x{row['scale']}", _cell(row["params"], f"{row['params']['ours']:,}")]
        cells += [_cell(row["gmacs"][name], f"{row['gmacs'][name]['ours']:,.2f}") for name in DATASETS]
        lines.append(f"| {' | '.join([*cells, format(row['gflops_torch']['Urban100'], ',.2f')])} |")
    return "\n".join(lines)


def _cell(cell: Record, ours: str) -> str:
    if "paper" not in cell:
        return ours
    mark = {True: "", False: " ✗", None: f" ({cell['note']})"}[cell["agrees"]]
    return f"{ours} / {cell['paper']} / {cell['difference_percent']:+.3f}{mark}"
