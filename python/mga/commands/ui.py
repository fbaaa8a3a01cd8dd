"""``mga ui``: a page in the browser, on this machine, that upscales photographs as ``mga upscale`` does."""

from __future__ import annotations

import argparse
import errno
import ipaddress
import os
import socket
import webbrowser
from collections.abc import Collection, Iterable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, NoReturn

from mga_kernels.engine.settings import WHOLE
from mga_kernels.errors import InputError
from mga_kernels.images import FORMATS, LOSSY

from ..console.lines import one_line
from ..console.said import said_by_thread
from ..page.visits import Limits, Visits
from ..upscaling.jobs import EXTENSION
from . import upscale
from .options import number, whole_number

if TYPE_CHECKING:
    from ..page.work import Asked

PORT = 7860
_FORMATS = ("png", "jpg", "webp", "tiff", "avif", "heic", "jxl", "ppm", "gif")
# What a page may ask of `mga upscale`; the other options name files of this machine or are of its process.
_ASKABLE = frozenset("--model --quality --scale --size --width --height --format --fraction --wrap --no-wrap".split())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", metavar="NAME", help="where to listen (default 127.0.0.1)")
    parser.add_argument(
        "--allow-others",
        action="store_true",
        help="let other machines use the page where --host is open to them; there is no password",
    )
    port = whole_number("a port is a number up to 65535", most=65535)
    parser.add_argument("--port", type=port, metavar="N", help=f"which port (default {PORT}); 0 is any that is free")
    parser.add_argument(
        "--model", action="append", default=[], metavar="PATH", help="also offer this file of a network (repeatable)"
    )
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default auto)")
    most = number("a limit is a number above 0", above=0)
    parser.add_argument(
        "--max-megabytes", type=most, default=256.0, metavar="N", help="of a file that is sent (default 256)"
    )
    parser.add_argument(
        "--max-megapixels", type=most, default=200.0, metavar="N", help="of an image and of its result (default 200)"
    )


def run(args: argparse.Namespace) -> int:
    """The command: serve until a signal ends it. Files of the pages go with it."""
    try:
        import uvicorn

        from ..page.server import Server, Site
        from ..page.work import Worker
    except ImportError as error:
        need = f"needs the packages starlette and uvicorn ({error})"
        raise InputError(f"ui: the page {need}; pip install 'mga_kernels[ui]'") from error
    if args.device not in ("auto", "cpu"):  # else nobody would know before the first picture
        from mga_kernels.engine.arguments import choose_device

        choose_device(args.device)
    models = [*_shipped(), *map(_of_file, args.model)]
    limits = Limits(int(args.max_megabytes * 1e6), int(args.max_megapixels * 1e6))
    with closing(_listening(args)) as listening, said_by_thread() as said:
        inside = _loopback(listening)
        visits = Visits()
        names = None if inside else frozenset(one["model"] for one in models)
        worker = Worker(visits, limits, lambda words: _read(words, args.device, names), said)
        hosts = {"localhost", "127.0.0.1", "::1", args.host} if inside else None
        site = Site(models, _formats(), _of_file if inside else None, hosts)
        server = Server(site, visits, worker, limits)
        config = uvicorn.Config(
            server.application,
            log_level="critical",
            access_log=False,
            server_header=False,
            lifespan="off",
            ws="none",
            http="h11",
            timeout_graceful_shutdown=1,
        )
        address = _address(listening)
        with closing(visits), closing(worker):
            worker.start()
            print(f"mga: {address} (Ctrl-C ends it)", flush=True)
            if args.open:
                webbrowser.open(address)
            uvicorn.Server(config).run(sockets=[listening])
    return 0


def _listening(args: argparse.Namespace) -> socket.socket:
    """A socket at the address that is asked for; InputError where that is none, in use, or open to others."""
    port = PORT if args.port is None else args.port
    try:
        found = socket.getaddrinfo(args.host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as problem:
        raise InputError(f"ui: --host {args.host} is no address of this machine ({problem})") from problem
    found.sort(key=lambda one: one[0] != socket.AF_INET)  # what browsers take localhost for where both are there
    family, kind, protocol, _, address = found[0]
    listening = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":  # elsewhere it would let two servers have one port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if not args.allow_others and not ipaddress.ip_address(address[0]).is_loopback:
            raise InputError(
                f"ui: --host {args.host} is open to other machines, which could all use this one, and there is no "
                "password; add --allow-others if that is meant, or leave --host out"
            )
        listening.bind(address)
        listening.listen(128)
    except BaseException as problem:
        listening.close()
        if isinstance(problem, OSError) and problem.errno == errno.EADDRINUSE:
            remedy = "end what uses it, or choose another by --port, 0 for any that is free"
            raise InputError(f"ui: port {port} of {args.host} is in use; {remedy}") from problem
        if isinstance(problem, OSError):
            raise InputError(f"ui: cannot listen at {args.host}, port {port}: {problem.strerror}") from problem
        raise
    return listening


def _loopback(listening: socket.socket) -> bool:
    return ipaddress.ip_address(listening.getsockname()[0]).is_loopback


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def _shipped() -> list[dict[str, Any]]:
    """The models that come with the package, as the page offers them."""
    from mga_kernels.checkpoints import read_metadata, shipped_models

    from .shipped import describe

    offered, paths = [], shipped_models()
    for name, facts in describe().items():
        qualities = read_metadata(paths[name])["config"].qualities
        offered.append(_offered(name, facts["scale"], facts["masked"], facts["purpose"], qualities))
    return offered


def _of_file(path: str) -> dict[str, Any]:
    """A file of a network, as the page offers it; InputError or CheckpointError where it is none."""
    from mga_kernels.engine import MaskGuidedSR

    model = MaskGuidedSR.from_checkpoint(path, device="cpu")
    return _offered(path, model.scale, model.masked, "", model.config.qualities)


def _offered(model: str, scale: int, masked: bool, purpose: str, qualities: Iterable[str]) -> dict[str, Any]:
    words = [*qualities, WHOLE] if masked else []
    return {"model": model, "scale": scale, "masked": masked, "purpose": purpose, "qualities": words}


def _formats() -> list[dict[str, Any]]:
    """Formats of results, and whether they have a quality."""
    return [{"name": name, "lossy": FORMATS[EXTENSION[name]] in LOSSY} for name in _FORMATS]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"upscale: {message}")


def _read(words: Sequence[str], device: str, models: Collection[str] | None) -> Asked:
    """Words of ``mga upscale``, of which the first three are ours and the others what a page asked for.

    ``models``: those that it may ask for, None where that is any.
    """
    parser = _Parser(prog="mga upscale", add_help=False, allow_abbrev=False)
    upscale.add_arguments(parser)
    strange = [word for word in words[3:] if word.startswith("-") and word.partition("=")[0] not in _ASKABLE]
    if strange:
        raise InputError(f"upscale: a page cannot ask for {one_line(strange[0])}")
    args = parser.parse_args([*words, "--device", device], argparse.Namespace(command="upscale"))
    if args.model is None or (models is not None and args.model not in models):
        raise InputError(f"upscale: {args.model} is none of the models that this page offers; choose one of them")
    which = (args.model, _stamp(args.model), *map(str, (upscale.picture_quality(args), args.fraction, args.scale)))
    return upscale.request_of(args), which, lambda: upscale.load(args)


def _stamp(model: str) -> str:
    """What changes when the file of a model does."""
    try:
        found = os.stat(model)
    except OSError:
        return ""
    return f"{found.st_mtime_ns} {found.st_size}"
