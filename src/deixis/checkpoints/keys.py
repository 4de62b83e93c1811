"""Names and shapes of the official EVP and VPD models' tensors, for each of ours.

Each of our keys has exactly one official name: the longest prefix in the table of its system is exchanged. All
keys of a network are named this way, so nothing can be forgotten.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

LEVELS = 4

# Names inside a block, ours (diffusers') and those of the original latent diffusion code.
_VAE_RESNET = {
    "norm1": "norm1",
    "conv1": "conv1",
    "norm2": "norm2",
    "conv2": "conv2",
    "conv_shortcut": "nin_shortcut",
}
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def _inside(ours: str, theirs: str, names: Mapping[str, str]) -> dict[str, str]:
    return {f"{ours}.{a}": f"{theirs}.{b}" for a, b in names.items()}


def _vae(ours: str, theirs: str, layers: int = 2) -> dict[str, str]:
    """The encoder half of ``AutoencoderKL``."""
    inside = {
        "encoder.conv_in": "encoder.conv_in",
        "encoder.conv_norm_out": "encoder.norm_out",
        "encoder.conv_out": "encoder.conv_out",
        "quant_conv": "quant_conv",
        "post_quant_conv": "post_quant_conv",
        **_inside("encoder.mid_block.attentions.0", "encoder.mid.attn_1", _VAE_ATTENTION),
    }
    for i in range(2):
        inside |= _inside(f"encoder.mid_block.resnets.{i}", f"encoder.mid.block_{i + 1}", _VAE_RESNET)
    for level in range(LEVELS):
        inside[f"encoder.down_blocks.{level}.downsamplers.0"] = f"encoder.down.{level}.downsample"
        for i in range(layers):
            inside |= _inside(
                f"encoder.down_blocks.{level}.resnets.{i}", f"encoder.down.{level}.block.{i}", _VAE_RESNET
            )
    return _inside(ours, theirs, inside)


def _unet(ours: str, theirs: str, layers: int = 2) -> dict[str, str]:
    """``UNet2DConditionModel``, whose original numbers its blocks through."""
    inside = {
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "conv_in": "input_blocks.0.0",
        "mid_block.attentions.0": "middle_block.1",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
    }
    for i in range(2):
        inside |= _inside(f"mid_block.resnets.{i}", f"middle_block.{2 * i}", _UNET_RESNET)
    for block in range(LEVELS):
        for i in range(layers):
            n = 1 + block * (layers + 1) + i
            inside |= _inside(f"down_blocks.{block}.resnets.{i}", f"input_blocks.{n}.0", _UNET_RESNET)
            inside[f"down_blocks.{block}.attentions.{i}"] = f"input_blocks.{n}.1"
        inside[f"down_blocks.{block}.downsamplers.0.conv"] = f"input_blocks.{(block + 1) * (layers + 1)}.0.op"
        for i in range(layers + 1):
            n = block * (layers + 1) + i
            inside |= _inside(f"up_blocks.{block}.resnets.{i}", f"output_blocks.{n}.0", _UNET_RESNET)
            inside[f"up_blocks.{block}.attentions.{i}"] = f"output_blocks.{n}.1"
        # The coarsest block has no attention: its upsampler comes second, in the others third.
        last = block * (layers + 1) + layers
        inside[f"up_blocks.{block}.upsamplers.0"] = f"output_blocks.{last}.{1 if block == 0 else 2}"
    return _inside(ours, theirs, inside)


def _imafr() -> dict[str, str]:
    """``aggregation``: layer 1 at the finest level, then attention and fusion in turn."""
    table = _inside(
        "imafr",
        "aggregation.layer1",
        {"spatial.project": "spatial_attention.0", "conv": "conv1", "norm": "group_norm"},
    )
    attend = {
        "spatial.project": "spatial_attention.0",
        "channel.squeeze": "channel_attention.1",
        "channel.excite": "channel_attention.3",
        "conv1": "conv1",
        "conv2": "conv2",
        "norm": "group_norm",
    }
    for i in range(LEVELS - 1):
        table |= _inside(f"imafr.attend.{i}", f"aggregation.layer{2 + 2 * i}", attend)
        table[f"imafr.fuse.{i}"] = f"aggregation.layer{3 + 2 * i}.conv1"
    return table


def _depth_head(system: str) -> dict[str, str]:
    table = {
        "decoder.conv": "decoder.conv_layers",
        "decoder.last": "decoder.last_layer_depth" if system == "evp-depth" else "last_layer_depth",
        "bins.bottleneck": "bottle_neck",
        "bins.seed": "seed_bin_regressor._net",
        "bins.seed_projector": "seed_projector._net",
        "bins.log_binomial": "conditional_log_binomial",
    }
    for i in range(3):  # deconvolution, batch norm, ReLU
        table |= {f"decoder.deconvs.{i}.{j}": f"decoder.deconv_layers.{3 * i + j}" for j in range(3)}
    for i in range(LEVELS):
        table[f"bins.projectors.{i}"] = f"projectors.{i}._net"
        table[f"bins.attractors.{i}.net"] = f"attractors.{i}._net"
    return table


def _mask_head() -> dict[str, str]:
    table = {"decoder.classify": "classifier.conv1_1"}
    for i in range(LEVELS - 1):
        fuse = {"0": "conv1", "1": "bn1", "3": "conv2", "4": "bn2"}
        table |= {f"decoder.fuse.{i}.{ours}": f"classifier.{theirs}_{LEVELS - i}" for ours, theirs in fuse.items()}
    return table


@cache
def _prefixes(system: str) -> Mapping[str, str]:
    depth = system.endswith("depth")
    encoder = {
        **_vae("image_encoder", "encoder_vq"),
        **_unet("unet.unet", "unet.unet.diffusion_model"),
        "text_adapter.fc": "text_adapter.fc",
        "text_adapter.gamma": "gamma",
        "stored_text": "class_embeddings",
        **_imafr(),
        "join.layer1": "layer1",
        "join.layer2": "layer2.0",
        "join.out": "out_layer",
    }
    # The depth models keep all of this in a module of its own, the referring ones do not.
    table = {ours: f"encoder.{theirs}" for ours, theirs in encoder.items()} if depth else encoder
    # transformers 5 dropped ``text_model`` in memory; official checkpoints have it.
    table["text_tower.clip"] = table["text_tower.clip.text_model"] = text_tower_prefix(system) + "text_model"
    return table | (_depth_head(system) if depth else _mask_head())


def text_tower_prefix(system: str) -> str:
    """What official keys of the text tower begin with."""
    return "encoder.clip_model.transformer." if system.endswith("depth") else "clip_model."


def official_key(key: str, system: str) -> str:
    """Official name of one of our keys.

    Args:
        key: key of our network.
        system: ``evp-depth``, ``evp-refer``, ``vpd-depth`` or ``vpd-refer``.

    Raises:
        KeyError: if there is none.
    """
    prefixes = _prefixes(system)
    names = key.split(".")
    for length in range(len(names), 0, -1):
        prefix = ".".join(names[:length])
        if prefix in prefixes:
            return prefixes[prefix] + key[len(prefix) :]
    raise KeyError(key)


def official_shape(key: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Official shape of one of our tensors.

    The original image encoder writes its attention as 1 x 1 convolutions, diffusers as linear layers.
    """
    if key.startswith("image_encoder.encoder.mid_block.attentions.") and len(shape) == 2:
        return (*shape, 1, 1)
    return shape
