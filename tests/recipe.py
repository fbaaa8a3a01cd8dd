"""setup.py as a module that builds nothing: which files are compiled, for which processor, with which flags."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from unittest import mock

ROOT = Path(__file__).resolve().parent.parent


def load_recipe() -> ModuleType:
    spec = importlib.util.spec_from_file_location("recipe_of_the_build", ROOT / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Where dataclasses look for it.
    with mock.patch.dict(sys.modules, {spec.name: module}), mock.patch("setuptools.setup"):
        spec.loader.exec_module(module)
    return module
