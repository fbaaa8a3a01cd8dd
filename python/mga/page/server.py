"""What a browser asks the page for, over HTTP: Starlette's routes. Nothing here computes.

Anybody's page in the same browser can send requests here, so names of hosts that lead here by accident and requests
that another page made are refused; what belongs to a visit is found by its name only, which nobody can guess.
"""

from __future__ import annotations

import json
import threading
import time
import zipfile
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from mga_kernels.errors import InputError, MGAError

from ..console.failures import line_about
from .shown import as_shown
from .visits import Limits, Task, Visit, Visits
from .work import Worker

_ASSETS = {
    "": ("page.html", "text/html"),
    "page.css": ("page.css", "text/css"),
    "page.js": ("page.js", "text/javascript"),
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
Answer = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Site:
    """What the page offers: ``models`` by their descriptions, and ``formats``.

    ``describe`` gives that of a model's file on this machine, None where no such file may be named. ``hosts``: the
    names under which the page may be asked for, None where any is one.
    """

    models: Sequence[dict[str, Any]]
    formats: Sequence[dict[str, Any]]
    describe: Callable[[str], dict[str, Any]] | None
    hosts: Collection[str] | None


class Server:
    """The page as an ASGI application, for ``visits`` whose pictures ``worker`` upscales."""

    def __init__(self, site: Site, visits: Visits, worker: Worker, limits: Limits) -> None:
        self._site, self._visits, self._worker, self._limits = site, visits, worker, limits
        self._showing = threading.Lock()  # a copy is made once, not by two requests at a time
        routes = [Route(f"/{path}", _asset(*asset)) for path, asset in _ASSETS.items()]
        for method, path, answer in (
            ("POST", "/visit", self._visit),
            ("POST", "/leave", self._leave),
            ("GET", "/model", self._model),
            ("POST", "/picture", self._receive),
            ("POST", "/tasks", self._ask),
            ("GET", "/tasks", self._tell),
            ("GET", "/shown", self._show),
            ("GET", "/result", self._result),
            ("GET", "/mask", self._mask),
            ("GET", "/zip", self._zip),
        ):
            routes.append(Route(path, _answering(answer), methods=[method]))
        guard = Middleware(BaseHTTPMiddleware, dispatch=self._guard)
        self.application = Starlette(routes=routes, middleware=[guard])

    async def _guard(self, request: Request, answer: Answer) -> Response:
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        if self._site.hosts is not None and urlsplit(f"//{host}").hostname not in self._site.hosts:
            response = _refusal(f"this page is not {host}", 403)
        elif origin is not None and urlsplit(origin).netloc != host:
            response = _refusal(f"{origin} is another page, which may not use this one", 403)
        else:
            response = await answer(request)
        response.headers.update(_HEADERS)
        return response

    async def _visit(self, request: Request) -> Response:
        limits = {"bytes": self._limits.bytes, "pixels": self._limits.pixels, "files": self._limits.files}
        offer = {"models": self._site.models, "formats": self._site.formats, "paths": self._site.describe is not None}
        return JSONResponse({"visit": self._visits.new().id, "limits": limits, **offer})

    async def _leave(self, request: Request) -> Response:
        await run_in_threadpool(self._visits.leave, request.query_params.get("visit", ""))
        return Response(status_code=204)

    async def _model(self, request: Request) -> Response:
        """The description of a file of a network."""
        self._of(request)
        if self._site.describe is None:
            raise InputError("this page offers its own models only")
        path = request.query_params.get("path", "")
        return JSONResponse(await run_in_threadpool(self._site.describe, path))

    async def _receive(self, request: Request) -> Response:
        """A file, which is the body; its name is in the address."""
        visit = self._of(request)
        name = request.query_params.get("name", "")
        if len(visit.pictures) >= self._limits.files:
            raise InputError(
                f"{name}: a page takes {self._limits.files} files; `mga upscale FOLDER -o OUT` takes any number"
            )
        id, path = visit.room(name)
        try:
            await self._keep(request, path)
            picture = await run_in_threadpool(visit.add, id, path, self._limits)
        except BaseException as problem:
            with suppress(OSError):  # the visit may be gone meanwhile
                path.unlink(missing_ok=True)
                path.parent.rmdir()
            if isinstance(problem, ClientDisconnect):
                return Response(status_code=204)  # which nobody reads
            raise _about(path, problem) from problem
        return JSONResponse({"id": picture.id, "name": picture.name, "size": picture.size})

    async def _keep(self, request: Request, path: Path) -> None:
        most = self._limits.bytes
        error = InputError(
            f"{path.name} is larger than the {most / 1e6:.4g} MB that this page takes; `mga upscale` takes any file, "
            "or start `mga ui` with --max-megabytes"
        )
        if int(request.headers.get("content-length") or 0) > most:
            raise error
        received = 0
        with path.open("xb") as file:
            async for part in request.stream():
                received += len(part)
                if received > most:
                    raise error
                file.write(part)

    async def _ask(self, request: Request) -> Response:
        """Pictures of a visit by id, and the options for all of them."""
        visit = self._of(request)
        asked = _plain(await request.body())
        missing = [id for id in asked["pictures"] if id not in visit.pictures]
        if missing or not asked["pictures"]:
            raise InputError("there is no picture to upscale; choose one")
        tasks = [visit.ask(visit.pictures[id], asked["options"], asked["mask"]) for id in asked["pictures"]]
        try:
            await run_in_threadpool(self._worker.check, tasks[0])
        except BaseException:
            for task in tasks:
                del visit.tasks[task.id]
            raise
        self._worker.add(visit, tasks)
        return JSONResponse({"tasks": [task.id for task in tasks]})

    async def _tell(self, request: Request) -> Response:
        return JSONResponse({"tasks": [_state(task) for task in self._of(request).tasks.values()]})

    async def _show(self, request: Request) -> Response:
        visit, id = self._of(request), request.query_params.get("id", "")
        if id in visit.pictures:
            picture = visit.pictures[id]
            source, folder = picture.path, picture.folder
        else:
            task = _done(visit, id)
            assert task.result is not None
            source, folder = task.result, task.folder
        path, kind = await run_in_threadpool(self._copied, source, folder)
        return FileResponse(path, media_type=kind)

    def _copied(self, source: Path, folder: Path) -> tuple[Path, str]:
        with self._showing:
            return as_shown(source, source.name, folder)

    async def _result(self, request: Request) -> Response:
        task = _done(self._of(request), request.query_params.get("id", ""))
        assert task.result is not None
        return FileResponse(task.result, media_type="application/octet-stream", filename=task.result.name)

    async def _mask(self, request: Request) -> Response:
        task = _done(self._of(request), request.query_params.get("id", ""))
        if task.mask is None:
            raise InputError(f"{task.picture.name} has no picture of refined cells")
        return FileResponse(task.mask, media_type="image/png")

    async def _zip(self, request: Request) -> Response:
        visit = self._of(request)
        ids = request.query_params.get("ids", "").split(",")
        tasks = [visit.tasks[id] for id in ids if id in visit.tasks]
        path = await run_in_threadpool(_zipped, tasks, visit.folder / f"{time.monotonic_ns()}.zip")
        removed = BackgroundTask(path.unlink, missing_ok=True)
        return FileResponse(path, media_type="application/zip", filename="upscaled.zip", background=removed)

    def _of(self, request: Request) -> Visit:
        return self._visits.get(request.query_params.get("visit", ""))


def _asset(name: str, kind: str) -> Answer:
    text = (files(__package__) / name).read_text()

    async def answer(request: Request) -> Response:
        return Response(text, media_type=kind)

    return answer


def _answering(answer: Answer) -> Answer:
    """With what goes wrong as a sentence."""

    async def answered(request: Request) -> Response:
        try:
            return await answer(request)
        except Exception as error:
            return _refusal(_sentence(error), 400)

    return answered


def _sentence(error: Exception) -> str:
    return str(error) if isinstance(error, MGAError) else line_about(Path("mga ui"), error)


def _about(path: Path, problem: BaseException) -> BaseException:
    """The problem with a file that was received, named as its owner knows it."""
    if not isinstance(problem, Exception):
        return problem
    return InputError(line_about(Path(path.name), problem).replace(f"{path.parent}/", ""))


def _refusal(text: str, code: int) -> Response:
    return JSONResponse({"error": text}, code)


def _plain(body: bytes) -> dict[str, Any]:
    """The body of a request for work, of the types that it should have."""
    try:
        asked = json.loads(body)
    except ValueError:
        asked = None
    if not isinstance(asked, dict):
        raise InputError("a request for work is an object")
    found: dict[str, Any] = {"mask": asked.get("mask") is True}
    for name in ("pictures", "options"):
        found[name] = asked.get(name)
        if not isinstance(found[name], list) or not all(isinstance(word, str) for word in found[name]):
            raise InputError(f"the {name} of a request for work are a list of words")
    return found


def _done(visit: Visit, id: str) -> Task:
    task = visit.tasks.get(id)
    if task is None or task.state != "done":
        raise InputError("there is no such result")
    return task


def _state(task: Task) -> dict[str, Any]:
    facts: dict[str, Any] = {"id": task.id, "picture": task.picture.id, "name": task.picture.name, "state": task.state}
    if task.state == "working":
        facts["seconds"] = time.monotonic() - task.started
    elif task.state == "failed":
        facts["error"] = task.error
    elif task.state == "done" and task.result is not None:
        facts |= {"seconds": task.seconds, "how": task.how, "size": task.size, "notes": list(task.notes)}
        facts |= {"file": task.result.name, "bytes": task.result.stat().st_size, "mask": task.mask is not None}
    return facts


def _zipped(tasks: Iterable[Task], path: Path) -> Path:
    """A file of all results that there are, as they are, and of the names of what failed with the reasons."""
    names: set[str] = set()
    with zipfile.ZipFile(path, "x", zipfile.ZIP_STORED) as archive:
        failed = []
        for task in tasks:
            if task.result is not None and task.state == "done":
                archive.write(task.result, _new_name(task.result.name, names))
            else:
                failed.append(task.error or f"{task.picture.name}: not come to")
        if failed:
            archive.writestr(_new_name("failures.txt", names), "".join(f"{line}\n" for line in failed))
    return path


def _new_name(name: str, names: set[str]) -> str:
    """The name, with a number where one of ``names`` is the same but for case; it is one of them then."""
    path, number, new = Path(name), 1, name
    while new.lower() in names:
        number += 1
        new = f"{path.stem} ({number}){path.suffix}"
    names.add(new.lower())
    return new
