"""What was found out on this machine, kept in memory and in small files, so that nothing is found out twice."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..notices import warn
from .files import whole_file
from .threads import Lock

FORMAT = 1
MOST = 1000  # entries of a file, those written last


def cache_file(name: str) -> Path | None:
    """The file in the folder MGA_CACHE, or else in the user's cache folder (XDG_CACHE_HOME, ~/.cache).

    None where the user has no home.
    """
    folder = os.environ.get("MGA_CACHE")
    if not folder:
        home = os.environ.get("XDG_CACHE_HOME", "")
        folder = os.path.join(home if os.path.isabs(home) else "~/.cache", "mga_kernels")
    try:
        return Path(folder).expanduser() / name
    except RuntimeError:
        return None


class Kept:
    """Entries by key in the file ``name``; a key is a dict of what the entry depends on."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._entries: dict[str, Any] = {}
        self._read = False
        self._lock = Lock()

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._known())

    def find(self, key: Mapping[str, object]) -> object:
        """What a file says may be anything; None where it says nothing."""
        return self._known().get(_text(key))

    def keep(self, key: Mapping[str, object], entry: object) -> str | None:
        """In the file too, as its last; why it cannot be written, or None."""
        text, path = _text(key), cache_file(self.name)
        with self._lock:
            self._entries[text] = entry
            return "there is no home directory" if path is None else _save(path, text, entry)

    def _known(self) -> dict[str, Any]:
        with self._lock:
            if not self._read:
                path = cache_file(self.name)
                self._entries = ({} if path is None else _load(path)) | self._entries
                self._read = True
            return self._entries


def _text(key: Mapping[str, object]) -> str:
    return json.dumps(key, sort_keys=True)


def _save(path: Path, text: str, entry: object) -> str | None:
    entries = _load(path)  # other processes may have added some
    entries.pop(text, None)
    entries = dict(list((entries | {text: entry}).items())[-MOST:])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as stream:
            stream.write(json.dumps({"format": FORMAT, "entries": entries}, indent=1).encode())
    except (InputError, OSError) as error:
        return str(error)
    return None


def _load(path: Path) -> dict[str, Any]:
    """Entries of the file; none, with a warning, where it is not one that this package writes."""
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            return {}
        content = json.loads(path.read_text())
        if content["format"] != FORMAT:  # of another version, which is no fault
            return {}
        return dict(content["entries"])
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        warn(f"{path} cannot be read and is ignored; it will be written anew")
        return {}
