"""Parameter groups: who learns how fast, and whose weights decay.

The published rules are those of EVP's and VPD's optimisers, told on our names. Some follow from how a layer is called
there rather than from what it is, and are kept: with them a published learning rate means what it meant.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor, nn

from deixis.registry import RELATIVE, SYSTEMS

Groups = Literal["matrices", "published"]

# Share of the learning rate for what comes pre-trained from Stable Diffusion (EVP and VPD).
PRETRAINED = 0.01

# A parameter's name and number of dimensions to its share of the learning rate and whether it decays.
Rule = Callable[[str, int], tuple[float, bool]]


def _matrices(name: str, ndim: int) -> tuple[float, bool]:
    """One learning rate; decay for matrices and kernels, none for biases, norms and gains."""
    del name
    return 1.0, ndim > 1


def _everything(name: str, ndim: int) -> tuple[float, bool]:
    """One learning rate, and decay for everything: what Lotus and E2E-FT hand to AdamW; Marigold's decay is 0."""
    del name, ndim
    return 1.0, True


def _published_depth(name: str, ndim: int) -> tuple[float, bool]:
    """``depth/models_depth/optimizer.py`` of EVP and VPD: two layers, whose decay rate of 0.9 comes to 0.01 and 1.

    A text tower that learns counts as pre-trained; the adapter behind it does not.
    """
    return PRETRAINED if _pretrained(name) else 1.0, ndim > 1


def _published_refer(name: str, ndim: int) -> tuple[float, bool]:
    """``refer/train.py`` of EVP and VPD: spared from decay is what has ``norm`` in its official name.

    Those are the norms of the U-Net's transformers and of EVP's refinement. Biases decay, and so do the norms of the
    U-Net's residual blocks and of the mask head, which are numbered there.
    """
    del ndim
    spared = "norm" in name and (name.startswith("imafr.") or (name.startswith("unet.") and ".attentions." in name))
    return PRETRAINED if _pretrained(name) else 1.0, not spared


def _pretrained(name: str) -> bool:
    return name.startswith(("image_encoder.", "unet.", "text_tower."))


def parameter_groups(
    model: nn.Module, auxiliary: nn.Module, weight_decay: float, rule: Groups = "matrices", system: str | None = None
) -> list[dict[str, Any]]:
    """What a torch optimiser is made of: groups with ``params``, ``weight_decay`` and ``scale``, none empty.

    Args:
        model: the network; what is frozen is left out.
        auxiliary: parts that are trained along and then thrown away: always by ``matrices``.
        weight_decay: of what decays.
        rule: ``matrices``: one learning rate, and decay for what has two dimensions or more. ``published``: as the
            system's own code.
        system: which; for ``published``.
    """
    chosen: Rule = _matrices
    if rule == "published":
        if system in RELATIVE:
            chosen = _everything
        else:
            chosen = _published_depth if SYSTEMS[str(system)].task == "depth" else _published_refer
    found: dict[tuple[float, bool], list[Tensor]] = {}
    for part, its_rule in ((model, chosen), (auxiliary, _matrices)):
        for name, parameter in part.named_parameters():
            if parameter.requires_grad:
                found.setdefault(its_rule(name, parameter.ndim), []).append(parameter)
    # What decays comes first, at each learning rate: states on disk number the parameters in this order.
    return [
        {"params": found[key], "weight_decay": weight_decay if key[1] else 0.0, "scale": key[0]}
        for key in sorted(found, reverse=True)
    ]
