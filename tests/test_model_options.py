"""The settings of section 4.4 from the command line: what they make of a configuration."""

import argparse

import pytest

from mga.commands.network_options import add_model_options, given_options, model_config
from mga.settings.values import parse_split
from mga_kernels.errors import InputError
from mga_kernels.networks import ModelConfig


def parse(*arguments):
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_model_options(parser)
    return parser.parse_args(arguments, argparse.Namespace(command="test"))


def test_what_is_not_given_is_the_papers():
    args = parse("--network", "pan", "--scale", "3")
    assert given_options(args) == {"network": "pan", "scale": 3}
    assert model_config(args) == ModelConfig("pan", 3, 4, 1000, (12, 4), "largest")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--patch-size", "2"], ModelConfig("rfdn", 4, 2, 4000)),
        (["--patch-size", "8"], ModelConfig("rfdn", 4, 8, 250)),
        (["--split", "3+3"], ModelConfig("rfdn", 4, split=(3, 3))),
        (["--mask-classes", "1"], ModelConfig("rfdn", 4, mask={"classes": 1})),
        (["--mask-classes", "2"], ModelConfig("rfdn", 4)),
        (["--selection", "smallest"], ModelConfig("rfdn", 4, selection="smallest")),
        (["--k", "17"], ModelConfig("rfdn", 4, k=17)),
    ],
)
def test_every_setting_reaches_the_configuration(options, expected):
    found = model_config(parse("--network", "rfdn", "--scale", "4", *options))
    assert found == expected
    assert options[0] == "--mask-classes" or found != ModelConfig("rfdn", 4)


@pytest.mark.parametrize("missing", ["network", "scale"])
def test_network_and_scale_must_be_named(missing):
    options = {"network": ["--network", "rfdn"], "scale": ["--scale", "4"]}
    with pytest.raises(InputError, match=f"test: --{missing} is missing"):
        model_config(parse(*(word for name, words in options.items() if name != missing for word in words)))


@pytest.mark.parametrize("text", ["a+b", "4", "4+", "+2", "0+4", "4+0", "4 + 2", "4+2+1", "-4+2", "4+2\n", "٤+٢", ""])
def test_splits_that_are_none(text):
    with pytest.raises(InputError, match="such as 4\\+2, got"):
        parse_split(text)
    with pytest.raises(argparse.ArgumentError, match="split must be"):
        parse(f"--split={text}")


def test_a_split_is_two_numbers():
    assert parse_split("10+6") == (10, 6)


@pytest.mark.parametrize(
    "options",
    [
        ["--scale", "5"],
        ["--patch-size", "3"],
        ["--mask-classes", "3"],
        ["--selection", "best"],
        ["--k", "-1"],
        ["--k", "1.5"],
    ],
)
def test_values_that_no_network_has(options):
    with pytest.raises(argparse.ArgumentError):
        parse(*options)
