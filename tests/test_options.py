"""No command takes an option that it ignores: what its code reads of the arguments is compared with the parser."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import importlib
import inspect
import textwrap
from collections.abc import Iterator
from types import FunctionType

import pytest

from mga.cli import COMMANDS, build_parser
from mga.commands.options import filled


def options(command: str) -> set[str]:
    """Names of what the command's parser fills in."""
    (commands,) = (a for a in build_parser(command)._actions if isinstance(a, argparse._SubParsersAction))
    return {action.dest for action in commands.choices[command]._actions} - {"help"}


def strings(value: object) -> set[str]:
    return {item for item in value if isinstance(item, str)} if isinstance(value, (tuple, list, set, dict)) else set()


class Reader(ast.NodeVisitor):
    """What a function reads of its argument ``args``, and the functions that it hands it on to."""

    def __init__(self, function: FunctionType):
        self.names, self.found, self.handed = dict(function.__globals__), set[str](), list[FunctionType]()
        self.package = self.names["__package__"]
        self.tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
        self.constants = {
            n.value for n in ast.walk(self.tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)
        }
        self.visit(self.tree)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = importlib.import_module("." * node.level + (node.module or ""), self.package)
        self.names |= {name.asname or name.name: getattr(module, name.name) for name in node.names}

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if is_args(node.value):
            self.found.add(node.attr)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        given = [*node.args, *(keyword.value for keyword in node.keywords)]
        called = self.names.get(node.func.id) if isinstance(node.func, ast.Name) else None
        if any(map(is_args, given)):
            if isinstance(node.func, ast.Name) and node.func.id == "getattr":
                name = node.args[1]
                self.found |= {name.value} if isinstance(name, ast.Constant) else self.listed()
            elif called is filled:
                kind = node.args[0]
                assert isinstance(kind, ast.Name)
                self.found |= {field.name for field in dataclasses.fields(self.names[kind.id])}
            elif isinstance(called, FunctionType):
                self.handed.append(called)
        self.generic_visit(node)

    def listed(self) -> set[str]:
        """The strings that this function, or a tuple that it names, lists: options are read one by one from them."""
        named = (self.names.get(n.id) for n in ast.walk(self.tree) if isinstance(n, ast.Name))
        return self.constants.union(*map(strings, named))


def is_args(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id == "args"


def read_by(function: FunctionType, seen: set[FunctionType]) -> Iterator[str]:
    if function not in seen:
        seen.add(function)
        reader = Reader(function)
        yield from reader.found
        for other in reader.handed:
            yield from read_by(other, seen)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_read(command):
    run = importlib.import_module(COMMANDS[command][0]).run
    assert options(command) - set(read_by(run, set())) == set()


def unused(args: argparse.Namespace) -> int:
    """A command as they are."""
    from mga.commands.network_options import given_options

    return len([getattr(args, name) for name in ("one", "two")]) + args.three + len(given_options(args))


@dataclasses.dataclass
class Asked:
    five: int


def request(args: argparse.Namespace) -> int:
    """A command that fills a dataclass."""
    return filled(Asked, args).five


def test_what_is_not_read_is_found():
    assert set(read_by(request, set())) == {"five"}
    assert "four" not in set(read_by(unused, set()))
    assert {"one", "two", "three", "patch_size"} <= set(read_by(unused, set()))
