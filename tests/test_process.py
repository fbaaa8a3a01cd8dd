"""How the command ends by a signal: its code, its sentence, whole files only, in upscale and every other command."""

import os
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import commands
import numpy as np
import pytest
from PIL import Image
from tiny_model import write_tiny_model

import mga.cli
import mga.demo
import mga.start
from mga.cli import COMMANDS, main
from mga.console.process import Stopped, stoppable
from mga.console.screen import screen
from mga_kernels.images import read_image
from mga_kernels.system.files import whole_file

SIGNALS = {signal.SIGINT: (130, "interrupted"), signal.SIGTERM: (143, "SIGTERM"), signal.SIGHUP: (129, "SIGHUP")}


@pytest.fixture(autouse=True)
def signals_as_usual():
    """``nohup``, below which tests may run, has everything below it ignore SIGHUP."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("number", SIGNALS)
def test_a_real_signal_to_the_real_command(tmp_path, number):
    """While a file is being written, after the first of many is out."""
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    model = write_tiny_model(tmp_path / "tiny.safetensors")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)).save(folder / "000.png")
    for i in range(1, 200):
        (folder / f"{i:03}.png").write_bytes((folder / "000.png").read_bytes())
    process = commands.start("upscale", folder, "-o", out, "--model", model)
    deadline = time.monotonic() + 100
    while process.poll() is None and time.monotonic() < deadline:
        found = os.listdir(out) if out.exists() else []
        if any(name.endswith(".png") for name in found) and any(name.endswith(".part") for name in found):
            break
        time.sleep(0.001)
    process.send_signal(number)
    printed, errors = process.communicate(timeout=100)
    code, part = SIGNALS[number]
    assert process.returncode == code, errors
    assert errors.count("\n") == 1
    assert part in errors
    assert "of 200 images were finished; no partial file was left" in errors
    finished = names(out)
    assert 1 <= len(finished) < 200
    assert len(printed.splitlines()) <= len(finished)
    for name in finished:
        assert name.endswith(".png")
        assert not name.startswith(".")
        assert read_image(out / name).rgb.shape == (480, 640, 3)


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_ends_cleanly(tmp_path, monkeypatch, capsys, command, number):
    """Each is replaced by one that gets the signal while it writes a file."""

    def run(args):
        with whole_file(tmp_path / "out.bin") as stream:
            stream.write(b"half")
            stream.flush()
            assert len(names(tmp_path)) == 1
            signal.raise_signal(number)
            time.sleep(20)
        return 0

    writer = SimpleNamespace(add_arguments=lambda parser: None, run=run)
    monkeypatch.setattr(mga.cli, "importlib", SimpleNamespace(import_module=lambda name: writer))
    before = {each: signal.getsignal(each) for each in SIGNALS}
    code, part = SIGNALS[number]
    assert main([command]) == code
    output = capsys.readouterr()
    assert part in output.err
    assert output.err.count("\n") == 1
    assert names(tmp_path) == []
    assert {each: signal.getsignal(each) for each in SIGNALS} == before


@pytest.mark.parametrize("number", SIGNALS)
def test_the_demo_ends_cleanly(tmp_path, monkeypatch, capsys, number):
    def run(output, model):
        with whole_file(tmp_path / "out.bin"):
            signal.raise_signal(number)
            time.sleep(20)

    monkeypatch.setattr(mga.demo, "run", run)
    monkeypatch.setattr(sys, "argv", ["demo"])
    assert mga.demo.main() == SIGNALS[number][0]
    assert capsys.readouterr().err == "demo: interrupted\n"
    assert names(tmp_path) == []


def test_signals_that_are_ignored_or_handled_stay_so(monkeypatch):
    """After nohup the command outlives its terminal; a program that handles a signal goes on handling it."""
    heard = []
    before = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM)}
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
        with stoppable():
            signal.raise_signal(signal.SIGHUP)
            signal.raise_signal(signal.SIGTERM)
        assert heard == [signal.SIGTERM]
    except Stopped as stopped:
        pytest.fail(f"{stopped.signal} ended it")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_in_another_thread_signals_are_left_alone():
    failed = []

    def work():
        try:
            with stoppable():
                pass
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failed


def test_a_conversion_that_has_no_time_left_keeps_its_state(tmp_path, capsys):
    """Ctrl-C fits a mask to what there is; SIGTERM does not, since the machine may be shutting down."""
    from mga.conversion.convert import _finished

    class Fitting:
        early, finished_early = "fitting the mask", 0

        def run(self):
            signal.raise_signal(self.number)

        def finish_early(self):
            self.finished_early += 1

    fitting = Fitting()
    fitting.number = signal.SIGINT
    assert _finished(fitting, tmp_path)
    assert fitting.finished_early == 1
    fitting.number = signal.SIGTERM
    with stoppable(), pytest.raises(Stopped, match="the same command goes on from"):
        _finished(fitting, tmp_path)
    assert fitting.finished_early == 1


def test_an_error_of_the_system_is_a_sentence(tmp_path, monkeypatch, capsys):
    def run(args):
        return len((tmp_path / "missing").read_bytes())

    module = SimpleNamespace(add_arguments=lambda parser: None, run=run)
    monkeypatch.setattr(mga.cli, "importlib", SimpleNamespace(import_module=lambda name: module))
    assert main(["info"]) == 1
    assert capsys.readouterr().err == f"mga: info: {tmp_path}/missing: No such file or directory\n"
    monkeypatch.setenv("MGA_DEBUG", "1")
    with pytest.raises(FileNotFoundError):
        main(["info"])


def test_an_error_that_nobody_has_foreseen_is_a_sentence(monkeypatch, capsys):
    def run(args):
        return int("a\nb")

    module = SimpleNamespace(add_arguments=lambda parser: None, run=run)
    monkeypatch.setattr(mga.cli, "importlib", SimpleNamespace(import_module=lambda name: module))
    assert main(["info"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("mga: info failed unexpectedly (ValueError: invalid literal")
    assert said.endswith("); the environment MGA_DEBUG=1 shows where\n")
    assert said.count("\n") == 1
    monkeypatch.setenv("MGA_DEBUG", "1")
    with pytest.raises(ValueError, match="invalid literal"):
        main(["info"])


@pytest.mark.parametrize("columns", ["0", " 00 ", "1", "many", ""])
def test_lines_are_there_however_wide_the_screen_is_said_to_be(monkeypatch, capsys, columns):
    monkeypatch.setenv("COLUMNS", columns)
    screen(highlight=False, soft_wrap=True).print("a.png -> b.png")
    assert capsys.readouterr().out == "a.png -> b.png\n"


INTERRUPTED = """
import os, signal, sys

class Interrupting:
    def find_spec(self, name, *_):
        if name == "numpy._core._multiarray_umath":  # whose import makes an ImportError of it
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
sys.argv = ["mga", "models"]
from mga.start import main
main()
"""


def test_ctrl_c_while_modules_are_imported_is_no_screen_of_code():
    found = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, timeout=100)
    assert (found.returncode, found.stdout, found.stderr) == (-signal.SIGINT, b"", b"")


@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN, lambda *_: None])
def test_ctrl_c_is_what_it_was_once_modules_are_there(monkeypatch, handler):
    monkeypatch.setattr(sys, "argv", ["mga", "--version"])
    before = signal.signal(signal.SIGINT, handler)
    try:
        with pytest.raises(SystemExit):
            mga.start.main()
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_nohup(tmp_path):
    """SIGHUP to a real process that ignores it, as nohup makes one, changes nothing."""
    program = (
        "import os, signal; from mga.console.process import stoppable\n"
        "with stoppable():\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "print('done')\n"
    )
    result = subprocess.run(
        commands.after("import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)", [sys.executable, "-c", program]),
        capture_output=True,
        text=True,
        timeout=100,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "done\n", "")


def test_what_is_refused_at_once_does_not_wait_for_pytorch(tmp_path):
    """Its import takes seconds; a folder is looked through, and a wrong name answered, before."""
    script = "import sys; from mga.cli import main; code = main(sys.argv[1:]); print(code, 'torch' in sys.modules)"
    words = "upscale", tmp_path / "nothing.png", "-o", tmp_path / "out.png"
    path = os.pathsep.join(filter(None, sys.path))
    said = subprocess.run(
        [sys.executable, "-c", script, *map(str, words)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
        check=True,
    )
    assert said.stdout.split() == ["1", "False"]
    assert "nothing.png does not exist" in said.stderr
