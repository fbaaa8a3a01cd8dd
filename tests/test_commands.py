"""The command itself: its version, help and names, errors with a traceback, and one that is handed on."""

import pytest

from mga.cli import main
from mga_kernels import __version__
from mga_kernels.errors import ImageError


def test_version_help_and_unknown_commands(capsys):
    for arguments, code, part in [
        (["--version"], 0, f"mga {__version__}"),
        (["--help"], 0, "upscale photographs"),
        (["upscale", "--help"], 0, "--save-mask"),
        (["sharpen"], 2, "invalid choice"),
        ([], 2, "COMMAND"),
    ]:
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == code
        output = capsys.readouterr()
        assert part in output.out + output.err
        assert code == 0 or output.err.count("\n") == 1


def test_traceback_on_request(tmp_path, monkeypatch):
    monkeypatch.setenv("MGA_DEBUG", "1")
    with pytest.raises(ImageError, match="does not exist"):
        main(["upscale", str(tmp_path / "none.png"), "-o", str(tmp_path / "out.png")])


def test_train_is_handed_to_the_training_code(tmp_path, capsys):
    assert main(["train", str(tmp_path / "none.toml")]) == 1
    error = capsys.readouterr().err
    assert "none.toml" in error
    assert error.count("\n") == 1
