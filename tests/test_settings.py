"""The language of configurations: types, ``--set``, texts that name settings and variables, words as values."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from mga.cli import main
from mga.settings.toml import load, overrides_of, read_table
from mga.settings.values import amount, parse_size
from mga_kernels.errors import InputError


@dataclass
class Part:
    name: str
    share: float = 0.5


@dataclass
class Whole:
    scale: int
    out: str = ""
    parts: list[Part] = field(default_factory=list)
    amounts: list[int | str] = field(default_factory=list)
    rates: dict[str, float] = field(default_factory=dict)
    main: Part = field(default_factory=lambda: Part("main"))


TEXT = """
scale = 4
out = "runs/${name_of_a_test}-x${scale}"
amounts = [240, "50%"]
[[parts]]
name = "first-x${scale}"
[[parts]]
name = "second"
share = 1
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setenv("name_of_a_test", "variable")
    (tmp_path / "whole.toml").write_text(TEXT)
    return tmp_path / "whole.toml"


def loaded(file, **overrides: str) -> Whole:
    return load(Whole, file, {name.replace("__", "."): text for name, text in overrides.items()}, "config", "test")


def test_texts_name_settings_of_the_file_and_variables(file):
    found = loaded(file)
    assert found.out == "runs/variable-x4"
    assert [part.name for part in found.parts] == ["first-x4", "second"]
    assert (found.parts[0].share, found.parts[1].share, found.amounts) == (0.5, 1.0, [240, "50%"])


def test_a_setting_comes_before_a_variable_of_its_name(file, monkeypatch):
    monkeypatch.setenv("scale", "9")
    assert loaded(file, scale="2").out == "runs/variable-x2"
    assert loaded(file, scale="2").parts[0].name == "first-x2"


def test_tables_and_texts_with_variables_are_not_put_into_texts(file):
    """A text that is itself to be filled would depend on the order."""
    with pytest.raises(InputError, match=r"test: config\.main\.name = '\$\{rates\}' names an environment variable"):
        loaded(file, main__name="'${rates}'", rates__base="1")
    with pytest.raises(InputError, match="names an environment variable that is not set"):
        loaded(file, main__name="'${out}'")


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"scale": "3"}, lambda found: found.scale == 3),
        ({"out": "plain words"}, lambda found: found.out == "plain words"),
        ({"parts__1__name": "'x'"}, lambda found: [part.name for part in found.parts] == ["first-x4", "x"]),
        ({"amounts__0": "all"}, lambda found: found.amounts == ["all", "50%"]),
        ({"amounts": "[1]"}, lambda found: found.amounts == [1]),
        ({"rates__base": "1"}, lambda found: found.rates == {"base": 1.0}),
        ({"main__name": "m"}, lambda found: found.main == Part("m")),
    ],
)
def test_everything_can_be_set(file, overrides, expected):
    assert expected(loaded(file, **overrides))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"parts__2__name": "x"}, r"--set parts\.2\.name leads nowhere: there is no '2'"),
        ({"parts__name": "x"}, r"--set parts\.name leads nowhere: there is no 'name'"),
        ({"parts__-1__name": "x"}, "leads nowhere: there is no '-1'"),
        ({"scale__x": "1"}, r"--set scale\.x leads nowhere: there is no 'x'"),
        ({"scale__x__y": "1"}, "leads nowhere: there is no 'x'"),
        ({"scale": "four"}, "config.scale must be of type int, got 'four'"),
        ({"scale": "true"}, "config.scale must be of type int, got True"),
        ({"amounts": "[true]"}, r"config\.amounts\[0\] must be of type int \| str, got True"),
        ({"amounts": "[0.5]"}, r"config\.amounts\[0\] must be of type int \| str, got 0\.5"),
        ({"main": "3"}, "config.main must be a table, got 3"),
        ({"rates__base": "fast"}, r"config\.rates\.base must be of type float, got 'fast'"),
        ({"speed": "1"}, "unknown setting config.speed; known: amounts, main, out, parts, rates, scale"),
        ({"parts": "[{share = 1}]"}, r"config\.parts\[0\]\.name is missing"),
    ],
)
def test_one_sentence_about_what_is_wrong(file, overrides, message):
    with pytest.raises(InputError, match=f"^test: .*{message}"):
        loaded(file, **overrides)


def test_settings_without_a_file(monkeypatch):
    assert load(Whole, None, {"scale": "2"}, "config", "test") == Whole(2)
    with pytest.raises(InputError, match=r"config\.scale is missing"):
        load(Whole, None, {}, "config", "test")


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "bytes.toml").write_bytes(b"\xff")
    for name in ("none.toml", "bytes.toml", "."):
        with pytest.raises(InputError, match=r"^test: "):
            read_table(tmp_path / name, {}, "test")


@pytest.mark.parametrize("word", ["scale", "=4", ""])
def test_words_of_set_that_are_none(word):
    with pytest.raises(InputError, match="test: --set takes NAME=VALUE, got"):
        overrides_of([word], "test")
    assert overrides_of(["a.b=c=d"], "test") == {"a.b": "c=d"}


def test_set_without_a_configuration_is_refused(tmp_path, capsys):
    assert main(["evaluate", "--hr", str(tmp_path), "--scale", "2", "--set", "scale=2"]) == 1
    assert "--set goes with SUITE.toml" in capsys.readouterr().err


def test_sizes_and_amounts():
    assert parse_size("3840x2160") == parse_size("3840X2160") == parse_size("3840×2160") == (3840, 2160)
    for text in ("0x5", "5", "5x", "5x5x5", "5*5", "٥x٥", "5x5\n", ""):
        with pytest.raises(InputError, match=r"^a size is WIDTHxHEIGHT"):
            parse_size(text)
    with pytest.raises(InputError, match=r"^evaluate: a size is"):
        parse_size("4K", "evaluate")
    assert (amount(240), amount("50%"), amount("all")) == ((240, None), (None, 0.5), (None, 1.0))
