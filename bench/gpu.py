"""Everything that only a machine with an NVIDIA GPU can show, in one command: ``python bench/gpu.py [STAGE...]``.

It needs torch >= 2.11 with CUDA, a CUDA toolkit, a C++ compiler, ninja, pybind11 and pytest; no network. Stages:

  build      the native library, in place, with its CUDA kernels; registers and spills of every kernel
  tests      the tests of operators, backends, build, networks and engine, of which no CUDA test may be skipped
  sanitizer  the CUDA tests of the operators under compute-sanitizer, where the toolkit has it
  kernels    every operator in a CUDA graph, backends interleaved with PyTorch eager (and, with --compile,
             torch.compile), by CUDA events, with floors and spread, at C = 64 and 50; which targets are met
  engine     whole photographs at x4, 1080p and 4K, bytes to bytes, of five networks -M in a CUDA graph against stock
             -D, of SPAN, Compact and RRDBNet the whole network against itself, of SPAN, Compact and MSRResNet 30 % of
             the cells in regions, each network and size in a process of its own (see ``gpu_engine.py``)
  train      `mga train` with each of --configs and --budget, into a folder of its own under --runs, where its states
             and its weights are; what --limit stopped goes on with the next call

No command takes longer than --limit seconds, and what it started ends with it; --tests, --tools, --operators,
--networks, --sizes and --contenders choose what fits. The result is one JSON file with device, driver, versions and
commit, in bench/results/ or the folder of --out. It is written after every stage, and within a stage after every tool,
row, or network and size, and a later call adds to it: nothing that was measured is lost when something fails, and the
exit status is then 1. MGA_COMMIT names the commit of a copy without a history. ``--device cpu --tiny`` runs, without a
GPU, what of the stages does not need one, so that the first minute on a GPU is not spent on a typo.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

import gpu_quick
from gpu_process import ROOT, Clock, end_on_sigterm, stamp
from gpu_stages import BUILD, PYTEST, REGIONS, SANITIZED, SANITIZER_TOOLS, STAGES, TESTS, WHOLE, run_stage, together

RESULTS = ROOT / "bench/results"
DIVIDED = ["fsrcnn", "pan", "rcan", "rfdn", "srresnet"]  # networks of the paper
PLANNED_FOR_GPU = [*DIVIDED, *WHOLE, *REGIONS]
SIZES = ["1080p", "4K"]
WITHOUT_GPU = ["kernels", "engine", "train", "quick"]
ASKED_FOR = ["train", "quick"]  # which a call without stages does not run


def plan(options: argparse.Namespace) -> list[str]:
    """What each chosen stage would run, one line a stage."""
    words = {
        "quick": f"{', '.join(gpu_quick.STEPS)}; estimated are {gpu_quick.estimate(gpu_quick.FIRST):g} s up to "
        f"{gpu_quick.FIRST} and {gpu_quick.estimate():g} s for all; {options.seconds:g} s together",
        "build": f"MGA_CUDA=1 {' '.join(BUILD)}",
        "tests": " ".join([*PYTEST, *together(), *TESTS]),
        "sanitizer": f"compute-sanitizer --tool {{{','.join(SANITIZER_TOOLS)}}} on {' '.join(SANITIZED)}",
        "kernels": f"every operator at C=64 in bfloat16, at C=50 in float16 and float32, {options.rounds} rounds",
        "engine": f"{', '.join(options.networks)} at x4, {', '.join(options.sizes)}: "
        f"{'; '.join(options.contenders) or 'every contender'}; at most {options.limit:g} s each",
        "train": f"{', '.join(map(str, options.configs))}; at most {options.limit:g} s each",
    }
    return [f"{stage}: {words[stage]}" for stage in options.stages]


def without_gpu(stages: list[str]) -> str:
    """What cannot run here, why, and what can."""
    import torch

    why = "it was built without CUDA" if torch.version.cuda is None else "CUDA has no driver or no device"
    steps = [name for name, step in gpu_quick.STEPS.items() if step.needs_gpu]
    needed = [*(stage for stage in stages if stage != "quick"), *(steps if "quick" in stages else [])]
    kept = [stage for stage in stages if stage in WITHOUT_GPU]
    rehearsed = f", and {' '.join(kept)} --device cpu --tiny rehearses what needs none" if kept else ""
    return (
        f"torch finds no NVIDIA GPU here ({why}), which {', '.join(needed)} need; --dry-run lists what would "
        f"run{rehearsed}"
    )


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    stages = [*STAGES, "quick"]
    which = f"of {', '.join(stages)}; by default all but quick, and train where --configs is given"
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=which)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the JSON file")
    parser.add_argument("--rounds", type=int, default=100, help="timed rounds of the kernels stage (engine: a fifth)")
    parser.add_argument("--tests", nargs="+", default=[], metavar="NAME", help="test files, of tests and sanitizer")
    parser.add_argument("--tools", nargs="+", choices=SANITIZER_TOOLS, default=SANITIZER_TOOLS, help="of sanitizer")
    parser.add_argument("--operators", nargs="+", default=[], metavar="NAME", help="of the kernels stage")
    parser.add_argument(
        "--configurations", nargs="+", default=[], metavar="NAME", help='of it, such as "C=64 bfloat16"'
    )
    parser.add_argument("--compile", action="store_true", help="torch.compile of every row of it, which takes long")
    parser.add_argument("--networks", nargs="+", choices=PLANNED_FOR_GPU, default=PLANNED_FOR_GPU, help="of engine")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=SIZES, help="of its results")
    parser.add_argument("--contenders", nargs="+", default=[], metavar="NAME", help="see gpu_engine.py; all by default")
    parser.add_argument("--configs", nargs="+", type=Path, default=[], metavar="TOML", help="of the train stage")
    parser.add_argument("--set", dest="settings", nargs="+", default=[], metavar="NAME=VALUE", help="see mga train")
    parser.add_argument("--budget", metavar="TIME", help="of each configuration, over all calls; see mga train")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs", metavar="DIR", help="for states (default runs/)")
    parser.add_argument(
        "--limit",
        type=float,
        default=540,
        help="seconds for a command, the kernels, a network at a size, a configuration (540)",
    )
    parser.add_argument("--seconds", type=float, default=600, help="of quick, all of it (600)")
    parser.add_argument("--again", nargs="+", default=[], metavar="STEP", help="of quick: run though it has ended")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="with --device cpu: small tensors, figures without meaning")
    parser.add_argument("--dry-run", action="store_true", help="list what would run, without a GPU")
    options = parser.parse_args(arguments)
    for kind, given, known in (("stage", options.stages, stages), ("step", options.again, gpu_quick.STEPS)):
        unknown = [name for name in given if name not in known]
        if unknown:
            parser.error(f"there is no {kind} {unknown[0]!r}; choose from {', '.join(known)}")
    if (options.device == "cpu") != options.tiny:
        parser.error("--device cpu and --tiny go together: figures of a CPU are made by other benchmarks")
    if options.tiny:
        options.sizes, options.rounds = ["tiny"], min(options.rounds, 10)
    asked = options.stages or [s for s in stages if s not in ASKED_FOR or (s == "train" and options.configs)]
    options.stages = [s for s in stages if s in asked and (s in WITHOUT_GPU or not options.tiny)]
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    if options.dry_run:
        print("\n".join(plan(options)))
        return 0
    clock = Clock(options.seconds)
    import torch

    if options.device == "cuda" and not torch.cuda.is_available():
        print(f"bench/gpu.py: {without_gpu(options.stages)}", file=sys.stderr)
        return 2
    end_on_sigterm()
    sys.path[:0] = [str(ROOT), str(ROOT / "python")]
    from mga.files.records import to_json

    options.out.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"stamp": stamp(options.device), "stages": {}}
    print(json.dumps(report["stamp"], indent=1), flush=True)
    device = re.sub(r"[^a-z0-9]+", "-", report["stamp"]["device"].lower()).strip("-")
    path = options.out / f"gpu-{device}-{(report['stamp']['commit'] or 'unknown')[:10]}.json"
    for before in (path, RESULTS / path.name):  # the latter on another machine, in a copy that holds earlier results
        if before.exists():
            report["stages"] = json.loads(before.read_text())["stages"]
            break
    options.before = report["stages"]

    def save(stage: str, found: dict[str, Any]) -> None:
        report["stages"][stage] = found
        whole = path.with_suffix(".new")
        whole.write_text(to_json(report, levels=4))
        whole.replace(path)

    options.save = save
    failed = False
    for stage in options.stages:
        print(f"== {stage}", flush=True)
        if stage == "quick":
            failed |= not gpu_quick.run_steps(options, clock)
        else:
            failed |= not run_stage(stage, options)
    print(path)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
