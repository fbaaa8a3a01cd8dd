"""``mga info``: the models that come with the package, and what this installation can run."""

from __future__ import annotations

import argparse
import json

from mga_kernels.checkpoints import read_metadata, shipped_models
from mga_kernels.errors import InputError
from mga_kernels.info import collect, render
from mga_kernels.networks import network_names

from ..files.records import Record


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print it as JSON")


def describe_models() -> dict[str, Record]:
    """Facts of every shipped model by name: network, scale, licence notices; with a mask patch size, K, value range."""
    models = {}
    for name, path in shipped_models().items():
        metadata = read_metadata(path)
        config = metadata["config"]
        models[name] = {"network": config.network, "scale": config.scale, "licence": metadata["licence"]}
        if config.masked:
            models[name] |= {"patch_size": config.patch_size, "k": config.k, "value_range": config.value_range}
    return models


def describe_networks() -> str:
    """Names of the networks that can be used, or why those of MGA_NETWORKS cannot."""
    try:
        return ", ".join(network_names())
    except InputError as error:
        return str(error)


def run(args: argparse.Namespace) -> int:
    models = describe_models()
    if args.json:
        print(json.dumps({"models": models, "networks": describe_networks()} | collect(), indent=2))
        return 0
    print("models:" if models else "models: none came with this package")
    for name, facts in models.items():
        masked = f"p = {facts['patch_size']}, K = {facts['k']} by default" if "k" in facts else "whole"
        print(f"  {name}: {facts['network']} x{facts['scale']}, {masked}")
        for subject, notice in facts["licence"].items():
            print(f"    licence of {subject}: {notice}")
    print(f"networks: {describe_networks()}")
    print()
    print(render(collect()))
    return 0
