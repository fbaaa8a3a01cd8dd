"""That mga_kernels, as it is installed for this interpreter, is whole: its native library loads, and ``mga`` upscales
by every model that ships. ``--no-compiler``: and no compiler is on PATH, so that nothing could have been compiled."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

import mga_kernels
from mga_kernels import _native
from mga_kernels.checkpoints.native import shipped_models

TREE = Path(__file__).resolve().parent.parent
package = Path(mga_kernels.__file__).resolve().parent
assert not package.is_relative_to(TREE), f"{package} is the source tree, not what was installed"
assert _native.LIBRARY_ERROR is None, _native.LIBRARY_ERROR
assert _native.host().build_facts()["version"] == mga_kernels.__version__
if "--no-compiler" in sys.argv:
    found = [name for name in ("cc", "c++", "gcc", "g++", "clang", "clang++", "nvcc", "ninja") if shutil.which(name)]
    assert not found, f"compilers on PATH: {found}"

mga = shutil.which("mga", path=Path(sys.executable).parent)
assert mga is not None, "there is no command `mga` beside the interpreter"
with tempfile.TemporaryDirectory() as folder:
    Image.linear_gradient("L").resize((24, 16)).convert("RGB").save(f"{folder}/photo.png")
    for name in sorted(shipped_models()):
        subprocess.run([mga, "upscale", "photo.png", "-o", f"{name}.png", "--model", name], cwd=folder, check=True)
        scale = int(name.rpartition("-x")[2].partition("-")[0])
        assert Image.open(f"{folder}/{name}.png").size == (24 * scale, 16 * scale), name
print(f"installed in {package}, and upscales by {len(shipped_models())} models")
