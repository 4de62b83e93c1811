"""The card of what a recipe trained: what it learned from, how long, what it reaches on unseen frames, its limits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from deixis.checkpoints.layout import CARD as CARD  # training.run looks for it here
from deixis.checkpoints.layout import GALLERY, MANIFEST, SAMPLES
from deixis.data import nyuv2
from deixis.data.world import WORLD_PERIOD, WORLD_REMAINDERS
from deixis.errors import ModelError
from deixis.io import write_image, write_json, write_text
from deixis.predict import DepthPredictor, MaskPredictor, load, load_metric
from deixis.registry import RELATIVE
from deixis.relative import RelativePredictor
from deixis.sharing import metadata, with_metadata
from deixis.training import gallery
from deixis.training.checks import STAGES
from deixis.training.comparison import RESAMPLES, table
from deixis.training.licences import NYU_TERMS, licence_of
from deixis.training.measure_depth import depth_sections
from deixis.training.measure_refer import calibrate, refer_sections
from deixis.training.measure_relative import relative_sections
from deixis.training.measure_stages import (
    autoencoder_sections,
    contrast_sections,
    reconstructed,
    samples,
    text_to_image_sections,
)
from deixis.training.recipe import Recipe
from deixis.training.scenes import TITLES, Scenes, load_scenes
from deixis.training.store import SOURCES, load_store

# In the run folder: photos of NYU Depth v2 may not be passed on with weights.
PHOTO_GALLERY = "gallery-nyuv2.jpg"
# Measures how far what a referring model finds is.
DEPTH_MODEL = "evp-depth-mini"


def write_card(recipe: Recipe, weights: Path, seconds: float) -> None:
    """Evaluate ``weights`` on held-out frames and write their README.md, last of all, with a sheet of pictures.

    Args:
        recipe: what they were trained by.
        weights: the folder, in its run folder; referring models get their thresholds first.
        seconds: training time.

    Raises:
        InputError: if a dataset is incomplete or a file of it cannot be read.
        ModelError: if the weights cannot be loaded.
        DeixisError: if the card cannot be written.
    """
    sources = load_scenes(recipe.data)
    if recipe.system in STAGES:
        results = _stage(recipe, weights)
        licence = licence_of(recipe)
    else:
        predictor = load(weights.absolute())
        # All sources are measured; pictures are of those that it has learned from.
        learned = [one for one in sources if recipe.data.shares[SOURCES.index(one.source)]]
        licence = licence_of(recipe) if isinstance(predictor, RelativePredictor) else predictor.manifest.licence
        if isinstance(predictor, MaskPredictor):
            results = _refer(predictor, weights, sources, learned)
        elif isinstance(predictor, RelativePredictor):
            results = _relative(predictor, weights, sources, learned)
        else:
            results = _depth(predictor, weights, sources, learned)
    lines = [*_opening(recipe, weights, seconds, sources, licence), *results, *_limits(recipe)]
    text = "\n".join([*lines, ""])
    if recipe.system not in STAGES:
        text = with_metadata(text, metadata(recipe.system, licence, _datasets(recipe, licence)))
    write_text(weights / CARD, text)


# ------------------------------------------------------------------------------------------------------- results


def _depth(predictor: DepthPredictor, weights: Path, sources: Sequence[Scenes], learned: Sequence[Scenes]) -> list[str]:
    photos, world = _kinds(learned)
    photo = gallery.demo_photo() if any(one.source != "roads" for one in learned) else None  # of a bedroom
    _write(weights / GALLERY, gallery.depth_sheet(predictor, [(one, 3) for one in world], photo))
    _write(weights.parent / PHOTO_GALLERY, gallery.depth_sheet(predictor, [(one, 8) for one in photos]))
    pictures = _pictures("their true depth, this model's on the same scale, and its error", weights / GALLERY)
    return [*depth_sections(predictor, sources), *_how_intervals(sources), *pictures]


def _relative(
    predictor: RelativePredictor, weights: Path, sources: Sequence[Scenes], learned: Sequence[Scenes]
) -> list[str]:
    photos, world = _kinds(learned)
    photo = gallery.demo_photo()
    _write(weights / GALLERY, gallery.relative_sheet(predictor, [(one, 3) for one in world], photo))
    _write(weights.parent / PHOTO_GALLERY, gallery.relative_sheet(predictor, [(one, 8) for one in photos]))
    pictures = _pictures("their true depth, and this model's without and with a caption", weights / GALLERY)
    return [*relative_sections(predictor, sources), *_how_intervals(sources), *pictures]


def _refer(predictor: MaskPredictor, weights: Path, sources: Sequence[Scenes], learned: Sequence[Scenes]) -> list[str]:
    cut, threshold = calibrate(predictor, sources)
    manifest = json.loads((weights / MANIFEST).read_text(encoding="utf-8"))
    manifest["mask_threshold"] = predictor.manifest.mask_threshold = cut
    manifest["threshold"] = predictor.manifest.threshold = threshold
    write_json(weights / MANIFEST, manifest)
    try:
        depth = load_metric(DEPTH_MODEL)
    except ModelError:  # the weights that come with the package are not there yet
        depth = None
    photos, world = _kinds(learned)
    photo = gallery.demo_photo()
    _write(weights / GALLERY, gallery.refer_sheet(predictor, depth, [(one, 6) for one in world], photo))
    _write(weights.parent / PHOTO_GALLERY, gallery.refer_sheet(predictor, depth, [(one, 16) for one in photos]))
    pictures = _pictures("outlined in green what is meant, in pink what this model finds", weights / GALLERY)
    return [*refer_sections(predictor, sources, depth), *_how_intervals(sources), *pictures]


def _stage(recipe: Recipe, weights: Path) -> list[str]:
    store = load_store(recipe.data, "heldout")
    if recipe.system == "contrast":
        return contrast_sections(weights.parent / "state.pt", weights, store)
    if recipe.system == "text-to-image":
        _write(weights / SAMPLES, gallery.sheet(samples(weights, recipe, store), 4))
        said = f"![Generated pictures]({SAMPLES})"
        return [*text_to_image_sections(weights, recipe, store), "## Samples", "", said, ""]
    world = torch.cat([store.rows("rooms")[:4], store.rows("roads")[:2]])
    for path, rows in ((weights / GALLERY, world), (weights.parent / PHOTO_GALLERY, store.rows("nyuv2")[::20])):
        cells = [cell for row in reconstructed(weights, recipe, store.images[rows]) for cell in row]
        _write(path, gallery.sheet(cells, 3) if cells else None)
    pictures = _pictures("as they are, encoded and decoded, and averaged over 8 x 8 pixels", weights / GALLERY)
    return [*autoencoder_sections(weights, recipe, store), *pictures]


def _kinds(sources: Sequence[Scenes]) -> tuple[list[Scenes], list[Scenes]]:
    """Photos, and the world."""
    return [one for one in sources if one.source == "nyuv2"], [one for one in sources if one.source != "nyuv2"]


def _write(path: Path, picture: Image.Image | None) -> None:
    if picture is not None:
        write_image(path, picture)


def _pictures(what: str, path: Path) -> list[str]:
    if not path.is_file():
        return []
    return ["## Pictures", "", f"Frames held out, {what}.", "", f"![Held-out frames]({path.name})", ""]


def _how_intervals(sources: Sequence[Scenes]) -> list[str]:
    photos = any(one.source == "nyuv2" for one in sources)
    rooms = (
        " On photos whole rooms are drawn, each with all its frames, which are not independent; a room is taken to be"
        " a run of consecutive indices in one scene type, which may join several." * photos
    )
    return [
        f"Intervals: paired bootstrap with {RESAMPLES} resamples; frames of the world are drawn one by one, each with"
        f" everything that is asked about it.{rooms}",
        "",
    ]


# ------------------------------------------------------------------------------------------------- what it is


def _opening(recipe: Recipe, weights: Path, seconds: float, sources: Sequence[Scenes], licence: str) -> list[str]:
    opt = recipe.optimisation
    size = sum(file.stat().st_size for file in weights.rglob("*.safetensors"))
    threads = f"{recipe.threads} CPU thread{'s' if recipe.threads > 1 else ''} of a busy machine"
    shares = [float(recipe.data.shares[SOURCES.index(one.source)]) for one in sources]
    total = sum(shares) or 1.0
    height, width = recipe.data.size
    window = f", on windows of {recipe.crop} x {recipe.crop}" if recipe.crop else ""
    aside = _teacher(recipe)
    return [
        f"# {Path(recipe.out).name}",
        "",
        f"{_what(recipe)} {size / 2e6:.1f} M parameters in float16 ({size / 1e6:.1f} MB).",
        "",
        *table(
            ("data", "training", "validation", "held out", "share of the batches"),
            [
                [one.title, *one.counts.values(), f"{100 * share / total:.0f} %"]
                for one, share in zip(sources, shares, strict=True)
            ],
        ),
        f"* **Text**: {_text(recipe)}",
        *([f"* **Did not learn**: {', '.join(recipe.frozen)}, which are as they were."] if recipe.frozen else []),
        *_held_out(recipe, sources),
        f"* **Training**: {opt.steps} steps of {opt.batch_size} at {width} x {height}{window}, {seconds / 60:.0f}"
        f" minutes on {threads if recipe.device == 'cpu' else recipe.device}."
        f"{' The weights are a moving average over the steps.' if opt.ema else ''}{aside}",
        f"* **One run, seed {opt.seed}**: the intervals below say how much depends on which frames were held out, not"
        " how another seed would have come out.",
        f"* **Licence**: {licence}.",
        "",
    ]


def _stated(recipe: Recipe) -> bool:
    """Whether its photos are frames of one's own, with their own split."""
    return recipe.data.root is not None and Path(recipe.data.root, nyuv2.SPLIT_FILE).is_file()


def _datasets(recipe: Recipe, licence: str) -> list[str]:
    """What it learned from, as the model hub names datasets; photos also where only its start did, as licences tell."""
    return ["nyu_depth_v2"] * (NYU_TERMS in licence) + ["deixis-world"] * (recipe.data.world is not None)


def _start(recipe: Recipe) -> str:
    """The weights it started from, empty where it began untrained."""
    if recipe.init is None:
        return ""
    donor = Path(recipe.init)
    return f"`{(donor.parent if donor.name == 'weights' else donor).name}`"


def _what(recipe: Recipe) -> str:
    start = _start(recipe) or "an untrained backbone"
    if recipe.system == "autoencoder":
        return "The image autoencoder of a small Stable Diffusion, trained from nothing:"
    if recipe.system == "contrast":
        beside = f", beside the parts of {start}" if recipe.init is not None else ""
        return f"The text tower of a small Stable Diffusion, trained against pictures{beside}:"
    if recipe.system == "text-to-image":
        return f"A small Stable Diffusion, its U-Net trained from nothing, the rest from {start} (diffusers loads it):"
    return f"System `{recipe.system}`, fine-tuned from {start}:"


def _text(recipe: Recipe) -> str:
    photos, world = recipe.data.root is not None, recipe.data.world is not None
    made = " and ".join(
        ["from the photos' class labels and depth"] * photos
        + ["from the scenes that world frames were rendered from"] * world
    )
    captions = f"captions made {made} (oracle)"
    if recipe.system == "autoencoder":
        return "none."
    if recipe.system.endswith("refer"):
        parts = ["template expressions and class words on photos, from their labels"] * photos
        parts += ["expressions made from the scenes of world frames"] * world
        return f"{'; '.join(parts)} (oracle); some name what is not there."
    if recipe.system == "vpd-depth":
        return f"the name of the frame's place in CLIP's templates (oracle){_withheld(recipe)}."
    if recipe.system in RELATIVE:
        return f"{captions}, without distances, {recipe.text_rate:.0%} of the time; otherwise none."
    if recipe.system.endswith("depth"):
        return f"{captions}, without distances{_withheld(recipe)}."
    return f"{captions}, from a few words to distances."


def _withheld(recipe: Recipe) -> str:
    own, mean, none = (share / sum(recipe.text_shares) for share in recipe.text_shares)
    parts = [f"{own:.0%} of the time"] + [f"their mean {mean:.0%}"] * bool(mean) + [f"none {none:.0%}"] * bool(none)
    return f", {', '.join(parts)}" if own < 1 else ""


def _teacher(recipe: Recipe) -> str:
    if recipe.system == "contrast":
        return " The pictures' side is a frozen EfficientNet-Lite0 (ImageNet, Apache-2.0), which is not in the weights."
    lessons = ["the features of EfficientNet-Lite0 (ImageNet, Apache-2.0)"] * bool(recipe.teacher.weight)
    lessons += ["the photos' label maps"] * bool(recipe.semantic)
    if not lessons:
        return ""
    return f" The U-Net also learned to predict {' and '.join(lessons)}; the heads that do are not in the weights."


def _held_out(recipe: Recipe, sources: Sequence[Scenes]) -> list[str]:
    there = {one.source for one in sources}
    lines = []
    if _stated(recipe):
        named = sorted({scene.place for one in _kinds(sources)[0] for scene in one.splits["heldout"]})
        lines.append(f"* **Photos held out**: all of {', '.join(named)}, as `{nyuv2.SPLIT_FILE}` beside them says.")
    elif "nyuv2" in there:
        lines.append(
            f"* **Photos held out by rooms**: all of {', '.join(sorted(nyuv2.HELDOUT_SCENES))}, and of"
            f" {', '.join(sorted(nyuv2.CUTS))} the frames from an index on at which the room changes"
            " (`deixis.data.nyuv2`); frames of rooms that training shows as well are left out altogether. Other rooms"
            " of the same homes may be among the training frames."
        )
    if there - {"nyuv2"}:
        lines.append(
            f"* **World held out by seeds**: those that leave {WORLD_REMAINDERS['heldout']} when divided by"
            f" {WORLD_PERIOD}; the ones that leave {WORLD_REMAINDERS['val']} validate."
        )
    lines.append("* The held-out frames' numbers were looked at for this card and nothing else.")
    gone = [TITLES[source] for source in SOURCES if source not in there]
    if gone:
        start = _start(recipe)
        aside = f"; {start}, which it started from, may have learned from them" if start else ""
        lines.append(f"* Not at hand, so neither learned from nor measured on: {', '.join(gone)}{aside}.")
    return lines


def _limits(recipe: Recipe) -> list[str]:
    height, width = recipe.data.size
    photos, world = recipe.data.root is not None, recipe.data.world is not None
    drawn = [kind for kind, share in zip(SOURCES[1:], recipe.data.shares[1:], strict=True) if share]
    rendered = [f"rendered {' and '.join(drawn)}"] * bool(world and drawn)
    seen = " and ".join(["indoor rooms as a Kinect sees them"] * photos + rendered)
    start = _start(recipe)
    narrow = f"* It has seen {seen}, {f'beside what {start} had, ' if start else ''}and nothing else."
    if recipe.system == "autoencoder":
        lines = [
            narrow,
            "* Eight by eight pixels become four numbers: small text, thin things and fine texture are lost.",
        ]
    elif recipe.system == "contrast":
        lines = [narrow, "* It knows the words of its captions; others are spelt out in pieces that mean little to it."]
    elif recipe.system == "text-to-image":
        lines = [
            narrow,
            "* It is there to start perception from, not to make pictures: samples show layout and colours, hardly"
            " things.",
        ]
    elif recipe.system in RELATIVE:
        lines = [
            f"{narrow} Maps of other cameras and places may be turned over or meaningless.",
            f"* Blurred: it works at {width} x {height} and on a stride-8 latent. Thin things and edges are lost.",
            "* No metres: each map is true up to a scale and a shift.",
            "* Small: use released weights of its authors where depth matters.",
        ]
    elif recipe.system.endswith("depth"):
        lines = [
            f"{narrow} Other cameras, places and close-ups give numbers without meaning.",
            f"* Blurred: it works at {width} x {height} and on a stride-8 latent. Thin things and edges are lost.",
            f"* Nothing farther than {recipe.config.get('max_depth', 10.0):g} m was learned from.",
            "* Small: use converted EVP or VPD weights where distances matter.",
        ]
    else:
        words = ["some forty words for furniture on photos"] * photos + ["the words of the world"] * world
        lines = [
            f"* It knows {' and '.join(words)}; by others it answers with what they remind it of.",
            *(
                ["* The photos' expressions are templates on class labels; about one in ten is doubtful by eye."]
                * photos
            ),
            f"* Masks are blurred: it works at {width} x {height}. Small things are often missed.",
            '* How far "no such object" can be relied on is in the table above.',
        ]
    return ["## Limits", "", *lines]
