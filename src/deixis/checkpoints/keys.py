"""Key tables between the official EVP and VPD models and ours, both ways.

Each of our keys has exactly one official name, found by the rules below; a table is made by naming every key of
the model that is to be filled, so nothing can be forgotten.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

# (pattern, replacement) pairs; the first full match names the key.
Rules = tuple[tuple[str, str], ...]


def _rename(key: str, rules: Rules) -> str | None:
    for pattern, replacement in rules:
        match = re.fullmatch(pattern, key)
        if match:
            return match.expand(replacement)
    return None


_VAE_RESNET = {"conv_shortcut": "nin_shortcut"}
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def _swap(tail: str, names: dict[str, str]) -> str:
    for ours, theirs in names.items():
        if tail.startswith(ours + "."):
            return theirs + tail[len(ours) :]
    return tail


def ldm_vae_key(key: str) -> str | None:
    """Name of a diffusers ``AutoencoderKL`` key in the original latent diffusion code."""
    if match := re.fullmatch(r"encoder\.down_blocks\.(\d+)\.resnets\.(\d+)\.(.+)", key):
        return f"encoder.down.{match[1]}.block.{match[2]}.{_swap(match[3], _VAE_RESNET)}"
    if match := re.fullmatch(r"encoder\.mid_block\.resnets\.(\d+)\.(.+)", key):
        return f"encoder.mid.block_{int(match[1]) + 1}.{_swap(match[2], _VAE_RESNET)}"
    if match := re.fullmatch(r"encoder\.mid_block\.attentions\.0\.(.+)", key):
        return f"encoder.mid.attn_1.{_swap(match[1], _VAE_ATTENTION)}"
    return _rename(
        key,
        (
            (r"encoder\.down_blocks\.(\d+)\.downsamplers\.0\.(.+)", r"encoder.down.\1.downsample.\2"),
            (r"encoder\.conv_norm_out\.(.+)", r"encoder.norm_out.\1"),
            (r"(encoder\.conv_(?:in|out)\..+)", r"\1"),
            (r"((?:post_)?quant_conv\..+)", r"\1"),
        ),
    )


def ldm_unet_key(key: str, layers: int = 2) -> str | None:
    """Name of a diffusers ``UNet2DConditionModel`` key in the original latent diffusion code.

    Args:
        key: the diffusers key.
        layers: layers per block.
    """
    if match := re.fullmatch(r"down_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.+)", key):
        block, kind, layer, tail = int(match[1]), match[2], int(match[3]), match[4]
        n = 1 + block * (layers + 1) + layer
        return f"input_blocks.{n}.0.{_swap(tail, _UNET_RESNET)}" if kind == "resnets" else f"input_blocks.{n}.1.{tail}"
    if match := re.fullmatch(r"down_blocks\.(\d+)\.downsamplers\.0\.conv\.(.+)", key):
        return f"input_blocks.{(int(match[1]) + 1) * (layers + 1)}.0.op.{match[2]}"
    if match := re.fullmatch(r"mid_block\.resnets\.(\d+)\.(.+)", key):
        return f"middle_block.{2 * int(match[1])}.{_swap(match[2], _UNET_RESNET)}"
    if match := re.fullmatch(r"up_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.+)", key):
        block, kind, layer, tail = int(match[1]), match[2], int(match[3]), match[4]
        n = block * (layers + 1) + layer
        return f"output_blocks.{n}.0.{_swap(tail, _UNET_RESNET)}" if kind == "resnets" else f"output_blocks.{n}.1.{tail}"
    if match := re.fullmatch(r"up_blocks\.(\d+)\.upsamplers\.0\.conv\.(.+)", key):
        block = int(match[1])
        # The coarsest block has no attention: its upsampler comes second, in the others third.
        return f"output_blocks.{block * (layers + 1) + layers}.{1 if block == 0 else 2}.conv.{match[2]}"
    return _rename(
        key,
        (
            (r"conv_in\.(.+)", r"input_blocks.0.0.\1"),
            (r"time_embedding\.linear_1\.(.+)", r"time_embed.0.\1"),
            (r"time_embedding\.linear_2\.(.+)", r"time_embed.2.\1"),
            (r"mid_block\.attentions\.0\.(.+)", r"middle_block.1.\1"),
            (r"conv_norm_out\.(.+)", r"out.0.\1"),
            (r"conv_out\.(.+)", r"out.2.\1"),
        ),
    )


_ADAPTER: Rules = ((r"text_adapter\.(fc\..+)", r"text_adapter.\1"), (r"text_adapter\.gamma", r"gamma"))
_IMAFR: Rules = (
    (r"imafr\.spatial\.project\.(.+)", r"aggregation.layer1.spatial_attention.0.\1"),
    (r"imafr\.conv\.(.+)", r"aggregation.layer1.conv1.\1"),
    (r"imafr\.norm\.(.+)", r"aggregation.layer1.group_norm.\1"),
)
_IMAFR_ATTEND = {
    "spatial.project": "spatial_attention.0",
    "channel.squeeze": "channel_attention.1",
    "channel.excite": "channel_attention.3",
    "norm": "group_norm",
}
_JOIN: Rules = (
    (r"join\.layer1\.(.+)", r"layer1.\1"),
    (r"join\.layer2\.(.+)", r"layer2.0.\1"),
    (r"join\.out\.(.+)", r"out_layer.\1"),
)
_BINS: Rules = (
    (r"bins\.bottleneck\.(.+)", r"bottle_neck.\1"),
    (r"bins\.seed\.(.+)", r"seed_bin_regressor._net.\1"),
    (r"bins\.seed_projector\.(.+)", r"seed_projector._net.\1"),
    (r"bins\.projectors\.(\d+)\.(.+)", r"projectors.\1._net.\2"),
    (r"bins\.attractors\.(\d+)\.net\.(.+)", r"attractors.\1._net.\2"),
    (r"bins\.log_binomial\.(.+)", r"conditional_log_binomial.\1"),
)


def _imafr_key(key: str) -> str | None:
    if match := re.fullmatch(r"imafr\.attend\.(\d+)\.(.+)", key):
        return f"aggregation.layer{2 + 2 * int(match[1])}.{_swap(match[2], _IMAFR_ATTEND)}"
    if match := re.fullmatch(r"imafr\.fuse\.(\d+)\.(.+)", key):
        return f"aggregation.layer{3 + 2 * int(match[1])}.conv1.{match[2]}"
    return _rename(key, _IMAFR)


def _depth_decoder_key(key: str, last: str) -> str | None:
    if match := re.fullmatch(r"decoder\.deconvs\.(\d+)\.(\d+)\.(.+)", key):
        return f"decoder.deconv_layers.{3 * int(match[1]) + int(match[2])}.{match[3]}"
    return _rename(
        key, ((r"decoder\.conv\.(.+)", r"decoder.conv_layers.\1"), (r"decoder\.last\.(.+)", rf"{last}.\1"))
    )


def _mask_decoder_key(key: str) -> str | None:
    if match := re.fullmatch(r"decoder\.fuse\.(\d+)\.(\d+)\.(.+)", key):
        part = {"0": "conv1", "1": "bn1", "3": "conv2", "4": "bn2"}[match[2]]
        return f"classifier.{part}_{4 - int(match[1])}.{match[3]}"
    return _rename(key, ((r"decoder\.classify\.(.+)", r"classifier.conv1_1.\1"),))


def official_key(key: str, system: str) -> str:
    """Official name of one of our keys.

    Args:
        key: key of our module.
        system: ``evp-depth``, ``evp-refer``, ``vpd-depth`` or ``vpd-refer``.

    Raises:
        KeyError: if there is none, which is a mistake in the tables.
    """
    depth = system.endswith("depth")
    encoder = "encoder." if depth else ""
    name: str | None
    if key.startswith("image_encoder."):
        name = ldm_vae_key(key.removeprefix("image_encoder."))
        if name is not None:
            return f"{encoder}encoder_vq.{name}"
    if key.startswith("unet.unet."):
        name = ldm_unet_key(key.removeprefix("unet.unet."))
        if name is not None:
            return f"{encoder}unet.unet.diffusion_model.{name}"
    if key.startswith("text_tower.clip."):
        tail = key.removeprefix("text_tower.clip.").removeprefix("text_model.")
        return f"{encoder}clip_model.{'transformer.' if depth else ''}text_model.{tail}"
    if key == "stored_text":
        return "encoder.class_embeddings"
    for name in (_rename(key, _ADAPTER), _imafr_key(key), _rename(key, _JOIN)):
        if name is not None:
            return encoder + name
    last = "decoder.last_layer_depth" if system == "evp-depth" else "last_layer_depth"
    for name in (_depth_decoder_key(key, last), _mask_decoder_key(key), _rename(key, _BINS)):
        if name is not None:
            return name
    raise KeyError(key)


@dataclass(frozen=True)
class KeyTable:
    """Our keys and their official names, one to one."""

    official: dict[str, str]

    @classmethod
    def of(cls, keys: Iterable[str], system: str) -> KeyTable:
        """Table of all ``keys`` of our model."""
        table = {key: official_key(key, system) for key in keys}
        assert len(set(table.values())) == len(table)
        return cls(table)


def to_our_shape(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """An official tensor in our layout, where only singleton axes differ.

    The original image encoder writes its attention as 1 x 1 convolutions, diffusers as linear layers; VPD
    keeps class vectors as [N, C], we as [N, 1, C]. Anything else is returned as it is.
    """
    squeezed = tuple(side for side in tensor.shape if side != 1)
    if tuple(tensor.shape) != shape and squeezed == tuple(side for side in shape if side != 1):
        return tensor.reshape(shape)
    return tensor
