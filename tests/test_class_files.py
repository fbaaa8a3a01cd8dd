"""Files of ClassSR as its authors save them: the classifier, and three widths of FSRCNN, MSRResNet or RCAN."""

from __future__ import annotations

import originals
import pytest
import torch
import torch.nn.functional as F
from network_zoo import photographs

from mga_kernels import MaskGuidedSR
from mga_kernels.checkpoints import load_checkpoint
from mga_kernels.errors import CheckpointError, InputError

WIDTHS = (6, 8, 10)


def branches(kind: str) -> list[originals.Original]:
    if kind == "FSRCNN":
        return [originals.fsrcnn_one_activation(True, 3, width, 5) for width in WIDTHS]
    return [originals.msrresnet(4, nf=width) for width in WIDTHS]


def class_sr(kind: str) -> originals.Original:
    """Whose classes are about as frequent as each other, and whose pictures are around a half."""
    w = originals.Weights()
    w.conv("classifier.CondNet.0", 3, 128, 4)
    for layer, outputs in ((2, 128), (4, 128), (6, 128), (8, 32)):
        w.conv(f"classifier.CondNet.{layer}", 128, outputs, 1)
    w.add("classifier.lastOut.weight", 3, 32, fan=32)
    w.add("classifier.lastOut.bias", 3)
    nets = branches(kind)
    for number, (state, forward) in enumerate(nets):
        last = [name for name in state if name.endswith(".weight") and state[name].ndim == 4][-1]
        bias = last.replace("weight", "bias")
        for name in (last, bias):
            state[name] *= 0.1 / float(forward(photographs(32, 32)).std())
        state[bias] += 0.5 - float(forward(photographs(32, 32)).mean())
        w |= {f"net{number + 1}.{name}": tensor for name, tensor in state.items()}

    def scores(x: torch.Tensor) -> torch.Tensor:
        for layer in (0, 2, 4, 6):
            x = F.leaky_relu(w.run(f"classifier.CondNet.{layer}", x, 0, 1 if layer else 4), 0.1)
        x = w.run("classifier.CondNet.8", x).mean((2, 3))
        return x @ w["classifier.lastOut.weight"].T + w["classifier.lastOut.bias"]

    def forward(image: torch.Tensor) -> torch.Tensor:
        height, width = image.shape[2:]
        total = image.new_zeros(1, 3, 4 * height, 4 * width)
        count = torch.zeros_like(total)
        for y in {*range(0, height - 32, 28), height - 32}:
            for x in {*range(0, width - 32, 28), width - 32}:
                part = image[..., y : y + 32, x : x + 32]
                made = nets[int(scores(part).argmax())][1](part)
                total[..., 4 * y : 4 * y + 128, 4 * x : 4 * x + 128] += made.clamp(0, 1)
                count[..., 4 * y : 4 * y + 128, 4 * x : 4 * x + 128] += 1
        return total / count

    images = torch.cat([photographs(150, 150)[..., y : y + 32, x : x + 32] for y in (0, 80) for x in (0, 40, 80, 118)])
    w["classifier.lastOut.bias"] -= scores(images).mean(0)
    assert len(set(scores(images).argmax(1).tolist())) > 1
    return w, forward


@pytest.mark.parametrize("around", ["", "module."])
@pytest.mark.parametrize("kind", ["FSRCNN", "MSRResNet"])
def test_every_sub_image_takes_the_branch_of_its_class(tmp_path, kind, around):
    state, forward = class_sr(kind)
    torch.save({f"{around}{name}": tensor for name, tensor in state.items()}, tmp_path / "c.pth")
    network = load_checkpoint(tmp_path / "c.pth")
    image = photographs(110, 141)[:1]
    expected = forward(image)
    assert expected.std() > 0.03
    assert (network(image) - expected).abs().max() < 2e-5
    model = MaskGuidedSR.from_checkpoint(tmp_path / "c.pth", dtype="float32")
    made = model.upscale((image[0] * 255).byte().permute(1, 2, 0).numpy())
    rounded = (forward((image * 255).byte() / 255)[0] * 255).permute(1, 2, 0).numpy()
    assert abs(made - rounded).max() < 2


def test_what_does_not_fit_is_named(tmp_path):
    state, path = dict(class_sr("FSRCNN")[0]), tmp_path / "c.pth"
    torch.save({name: tensor for name, tensor in state.items() if not name.startswith(("net2.", "net3."))}, path)
    with pytest.raises(CheckpointError, match="looks like ClassSR, but model: the classes need two or more networks"):
        load_checkpoint(path)
    torch.save(state | {"net3.extra.weight": torch.zeros(3)}, path)
    with pytest.raises(
        CheckpointError, match=r"is ClassSR, whose branch net3 looks like FSRCNN, but tensor extra\.weight"
    ):
        load_checkpoint(path)
    torch.save(state | {"classifier.extra.weight": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match=r"looks like ClassSR, but tensor classifier\.extra\.weight"):
        load_checkpoint(path)
    torch.save(state, path)
    with pytest.raises(InputError, match="colour cannot be given"):
        load_checkpoint(path, colour="y")
