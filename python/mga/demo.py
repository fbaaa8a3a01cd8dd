"""``make demo``: the photograph that ships with the project, upscaled to 3840x2160, and what was refined in it."""

from __future__ import annotations

import argparse
import sys
import time
from importlib.resources import as_file, files
from pathlib import Path
from typing import cast

from PIL import Image

from mga_kernels.errors import MGAError
from mga_kernels.images import Photo, read_image, save_image
from mga_kernels.system.files import writable_folder

from .commands.options import DEFAULT_MODEL
from .console.process import exit_code, stoppable
from .drawing.overlay import draw_overlay, draw_strip


def run(output: Path, model_name: str) -> None:
    """Write result.png, mask.png and before-after.png into ``output``, replacing those of an earlier run."""
    writable_folder(output)
    started = time.perf_counter()
    from mga_kernels.engine.model import MaskGuidedSR
    from mga_kernels.ops import last_backend, operators

    model = MaskGuidedSR.from_pretrained(model_name)
    with as_file(files("mga") / "assets" / "demo.png") as path:
        photo = read_image(path)
    loaded = time.perf_counter()
    explanation = model.explain(photo)  # its own stage "read" is empty, because a Photo has been read already
    height, width = photo.rgb.shape[:2]
    cells, k = explanation.mask.size, len(explanation.indices)
    print(f"photograph  {width}x{height} -> {width * model.scale}x{height * model.scale}")
    print(f"model       {model_name}: {model.network} x{model.scale}, {model.device}, {model.info()['photographs']}")
    print(f"refined     K = {k} of {cells} cells of {model.patch_size}x{model.patch_size} ({100 * k / cells:.1f} %)")
    print("backends    " + ", ".join(f"{name} {last_backend(name)}" for name in operators() if last_backend(name)))
    stages = {"load": loaded - started} | {name: t for name, t in explanation.timings.items() if name != "read"}
    print("time        " + ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in stages.items()))

    cell = explanation.patch_size * explanation.scale
    coarse, final = cast(Photo, explanation.coarse), cast(Photo, explanation.image)
    pictures: dict[str, Image.Image | Photo] = {
        "result.png": final,
        "mask.png": draw_overlay(final.rgb, explanation.mask, explanation.indices, cell),
        "before-after.png": draw_strip(photo.rgb, coarse.rgb, final.rgb, explanation.mask, explanation.indices, cell),
    }
    for name, picture in pictures.items():
        save_image(picture, output / name, overwrite=True)
        print(f"written     {output / name}")
    print(f"total       {time.perf_counter() - started:.1f} s")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m mga.demo", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("demo"), metavar="DIR", help="default demo/")
    parser.add_argument("--model", default=DEFAULT_MODEL, metavar="NAME|PATH", help=f"default {DEFAULT_MODEL}")
    args = parser.parse_args()
    try:
        with stoppable():
            run(args.output, args.model)
    except MGAError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interrupt:
        print("demo: interrupted", file=sys.stderr)
        return exit_code(interrupt)
    return 0


if __name__ == "__main__":
    sys.exit(main())
