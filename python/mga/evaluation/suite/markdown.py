"""The rows of a suite as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from ...files.records import Record
from .config import Suite

LETTERS = {"base": "-B", "decomposed": "-D", "all": "-A", "masked": "-M", "whole": ""}


def to_markdown(rows: Sequence[Record], suite: Suite, title: str) -> str:
    """A table of quality and cost, one of the masks where there are any, and what the figures are."""
    sets = list(rows[0]["sets"])
    parts = [f"# {title}", _quality(rows, sets, suite)]
    if any("mask" in row["sets"][name] for row in rows for name in sets):
        what = "Masks: l1 error; share of the K selected cells that are truly among the K worst (by chance)."
        parts += [what, _masks(rows, sets)]
    return "\n\n".join([*parts, _notes(rows, sets, suite)]) + "\n"


def _quality(rows: Sequence[Record], sets: Sequence[str], suite: Suite) -> str:
    seconds = "s / image" if suite.seconds == "tensors" else f"s at {suite.size}"
    header = ["model", "K", "parameters", f"GMACs at {suite.size}", seconds]
    header += [f"{name} ({len(rows[0]['sets'][name]['images'])})" for name in sets]
    lines = []
    for row in rows:
        cost = ["" if row["params"] is None else f"{row['params']:,}"]
        cost.append("" if row["gmacs"] is None else f"{row['gmacs']:.2f}")
        quality = [_cell(row["sets"][name]) for name in sets]
        lines.append([_name(row), _amount(row), *cost, f"{row['seconds']:.3f}", *quality])
    return _table(header, lines, left=2)


def _cell(figures: Record) -> str:
    """PSNR-Y / SSIM-Y / PSNR-RGB."""
    psnr, rgb = ("equal" if figures[name] is None else f"{figures[name]:.3f}" for name in ("psnr_y", "psnr_rgb"))
    return f"{psnr} / {figures['ssim_y']:.4f} / {rgb}"


def _masks(rows: Sequence[Record], sets: Sequence[str]) -> str:
    lines = []
    for row in rows:
        masks = [row["sets"][name].get("mask") for name in sets]
        if not any(masks):
            continue
        cells = []
        for mask in masks:
            overlap = "" if mask["overlap"] is None else f"; {mask['overlap']:.3f} ({mask['overlap_by_chance']:.3f})"
            cells.append(f"{mask['l1']:.4f}{overlap}")
        lines.append([_name(row), _amount(row), *cells])
    return _table(["model", "K", *sets], lines, left=2)


def _name(row: Record) -> str:
    return row["model"] if row["file"] is None else f"{row['model']} {LETTERS[row['variant']]}".rstrip()


def _amount(row: Record) -> str:
    if row["variant"] != "masked":
        return ""
    usual = "usual" if row["k"] is None else str(row["k"])  # a threshold's number is another one for each image
    text = usual if row["fraction"] is None else f"{100 * row['fraction']:g} %"
    return text if row["selection"] == "largest" else f"{text}, {row['selection']}"


def _notes(rows: Sequence[Record], sets: Sequence[str], suite: Suite) -> str:
    made = [name for name in sets if rows[0]["sets"][name]["lr"] == "bicubic"]
    notes = [
        f"x{suite.scale}, whole images. PSNR-Y (dB) / SSIM-Y / PSNR-RGB (dB): images of 8 bits, luma of MATLAB's "
        f"rgb2ycbcr, {suite.scale} pixels of border left out."
    ]
    if made:
        notes.append(f"LR images made by MATLAB's bicubic: {', '.join(made)}.")
    if luma := [row["model"] for row in rows if row.get("colour") == "y"]:
        notes.append(f"Networks of luma are compared by it, not rounded to 8 bits: {', '.join(luma)}.")
    if any(row["gmacs"] is not None for row in rows):
        notes.append("GMACs: 10^9 multiply-accumulates by the paper's convention (`mga complexity`).")
    ways = {"tensors": "as a tensor in PyTorch", "photographs": "as photographs are, in the fastest way there is"}
    if suite.seconds == "tensors":
        notes.append(
            f"Seconds: mean over all images, each run once as it was evaluated, {ways[suite.images]}, bytes to bytes."
        )
    else:
        notes.append(f"Images were made {ways[suite.images]}.")
        notes.append(f"Seconds: a photograph of {suite.size}, bytes to bytes, median of three.")
    units = {m["unit_from"] for row in rows for name in sets if (m := row["sets"][name].get("mask"))}
    if "set" in units:
        notes.append("Mask value 1 is the 0.95 quantile of the cells of the set, where weights do not say their unit.")
    return " ".join(notes)


def _table(header: Sequence[str], lines: Sequence[Sequence[str]], left: int) -> str:
    rule = ["---"] * left + ["---:"] * (len(header) - left)
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, rule, *lines))
