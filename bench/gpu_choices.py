"""Which plan was the faster one on each GPU that bench/gpu.py has measured: what ``MEASURED`` of choice.py has to be.

    python bench/gpu_choices.py [FILE...]

Of each network at 4K the convolutions of our own against the modules of the network, both in a CUDA graph and in turns;
of files of one GPU (by default all in bench/results/) the last one counts. A plan of our own that failed, or was not
captured, is the slower one; where the two were not timed together nothing is said.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from pprint import pformat
from typing import Any

from gpu_stages import REGIONS, WHOLE

RESULTS = Path(__file__).parent / "results"
SIZE, SCALE = "4K", 4
OWN, MODULES = "graph, own convolutions", "graph, eager"


def faster(case: dict[str, Any], function: str) -> str | None:
    """Of one network, "own" or "modules"; None where it was not measured."""
    rows = {name: case["contenders"].get(f"{function}, {name}") for name in (OWN, MODULES)}
    failed = {name for name in rows if f"{function}, {name}" in case.get("failed", {})}
    times = {name: row["median_ms"] for name, row in rows.items() if row and name not in failed}
    if MODULES not in times or not times.keys() | failed >= rows.keys():
        return None
    if OWN in failed:
        return "modules"
    apart = len({bool(row and row.get("earlier run")) for row in rows.values()}) > 1
    return None if apart else "own" if times[OWN] < times[MODULES] else "modules"


def choices(reports: Sequence[dict[str, Any]]) -> dict[str, dict[str, str]]:
    """By GPU and network, from reports of bench/gpu.py."""
    found: dict[str, dict[str, str]] = {}
    for report in sorted(reports, key=lambda each: each["stamp"]["date"]):
        table = found.setdefault(report["stamp"]["device"], {})
        for name, case in report["stages"].get("engine", {}).items():
            network, _, size = name.rpartition(" ")
            if size != SIZE:
                continue
            which = " in regions" if network in REGIONS else ""
            plan = faster(case, "W" if network in WHOLE else "M")
            if plan is not None:
                table[f"{case['network']} x{SCALE}{which}"] = plan
    return {device: dict(sorted(table.items())) for device, table in sorted(found.items()) if table}


def committed() -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in RESULTS.glob("gpu-*.json") if not path.name.startswith("gpu-cpu-")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    files = parser.parse_args().files
    reports = [json.loads(path.read_text()) for path in files] or committed()
    print(f"MEASURED: dict[str, dict[str, str]] = {pformat(choices(reports), width=100)}")


if __name__ == "__main__":
    main()
