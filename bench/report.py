"""A table and plots of what bench/images.py measured: bench/results/images.md, images_*.svg.

    python bench/report.py [--results DIR]

The plots need matplotlib (`pip install -e .[peers]`); without it only the table is made. Git does not keep them.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

Record = dict[str, Any]
OURS, WHOLLY = "M, ours", "D, ours"
ORDER = ("fsrcnn", "pan", "rfdn", "srresnet", "rcan")
INSTRUCTIONS = {
    "avx512_bf16": "AVX-512 bf16",
    "avx512": "AVX-512",
    "avx2": "AVX2",
    "neon": "NEON",
    "portable": "plain C++",
}
COLOURS = {"M": "#c2410c", "D": "#1d4ed8", "original": "#4b5563"}


def load(folder: Path) -> list[Record]:
    records = [json.loads(path.read_text()) for path in folder.glob("images_*.json")]
    names, sets = ({name: i for i, name in enumerate(order)} for order in (ORDER, INSTRUCTIONS))

    def place(r: Record) -> tuple[Any, ...]:
        return names.get(r["network"], 9), r["scale"], r["lr"], sets.get(r["instructions"], 9), is_held(r)

    return sorted(records, key=place)


def is_held(record: Record) -> bool:
    """Whether the processor has more than the instructions that all were held to."""
    return "held to" in record["processor"]


def cpu(record: Record) -> str:
    name = INSTRUCTIONS.get(record["instructions"], record["instructions"])
    return f"{name}, held" if is_held(record) else name


def fastest(record: Record, function: str) -> tuple[str, float] | None:
    """Name and seconds of the fastest stock way to run this function, by its ratio to ours in its heat."""
    rows = [
        (row["times_ours"], name, row["median"])
        for name, row in record["contenders"].items()
        if row["stock"] and row["function"] == function
    ]
    return min(rows)[1:] if rows else None


def summary(records: list[Record]) -> list[str]:
    """Ours against the fastest stock -D and original: what is saved in operations, and what of it in seconds."""
    lines = [
        "| network | result | CPU | ours (s) | M/D seconds, both ours | M/D GMACs, without the coarse image of -D "
        "| fastest stock -D (s) | M/D seconds | M/D GMACs "
        "| fastest stock original (s) | M/original seconds | M/original GMACs | mask, gather, paste |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for record in records:
        ours, gmacs = record["contenders"][OURS]["median"], record["gmacs"]
        cells = [f"{record['network']} x{record['scale']}", record["size"], cpu(record), f"{ours:.3f}"]
        wholly = record["contenders"].get(WHOLLY)
        cells.append("not measured" if wholly is None else f"{1 / wholly['times_ours']:.3f}")
        cells.append(f"{gmacs['M'] / gmacs['D alone']:.3f}")
        for function in ("D", "original"):
            found = fastest(record, function)
            if found is None:
                cells += ["not measured", "", f"{gmacs['M'] / gmacs[function]:.3f}"]
                continue
            name, seconds = found
            way = name.partition(", ")[2]
            ratio = 1 / record["contenders"][name]["times_ours"]
            cells += [f"{seconds:.3f} ({way})", f"{ratio:.3f}", f"{gmacs['M'] / gmacs[function]:.3f}"]
        lines.append(f"| {' | '.join(cells)} | {overhead(record):.1f} % |")
    return lines


def details(record: Record) -> list[str]:
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    width, height = record["lr"]
    lines = [
        f"## {record['network']} x{record['scale']}, {record['size']}, {cpu(record)}",
        "",
        f"LR {width}x{height}, K = {record['k']}, {record['threads']} threads of {record['processor']}; {versions}.",
        "",
        "| contender | median (s) | min to max | runs | times ours | GMACs | PSNR against fp32 (dB) | peak (MiB) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in sorted(record["contenders"].items(), key=lambda item: item[1]["median"]):
        psnr = "" if row["psnr_against_fp32"] is None else f"{row['psnr_against_fp32']:.1f}"
        lines.append(
            f"| {name} | {row['median']:.3f} | {row['min']:.3f} to {row['max']:.3f} | {row['runs']} "
            f"| {row['times_ours']:.2f} | {record['gmacs'][row['function']]:,.1f} | {psnr} | {row['peak_mib']} |"
        )
    lines += [f"| {name} | {reason} | | | | | | |" for name, reason in record["missing"].items()]
    whole = sum(record["stages"].values())
    shares = ", ".join(f"{name} {100 * seconds / whole:.1f} %" for name, seconds in record["stages"].items())
    heats = max(row["heat"] for row in record["contenders"].values())
    return [
        *lines,
        "",
        f"Ours runs in {record['info']['photographs']}. By stages: {shares}; mask, gather and paste together "
        f"{overhead(record):.1f} %." + (f" {heats} heats, with ours in each, for want of memory." if heats > 1 else ""),
        "",
    ]


def overhead(record: Record) -> float:
    """Share of -M's time, in %, of what is neither Base-Net nor Refine-Net."""
    return 100 * sum(record["stages"][name] for name in ("mask", "gather", "paste")) / sum(record["stages"].values())


def table(records: list[Record]) -> str:
    lines = ["# Whole images on the CPU, bytes to bytes", ""]
    lines += [
        "Made by `python bench/images.py` and `python bench/report.py`. Each row of the first table is one run, in",
        "which all contenders took turns; its fastest stock ones are those of the contenders that took part, which the",
        "tables below list. A seconds ratio below the GMACs ratio means that no saving was lost.",
        "",
    ]
    lines += [*summary(records), ""]
    for record in records:
        lines += details(record)
    return "\n".join(lines).rstrip() + "\n"


def draw(records: list[Record], folder: Path) -> list[Path]:
    """Seconds against GMACs (the paper's Figure 1 with seconds), and seconds for each megapixel against the size."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "images"
    import matplotlib.pyplot as plt

    made = []
    for scale, size, kind in sorted({(r["scale"], r["size"], cpu(r)) for r in records}):
        figure, axes = plt.subplots(figsize=(7, 5))
        group = [r for r in records if (r["scale"], r["size"], cpu(r)) == (scale, size, kind)]
        for record in group:
            points = {"M": record["contenders"][OURS]["median"]}
            points |= {f: found[1] for f in ("D", "original") if (found := fastest(record, f))}
            xs, ys = [record["gmacs"][f] for f in points], list(points.values())
            axes.plot(xs, ys, color="#d1d5db", zorder=1)
            for function, x, y in zip(points, xs, ys, strict=True):
                axes.scatter(x, y, color=COLOURS[function], zorder=2)
            axes.annotate(record["network"], (xs[0], ys[0]), textcoords="offset points", xytext=(6, -12))
        for function, label in (("M", "-M, ours"), ("D", "-D, fastest stock"), ("original", "original, fastest stock")):
            axes.scatter([], [], color=COLOURS[function], label=label)
        title = f"x{scale}, {size} result, {kind}"
        axes.set(xscale="log", yscale="log", xlabel="GMACs", ylabel="seconds", title=title)
        axes.legend()
        made.append(_save(figure, folder / f"images_x{scale}_{size}_{kind.replace(', ', '_').replace(' ', '_')}.svg"))
    groups = defaultdict(list)
    for record in records:
        groups[record["network"], record["scale"], cpu(record)].append(record)
    growing = {key: group for key, group in groups.items() if len(group) > 1}
    if growing:
        figure, axes = plt.subplots(figsize=(7, 5))
        for (network, scale, kind), group in growing.items():
            pixels = [r["lr"][0] * r["lr"][1] * scale**2 / 1e6 for r in group]
            rate = [r["contenders"][OURS]["median"] / p for r, p in zip(group, pixels, strict=True)]
            axes.plot(pixels, rate, marker="o", label=f"{network} x{scale}, {kind}")
        axes.set(xscale="log", yscale="log", xlabel="megapixels of the result", ylabel="seconds for each megapixel")
        axes.set_title("-M, ours, as the image grows")
        axes.legend()
        made.append(_save(figure, folder / "images_growth.svg"))
    return made


def _save(figure, path: Path) -> Path:
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    records = load(args.results)
    if not records:
        parser.exit(1, f"report: no result in {args.results}; run bench/images.py first\n")
    (args.results / "images.md").write_text(table(records))
    print("\n".join(summary(records)))
    try:
        for path in draw(records, args.results):
            print(f"written: {path}")
    except ImportError:
        print("report: no plots, matplotlib is not installed")


if __name__ == "__main__":
    main()
