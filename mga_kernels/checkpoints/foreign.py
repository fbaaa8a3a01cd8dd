"""Networks that are not supported, told by names of their tensors, so that an error says what a file is."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

NOT_YET = "which is not supported yet"
SPANDREL = "; in Python, spandrel may load it for from_checkpoint (docs/checkpoints.md)"
WITHOUT_SPANDREL = ("CARN", "MDSR", "WDSR", "RDN", "VDSR", "RLFN", "LIIF", "a network for videos")
# Network -> names of tensors of which all of one line must be there, behind any prefix; the first that has them.
UPSCALERS: dict[str, tuple[tuple[str, ...], ...]] = {
    "HAT": (("layers.0.residual_group.blocks.0.conv_block.cab.0.weight", "conv_first.weight"),),
    "ATD": (("layers.0.residual_group.td", "conv_first.weight"),),
    "RGT": (("before_RG.1.weight", "layers.0.blocks.0.gamma"),),
    "DAT": (("before_RG.1.weight", "layers.0.blocks.0.norm1.weight"),),
    "DRCT": (("layers.0.swin1.norm1.weight", "conv_first.weight"),),
    "Swin2SR": (("layers.0.residual_group.blocks.0.attn.logit_scale", "patch_embed.proj.weight"),),
    "SwinIR": (
        ("layers.0.residual_group.blocks.0.norm1.weight", "conv_first.weight"),
        ("layers.0.residual_group.blocks.0.norm1.weight", "conv_first.1.weight"),
    ),
    "PLKSR": (("feats.0.weight", "feats.1.lk.conv.weight"),),
    "MoSR": (("gblocks.0.weight", "gblocks.1.fc1.weight"),),
    "OmniSR": (("residual_layer.0.residual_layer.0.layer.0.fn.0.weight",),),
    "Real-CUGAN": (("unet1.conv1.conv.0.weight", "unet2.conv1.conv.0.weight"),),
    "ESC": (("plk_filter",),),
    "CARN": (("b1.b1.body.0.weight", "entry.weight", "exit.weight"),),
    "SAFMN": (("to_feat.weight", "feats.0.norm1.weight", "to_img.0.weight"),),
    "MDSR": (("pre_process.0.0.body.0.weight", "tail.0.weight"),),
    "WDSR": (("skip.0.weight_v", "tail.0.weight_v"), ("skip.0.weight", "tail.0.weight", "body.0.body.0.weight")),
    "RDN": (("SFENet1.weight", "RDBs.0.convs.0.conv.0.weight"),),
    "VDSR": (("residual_layer.0.conv.weight", "input.weight", "output.weight"),),
    "RLFN": (("block_1.c1_r.weight", "block_1.esa.conv1.weight"),),
    "LIIF": (("imnet.layers.0.weight", "encoder.head.0.weight"),),
    "a network for videos": (
        ("spynet.basic_module.0.basic_module.0.weight",),
        ("spynet.basic_module.0.basic_module.0.conv.weight",),
        ("feature_extraction.0.conv1.weight", "conv_l2_1.weight"),
    ),
}
OTHERS: dict[str, tuple[tuple[str, ...], ...]] = {
    "Stable Diffusion": (
        ("model.diffusion_model.input_blocks.0.0.weight",),
        ("diffusion_model.input_blocks.0.0.weight",),
        ("input_blocks.0.0.weight", "time_embed.0.weight"),
        ("down_blocks.0.resnets.0.conv1.weight", "conv_in.weight"),
        ("joint_blocks.0.context_block.attn.qkv.weight",),
    ),
    "a diffusion transformer": (
        ("double_blocks.0.img_attn.qkv.weight",),
        ("transformer_blocks.0.attn.to_q.weight", "proj_out.weight"),
    ),
    "an autoencoder of a diffusion model": (
        ("decoder.conv_in.weight", "decoder.conv_out.weight"),
        ("encoder.conv_in.weight", "decoder.up_blocks.0.resnets.0.conv1.weight"),
    ),
    "a language model": (
        ("layers.0.self_attn.q_proj.weight",),
        ("layers.0.self_attn.qkv_proj.weight",),
        ("h.0.attn.c_attn.weight",),
        ("layer.0.attention.self.query.weight",),
        ("block.0.layer.0.SelfAttention.q.weight",),
    ),
    "a network for faces": (
        ("stylegan_decoder.constant_input.weight",),
        ("quantize.embedding.weight", "idx_pred_layer.weight"),
    ),
    "a discriminator, the half of a GAN that only judges": (
        ("conv0_0.weight", "linear1.weight"),
        ("conv0.weight", "conv1.weight_orig", "conv9.weight"),
        ("features.0.weight", "classifier.0.weight"),
    ),
    "a ResNet, which classifies": (("conv1.weight", "layer1.0.conv1.weight", "fc.weight"),),
}
ADAPTED = (".lora_A.weight", ".lora_up.weight", ".lora_down.weight", ".lora.up.weight", ".lora_A.default.weight")


def prefixes(names: Collection[str], marks: tuple[str, ...]) -> Iterator[str]:
    """The beginnings of names, "" or ending in a dot, behind each of which all ``marks`` are there."""
    for name in names:
        if name.endswith(marks[0]):
            start = name[: -len(marks[0])]
            if (not start or start.endswith(".")) and all(start + mark in names for mark in marks):
                yield start


PLAIN = re.compile(r"(.*\.)?body\.\d*[02468]\.(weight|bias)")
WITHOUT_SLOPES = (
    "like SRVGGNetCompact without PReLU: whether ReLU or LeakyReLU is in its place, its tensors do not tell; "
    "its graph of ncnn does (.param with .bin)"
)


def foreign_network(names: Collection[str]) -> str | None:
    """What follows "is", of tensors of these names; None where they belong to nothing that is known here."""
    names = frozenset(names)
    for network, spellings in UPSCALERS.items():
        if _has(names, spellings):
            what = network if network.startswith("a ") else f"a file of {network}"
            return f"{what}, {NOT_YET}{'' if network in WITHOUT_SPANDREL else SPANDREL}"
    if any(name.endswith(ADAPTED) for name in names):
        return "a LoRA, a change to another model, not a network for super-resolution"
    for network, spellings in OTHERS.items():
        if _has(names, spellings):
            return f"{network}, not a network for super-resolution"
    return WITHOUT_SLOPES if len(names) > 2 and all(map(PLAIN.fullmatch, names)) else None


def _has(names: frozenset[str], spellings: tuple[tuple[str, ...], ...]) -> bool:
    return any(next(prefixes(names, marks), None) is not None for marks in spellings)
