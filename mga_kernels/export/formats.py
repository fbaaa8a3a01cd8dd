"""The file formats: what each needs, and how an ExportedProgram is written in it."""

from __future__ import annotations

import importlib
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

import torch
from torch.export import ExportedProgram

from ..errors import InputError
from ..notices import quiet
from .program import any_size

OPSET = 18
METADATA = "metadata.json"  # the facts in a .pt2 file


def _require(what: str, extra: str, *packages: str) -> None:
    for package in packages:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise InputError(
                f"export: {what} needs the package {package} ({error}); pip install 'mga_kernels[{extra}]'"
            ) from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Converters log and warn about what they are made of, which says nothing about the model."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with quiet():
            yield
    finally:
        logging.disable(before)


def _require_onnx() -> None:
    _require("ONNX", "export", "onnx", "onnxscript")


def _require_nothing() -> None:
    """torch.export is part of PyTorch."""


def _require_executorch() -> None:
    with _quiet():
        _require(
            "ExecuTorch", "executorch", "executorch.exir", "executorch.backends.xnnpack.partition.xnnpack_partitioner"
        )


def _write_onnx(program: ExportedProgram, facts: dict[str, object], stream: BinaryIO) -> None:
    import onnx

    with _quiet(), any_size():
        converted = torch.onnx.export(
            program, (), dynamo=True, opset_version=OPSET, output_names=["upscaled"], verbose=False
        )
    if converted is None:
        raise InputError("export: the converter to ONNX returned nothing; use the versions in constraints.txt")
    model = converted.model_proto
    names = {2: "H", 3: "W"}
    for value, factor in ((model.graph.input[0], ""), (model.graph.output[0], f"{facts['scale']}*")):
        for axis, name in names.items():
            value.type.tensor_type.shape.dim[axis].dim_param = factor + name
    onnx.helper.set_model_props(model, {name: json.dumps(fact) for name, fact in facts.items()})
    onnx.checker.check_model(model, full_check=True)
    stream.write(model.SerializeToString())


def _write_pt2(program: ExportedProgram, facts: dict[str, object], stream: BinaryIO) -> None:
    torch.export.save(program, stream, extra_files={METADATA: json.dumps(facts)})  # type: ignore[arg-type]


def _write_pte(program: ExportedProgram, facts: dict[str, object], stream: BinaryIO) -> None:
    """Convolutions and what else XNNPACK can do run in it; the method ``metadata`` returns the facts as JSON."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower

    with _quiet(), any_size():
        lowered = to_edge_transform_and_lower(
            program,
            partitioner=[XnnpackPartitioner()],
            constant_methods={"metadata": json.dumps(facts)},
            compile_config=EdgeCompileConfig(_check_ir_validity=False),  # which knows no sums of whole numbers
        )
        stream.write(lowered.to_executorch().buffer)


Write = Callable[[ExportedProgram, dict[str, object], BinaryIO], None]
# Name and file extension -> raises InputError where a package is missing; writes the file.
FORMATS: dict[str, tuple[Callable[[], None], Write]] = {
    "onnx": (_require_onnx, _write_onnx),
    "pt2": (_require_nothing, _write_pt2),
    "pte": (_require_executorch, _write_pte),
}
