"""``mga info``: the models that come with the package, what this installation can run, and what a file is."""

from __future__ import annotations

import argparse
import json

from mga_kernels.checkpoints import read_metadata, shipped_models
from mga_kernels.errors import InputError
from mga_kernels.info import collect, render
from mga_kernels.networks import network_names
from mga_kernels.networks.amount import Amount

from ..console.loading import loading
from ..files.records import Record
from .options import add_conventions

with loading():  # PyTorch's modules
    from mga_kernels.engine.model import MaskGuidedSR


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "models", nargs="*", metavar="MODEL", help="a shipped model or a file: what it is, and what runs it here"
    )
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    add_conventions(parser, "published networks, where their tensors do not tell")


def describe_models() -> dict[str, Record]:
    """Facts of every shipped model by name: network, scale, licence notices; with a mask patch size, what is refined,
    k where it is a number, value range."""
    models = {}
    for name, path in shipped_models().items():
        metadata = read_metadata(path)
        config = metadata["config"]
        models[name] = {"network": config.network, "scale": config.scale, "licence": metadata["licence"]}
        if config.masked:
            usual = config.usual or Amount(k=config.k)
            models[name] |= {"patch_size": config.patch_size, "k": usual.k, "refined": str(usual)}
            models[name] |= {"value_range": config.value_range}
    return models


def describe_model(args: argparse.Namespace, name: str) -> Record:
    """What a model is that a command would be given, by its configuration, and what photographs are run by here."""
    model = MaskGuidedSR.from_checkpoint(name, colour=args.colour, input_range=args.input_range, scale=args.model_scale)
    runs = model.info()
    return {
        "network": model.network,
        "scale": model.scale,
        "whole": model.whole,
        **json.loads(model.config.to_json()),
        "parameters": sum(parameter.numel() for parameter in model.model.parameters()),
        "photographs": runs["photographs"],
        "not by": runs["why not"],
    }


def describe_networks() -> str:
    """Names of the networks that can be used, or why those of MGA_NETWORKS cannot."""
    try:
        return ", ".join(network_names())
    except InputError as error:
        return str(error)


def run(args: argparse.Namespace) -> int:
    if args.models:
        return _run_models(args)
    models = describe_models()
    if args.json:
        print(json.dumps({"models": models, "networks": describe_networks()} | collect(), indent=2))
        return 0
    print("models:" if models else "models: none came with this package")
    for name, facts in models.items():
        masked = f"p = {facts['patch_size']}, {facts['refined']} by default" if "refined" in facts else "whole"
        print(f"  {name}: {facts['network']} x{facts['scale']}, {masked}")
        for subject, notice in facts["licence"].items():
            print(f"    licence of {subject}: {notice}")
    print(f"networks: {describe_networks()}")
    print()
    print(render(collect()))
    return 0


def _run_models(args: argparse.Namespace) -> int:
    described = {name: describe_model(args, name) for name in args.models}
    if args.json:
        print(json.dumps(described, indent=2))
        return 0
    for name, facts in described.items():
        whole = "whole" if facts.pop("whole") else "mask-guided"
        print(f"{name}: {facts.pop('network')} x{facts.pop('scale')}, {whole}")
        for fact, value in facts.items():
            if value not in ({}, []):
                print(f"  {fact.replace('_', ' ')}: {_text(value)}")
    return 0


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(
            f"{key.replace('_', ' ')} {_text(item)}" for key, item in value.items() if item not in ({}, [])
        )
    if isinstance(value, list):
        separator = "; " if isinstance(value[0], str | dict) else " "
        return separator.join(map(_text, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)
