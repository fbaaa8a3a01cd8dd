"""What of a film's frames is taken from the ones before: ``python bench/film_reuse.py MODEL ... [-o FILE]``.

Makes three films of 480x270: a still scene with an object that moves, a screen on which somebody types, points and
scrolls, and a scene held by hand. Every frame is upscaled by ``Frames``; of every tenth one, and of the first, also the
whole frame is made, in turn, and compared byte for byte. Seconds are those of the processor on one thread, so that
other work on the machine does not count; reading and encoding a video come on top of both.

``--commands CODEC``: the films are written as videos instead, without loss (ffv1) or as people have them (libx264),
and `mga video` is run on each with reuse and without, in turns: seconds of the processor for all that it does.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean, median

import numpy as np
import torch
from PIL import Image

from mga_kernels import MaskGuidedSR
from mga_kernels.engine import Frames

HEIGHT, WIDTH = 270, 480
FRAMES = 300
HEAD = "| model | film | the same | in parts | as a whole | work done | s a frame | as a whole, s | times as fast |"


def texture(height: int, width: int, seed: int) -> np.ndarray:
    """uint8 (H, W, 3): coarse and fine spots, as in a photograph."""
    random = np.random.default_rng(seed)
    layers = []
    for step, weight in ((32, 0.6), (8, 0.25), (2, 0.15)):
        small = random.integers(0, 256, (height // step + 2, width // step + 2, 3), dtype=np.uint8)
        layers.append(weight * np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)))
    return np.sum(layers, axis=0).clip(0, 255).astype(np.uint8)


def still(frames: int) -> Iterator[np.ndarray]:
    """An object of 40x40 goes to and fro before a scene that stays."""
    scene, thing = texture(HEIGHT, WIDTH, 1), texture(40, 40, 2)
    for number in range(frames):
        at = np.array([np.sin(number / 37), np.sin(number / 53 + 1)])
        top, left = ((at + 1) / 2 * (HEIGHT - 40, WIDTH - 40)).astype(int)
        frame = scene.copy()
        frame[top : top + 40, left : left + 40] = thing
        yield frame


def letter(random: np.random.Generator) -> np.ndarray:
    """bool (9, 6): strokes."""
    found = np.zeros((9, 6), bool)
    for _ in range(3):
        if random.random() < 0.5:
            found[random.integers(9), :5] = True
        else:
            found[:, random.integers(5)] = True
    return found


def text(height: int, width: int, random: np.random.Generator) -> np.ndarray:
    page = np.full((height, width, 3), 245, np.uint8)
    for top in range(4, height - 13, 14):
        for left in range(4, width - 10 - 7 * int(random.integers(12)), 7):
            page[top : top + 9, left : left + 6][letter(random)] = 30
    return page


def screen(frames: int) -> Iterator[np.ndarray]:
    """Of every 300 frames in 120 a letter comes with each fourth, in 60 a pointer moves, in 15 a page scrolls."""
    random = np.random.default_rng(3)
    window, page = np.full((HEIGHT, WIDTH, 3), 225, np.uint8), text(2 * HEIGHT, 300, random)
    window[30:250, 20:320] = page[:220]
    window[30:250, 340:470] = 255
    pointer, row, column, scrolled = [200, 200], 0, 0, 0
    for number in range(frames):
        at = number % 300
        if at < 120 and at % 4 == 0:
            top, left = 34 + 14 * row, 344 + 7 * column
            window[top : top + 9, left : left + 6][letter(random)] = 20
            row, column = (row, column + 1) if column < 16 else ((row + 1) % 15, 0)
        elif 150 <= at < 210:
            pointer = [pointer[0] + (-2 if at < 180 else 2), pointer[1] + (3 if at < 180 else -3)]
        elif 240 <= at < 255:
            scrolled = (scrolled + 8) % HEIGHT
            window[30:250, 20:320] = page[scrolled : scrolled + 220]
        frame = window.copy()
        for step in range(14):
            frame[pointer[0] + step, pointer[1] : pointer[1] + 1 + step // 2] = 0
        yield frame


def held(frames: int) -> Iterator[np.ndarray]:
    """It shakes by a pixel or two with each frame."""
    scene, random = texture(HEIGHT + 40, WIDTH + 40, 4), np.random.default_rng(5)
    top = left = 20
    for _ in range(frames):
        step = random.integers(-2, 3, 2)
        step[0] = step[0] or 1
        top, left = (int(np.clip(value + by, 0, 40)) for value, by in zip((top, left), step, strict=True))
        yield scene[top : top + HEIGHT, left : left + WIDTH].copy()


FILMS: dict[str, Callable[[int], Iterator[np.ndarray]]] = {
    "still but for an object": still,
    "screen": screen,
    "held by hand": held,
}


def processor(run: Callable[[], np.ndarray]) -> tuple[np.ndarray, float]:
    began = time.process_time()
    made = run()
    return made, time.process_time() - began


def measure(model: MaskGuidedSR, film: Iterator[np.ndarray], every: int) -> tuple[Frames, float, float]:
    """Seconds a frame with reuse and of whole frames, of which every ``every``-th is made."""
    frames, taken, whole = Frames(model), [], []
    for number, frame in enumerate(film):
        if number % every == 0:
            wanted, seconds = processor(lambda frame=frame: np.asarray(model.upscale(frame)))
            whole.append(seconds)
        made, seconds = processor(lambda frame=frame: frames.upscale(frame))
        taken.append(seconds)
        if number % every == 0 and not np.array_equal(made, wanted):
            raise SystemExit(f"frame {number} is not what it is as a whole")
    return frames, fmean(taken), fmean(whole)


FORMATS = {"ffv1": "bgr0", "libx264": "yuv420p"}


def write(path: Path, film: Iterator[np.ndarray], codec: str) -> None:
    import av

    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=25, options={"crf": "18"} if codec == "libx264" else {})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, FORMATS[codec]
        for frame in film:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(stream.encode(None))


def command(video: Path, model: str, *options: str) -> tuple[float, str]:
    """Seconds of the processor that `mga video` takes, and what it says of its reuse."""
    words = ["video", str(video), "-o", str(video.with_name("out.mkv")), "--model", model, "--overwrite", *options]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = subprocess.run([sys.executable, "-m", "mga", *words], check=True, capture_output=True, text=True).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    reused = next((line.partition(":")[2].partition(" of ")[0].strip() for line in said.splitlines()[1:]), "0%")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, reused


def commands(models: list[str], films: list[str], frames: int, codec: str, turns: int) -> Iterator[str]:
    yield "| model | film | codec of the film | work that was reused | with reuse, s | without, s | times as fast |"
    yield "|---|---|---|" + "--:|" * 4
    with tempfile.TemporaryDirectory() as folder:
        for kind, film in ((kind, FILMS[kind]) for kind in films):
            video = Path(folder) / f"{kind}.mkv"
            write(video, film(frames), codec)
            for name in models:
                pairs = [(command(video, name), command(video, name, "--no-reuse")) for _ in range(turns)]
                with_it, without = (median(one[side][0] for one in pairs) for side in (0, 1))
                cells = (
                    name,
                    kind,
                    codec,
                    pairs[0][0][1],
                    f"{with_it:.1f}",
                    f"{without:.1f}",
                    f"{without / with_it:.2f}",
                )
                yield f"| {' | '.join(cells)} |"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--frames", type=int, default=FRAMES)
    parser.add_argument("--every", type=int, default=10, help="of so many frames one is made as a whole, too")
    parser.add_argument("--commands", choices=FORMATS, metavar="CODEC", help="time whole commands: ffv1 or libx264")
    parser.add_argument("--films", nargs="+", choices=FILMS, default=[*FILMS], metavar="FILM", help=f"of {[*FILMS]}")
    parser.add_argument("--turns", type=int, default=1, help="of each command")
    parser.add_argument("-o", "--output", type=Path, help="where the table goes, as Markdown")
    options = parser.parse_args(arguments)
    if options.commands:
        for line in commands(options.models, options.films, options.frames, options.commands, options.turns):
            print(line, flush=True)
        return
    torch.set_num_threads(1)
    lines = [HEAD, "|---|---|" + "--:|" * 7]
    print("\n".join(lines), flush=True)
    for name in options.models:
        model = MaskGuidedSR.from_pretrained(name)
        model.upscale(texture(HEIGHT, WIDTH, 0))
        for kind in options.films:
            frames, taken, whole = measure(model, FILMS[kind](options.frames), options.every)
            told = frames.told
            counts = told.same, told.parts, len(told.whole)
            cells = [name, kind, *counts, f"{told.work / told.frames:.0%}"]
            cells += [f"{taken:.3f}", f"{whole:.3f}", f"{whole / taken:.2f}"]
            lines.append(f"| {' | '.join(map(str, cells))} |")
            print(lines[-1], flush=True)
    if options.output:
        options.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
