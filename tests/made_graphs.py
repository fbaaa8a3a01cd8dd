"""Graphs of ncnn that are odd, or wrong, at places that a seed chooses, and their weights.

``ODD`` changes nothing of what a graph computes, of ``WRONG`` none is a network; what ``BROKEN`` leaves may be one.
Each is given a ``random.Random``, the text of a graph and its weights, and returns both.
"""

from __future__ import annotations

import math
import random
import re
import struct
from collections.abc import Callable
from pathlib import Path

import local_originals as originals
import made_files
import ncnn_files

Files = tuple[str, bytes]
Change = Callable[[random.Random, str, bytes], Files]
TOKENS = "-1 0 1 7 99999999999 1e400 nan 0=-1 0=1e9 1=0 6=1 9=9 -23310=9,1 = , =1 %n \x1b[2J ../../x é".split(" ")

KINDS: dict[str, Callable[[Path, made_files.State], Path]] = {
    "rrdbnet": lambda path, state: ncnn_files.rrdbnet(path, state, 1, 2, storage="float"),
    "compact": lambda path, state: ncnn_files.compact(path, state, 3, 2, storage="float"),
    "span, folded": lambda path, state: ncnn_files.span(path, state, 255.0, originals.DIV2K, 2, "float"),
}


def graph(folder: Path, kind: str) -> Files:
    path = KINDS[kind](folder / f"{kind}.param", made_files.network(kind)[0])
    return path.read_text(), path.with_suffix(".bin").read_bytes()


def _of_text(change: Callable[[random.Random, str], str]) -> Change:
    return lambda rng, text, data: (change(rng, text), data)


def _of_data(change: Callable[[random.Random, bytes], bytes]) -> Change:
    return lambda rng, text, data: (text, change(rng, data))


def _of_lines(change: Callable[[random.Random, list[str]], list[str]]) -> Change:
    """The lines of layers; their number is said anew."""

    def apply(rng: random.Random, text: str, data: bytes) -> Files:
        magic, counts, *rows = text.splitlines()
        rows = change(rng, rows)
        return "\n".join([magic, f"{len(rows)} {counts.split()[1]}", *rows]) + "\n", data

    return apply


def _row(rng: random.Random, rows: list[str], kind: str = "") -> int:
    """The number of a layer of this kind, but for the input."""
    return rng.choice([n for n, row in enumerate(rows) if row.startswith(kind) and not row.startswith("Input")])


def _words(change: Callable[[random.Random, list[str], list[str]], list[str]], kind: str = "") -> Change:
    """Those of one line, given all lines too."""

    def apply(rng: random.Random, rows: list[str]) -> list[str]:
        number = _row(rng, rows, kind)
        return [*rows[:number], " ".join(change(rng, rows[number].split(), rows)), *rows[number + 1 :]]

    return _of_lines(apply)


def _blobs(rows: list[str]) -> list[str]:
    return sorted({name for row in rows for name in row.split()[4:] if "=" not in name} - {"output", "data"})


def _renamed_blobs(rng: random.Random, text: str) -> str:
    names = {name: f"{rng.randrange(10**6)}_{n}" for n, name in enumerate(_blobs(text.splitlines()[2:]))}
    return "\n".join(" ".join(names.get(word, word) for word in row.split()) for row in text.splitlines()) + "\n"


def _split(rng: random.Random, rows: list[str]) -> list[str]:
    """A Split, as ncnn's own converter puts it behind what several layers take, behind any one."""
    blob = rng.choice([name for name in _blobs(rows) if any(name in row.split()[4:] for row in rows)])
    found, uses = [], 0
    for row in rows:
        words = row.split()
        takes = int(words[2])
        for place in range(4, 4 + takes):
            if words[place] == blob:
                words[place], uses = f"{blob}_split_{uses}", uses + 1
        found.append(" ".join(words))
    maker = next(n for n, row in enumerate(found) if blob in row.split()[4 + int(row.split()[2]) :])
    names = " ".join(f"{blob}_split_{n}" for n in range(uses))
    return [*found[: maker + 1], f"Split s 1 {uses} {blob} {names}", *found[maker + 1 :]]


def _other_order_of_settings(rng: random.Random, words: list[str], rows: list[str]) -> list[str]:
    names = 4 + int(words[2]) + int(words[3])
    return words[:names] + rng.sample(words[names:], len(words) - names)


ODD: dict[str, Change] = {
    "lines of Windows": _of_text(lambda rng, text: text.replace("\n", "\r\n")),
    "tabs": _of_text(lambda rng, text: re.sub(" +", "\t", text)),
    "spaces at the ends": _of_text(lambda rng, text: text.replace("\n", " " * rng.randint(1, 9) + "\n")),
    "empty lines": _of_text(lambda rng, text: text + "\n \n" * rng.randint(1, 9)),
    "no last line's end": _of_text(lambda rng, text: text.rstrip()),
    "another number of blobs": _of_text(lambda rng, text: re.sub(r"\A(\d+\n\d+) \d+", r"\1 999", text)),
    "other names of blobs": _of_text(_renamed_blobs),
    "other names of layers": _of_lines(lambda rng, rows: [re.sub(r"^(\w+ +)\S+", r"\1x", row) for row in rows]),
    "a Split": _of_lines(_split),
    "settings said that are usual": _words(lambda rng, words, rows: [*words, "2=1", "3=1", "19=0"], "Convolution"),
    "settings in another order": _words(_other_order_of_settings, "Convolution"),
}

WRONG: dict[str, Change] = {
    "a loop": _words(lambda rng, words, rows: [*words[:4], "output", *words[5:]], "Conv"),
    "a loop of one": _words(lambda rng, w, rows: [*w[:4], w[4 + int(w[2])], *w[5:]], "Conv"),
    "a blob of nobody": _words(lambda rng, words, rows: [*words[:4], "nobody", *words[5:]], "Conv"),
    "a blob of two": _words(lambda rng, w, rows: [*w[: 4 + int(w[2])], "data", *w[5 + int(w[2]) :]]),
    "a layer less": _of_lines(lambda rng, rows: (n := _row(rng, rows)) and rows[:n] + rows[n + 1 :]),
    "one layer twice": _of_lines(lambda rng, rows: [*rows, rng.choice(rows)]),
    "a layer more than is said": _of_text(lambda rng, text: text + "Swish more 1 1 data more\n"),
    "a kind of another case": _words(lambda rng, words, rows: [words[0].upper(), *words[1:]]),
    "a kind with an escape": _words(lambda rng, words, rows: [f"\x1b[3{rng.randrange(8)}m", *words[1:]]),
    "a number of inputs": _words(lambda rng, w, rows: [*w[:2], str(int(w[2]) + rng.randint(1, 9)), *w[3:]]),
    "outputs without end": _words(lambda rng, w, rows: [*w, f"0={rng.choice([10**9, 2**31 - 1, 10**15])}"], "Conv"),
    "weights without end": _words(lambda rng, w, rows: [*w, f"6={rng.choice([10**9, 2**31 - 1, 10**15])}"], "Conv"),
    "a kernel without end": _words(lambda rng, w, rows: [*w, f"1={rng.choice([10**6, 2**31 - 1])}"], "Conv"),
    "outputs below one": _words(lambda rng, words, rows: [*words, f"0={rng.choice([0, -3, -(2**31)])}"], "Conv"),
    "a stride": _words(lambda rng, words, rows: [*words, f"3={rng.randint(2, 9)}"], "Conv"),
    "a dilation": _words(lambda rng, words, rows: [*words, f"2={rng.randint(2, 9)}"], "Conv"),
    "other padding": _words(lambda rng, w, rows: [*w, f"4={rng.choice([2, 5])}"], "Conv"),
    "an array without end": _words(lambda rng, w, rows: [*w, f"-23310={10**9}," + "1," * rng.randint(1, 2000) + "1"]),
    "a name without end": _words(lambda rng, words, rows: [words[0], "n" * 200_000, *words[2:-1], "0=x"]),
    "cut weights": _of_data(lambda rng, data: data[: rng.randrange(len(data) - 1)]),
    "more weights": _of_data(lambda rng, data: data + bytes(4 * rng.randint(1, 99))),
    "weights later": _of_data(lambda rng, data: bytes(4) + data[:-4]),
    "NaN in weights": _of_data(lambda rng, data: data[:-4] + struct.pack("<f", rng.choice([math.nan, -math.inf]))),
    "a graph for weights": lambda rng, text, data: (text, text.encode()),
    "weights for a graph": lambda rng, text, data: (data.decode("latin-1"), data),
    "a graph twice": lambda rng, text, data: (text + text, data + data),
    "half a graph": _of_text(lambda rng, text: text[: rng.randrange(20, len(text) * 9 // 10)]),
}


def _other_word(rng: random.Random, text: str) -> str:
    words = re.split(r"(\s+)", text)
    words[rng.randrange(0, len(words), 2)] = rng.choice(TOKENS)
    return "".join(words)


def _other_letter(rng: random.Random, text: str) -> str:
    place = rng.randrange(len(text))
    return text[:place] + rng.choice(["", "\0", "9", "\n", " ", "=", "\u202e"]) + text[place + 1 :]


def _other_byte(rng: random.Random, data: bytes) -> bytes:
    place = rng.randrange(len(data))
    return data[:place] + rng.randbytes(1) + data[place + 1 :]


BROKEN: dict[str, Change] = {
    "another word": _of_text(_other_word),
    "another letter": _of_text(_other_letter),
    "another byte of the weights": _of_data(_other_byte),
    "lines in another order": _of_lines(lambda rng, rows: rng.sample(rows, len(rows))),
    "a line of another network": _of_lines(lambda rng, rows: [*rows, "Pooling p 1 1 data p 0=1"]),
}
