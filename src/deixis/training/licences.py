"""The licence of trained weights, from what they were trained on and what they started from."""

from __future__ import annotations

import re
from pathlib import Path

from deixis.checkpoints.layout import CARD, MANIFEST, read_json
from deixis.data import nyuv2
from deixis.registry import MINI_LICENCE
from deixis.training.recipe import Recipe

# Of weights that learned from the synthetic world alone.
PLAIN, UNKNOWN = "Apache-2.0", "unknown"
NYU_TERMS = MINI_LICENCE.removeprefix(f"{PLAIN}; ")
# What the datasets' own terms come to; those that are not named here are one's own or the world.
TERMS = {
    "nyuv2": NYU_TERMS,
    "nyuv2-rooms": NYU_TERMS,
    "kitti": "trained on KITTI, CC BY-NC-SA 3.0",
    "eth3d": "trained on ETH3D, CC BY-NC-SA 4.0",
    "scannet": "trained on ScanNet, by its terms of use for research",
    "diode": "trained on DIODE, MIT",
    "hypersim": "trained on Hypersim, CC BY-SA 3.0",
    "vkitti2": "trained on Virtual KITTI 2, CC BY-NC-SA 3.0",
    **dict.fromkeys(("refcoco", "refcoco+", "refcocog", "grefcoco"), "trained on COCO pictures, by Flickr's terms"),
}
OWN = "trained on frames of one's own, by their owner's terms"


def licence_of(recipe: Recipe) -> str:
    """The licence of what a recipe trains: that of its start, with the terms of its data.

    A start that does not say its licence makes the whole ``unknown``.
    """
    data = recipe.data
    terms = [TERMS[one.dataset] for one in data.sets.values() if one.share and one.dataset in TERMS]
    if data.root is not None:
        terms.append(OWN if Path(data.root, nyuv2.SPLIT_FILE).is_file() else NYU_TERMS)
    first, *inherited = (PLAIN if recipe.init is None else _stated(Path(recipe.init))).split("; ")
    return "; ".join(dict.fromkeys([first, *inherited, *terms]))


def _stated(folder: Path) -> str:
    """What a folder of weights says its licence is: in its manifest, or on its card."""
    manifest, card = folder / MANIFEST, folder / CARD
    if manifest.is_file():
        return str(read_json(manifest).get("licence", UNKNOWN))
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    # Our own cards say it in a line, others in their head.
    found = re.search(r"^\* \*\*Licence\*\*: (.+?)\.?$", text, re.MULTILINE)
    found = found or re.search(r"^license: *(?!other\b)(\S+)$", text, re.MULTILINE)
    return found[1] if found else UNKNOWN
