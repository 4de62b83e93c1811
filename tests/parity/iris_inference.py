"""Checks of what Marigold, Lotus and E2E-FT predict, step by step and as a whole call."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, cast
from unittest import mock

import numpy as np
import numpy.typing as npt
import scipy.optimize
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn

from deixis import ensemble
from deixis.backbones.latents import decode, encode
from deixis.checkpoints.pipelines import Pipeline
from deixis.relative import RelativePredictor, processing_size
from deixis.systems.e2e_ft import E2EFT, E2EFTConfig, stretched
from deixis.systems.lotus import Lotus, LotusConfig, task_embedding
from deixis.systems.lotus import Task as LotusTask
from deixis.systems.marigold import Marigold, MarigoldConfig, depth_of
from tests.parity.iris_rows import Case, Row, compare, follow, groups, recipes_in

TASKS: dict[str, LotusTask] = {"annotation": "annotation", "rgb": "reconstruction"}
# The recording's README: of these the official optimiser moves the shifts by rounding noise; the others are stable.
UNSTABLE = "affine_median"
# Merged maps, parameters and cost.
UNSTABLE_LIMIT = {"atol": 1e-2}


def _parts(case: Case) -> tuple[AutoencoderKL, UNet2DConditionModel]:
    return cast(AutoencoderKL, case.model("vae")), cast(UNet2DConditionModel, case.model("unet"))


def _input(case: Case, entry: str) -> Tensor:
    """An input that the recording describes in words, or under ``recipe``."""
    said: Any = case.facts["inputs"][entry]
    return follow(*recipes_in(said["recipe"] if isinstance(said, dict) else said)[0], case.seed)


def _texts(case: Case, batch: int) -> dict[str, Tensor]:
    """Vectors [B, T, C] of each recorded text, the same for every picture of a batch."""
    found = {name: case.text(name) for name in case.facts["inputs"]["token_ids"]}
    for name, vectors in found.items():
        stored = case.arrays.get(f"text_embed_{name}", vectors)
        case.check_array(f"text_embed_{name}", vectors.expand(batch, -1, -1) if len(stored) == batch else vectors)
    return {name: vectors.expand(batch, -1, -1) for name, vectors in found.items()}


def _finish(case: Case, *said: str) -> list[Row]:
    """The rows, once what is said in words counts as read."""
    for name in said:
        case.fact(name)
    return case.finish()


@contextmanager
def _outputs(module: nn.Module) -> Iterator[list[Tensor]]:
    kept: list[Tensor] = []
    hook = module.register_forward_hook(lambda _module, _args, output: kept.append(output.sample))
    try:
        yield kept
    finally:
        hook.remove()


def _marigold(case: Case) -> Marigold:
    scheduler = DDIMScheduler.from_config(case.fact("scheduler", "config"))
    case.fact("scheduler")
    return Marigold(MarigoldConfig(), *_parts(case), None, scheduler)


@torch.inference_mode()
def check_marigold_infer(folder: Path, name: str) -> list[Row]:
    """Latents after each step, raw and clipped depth."""
    case = Case.read(folder, name)
    model = _marigold(case)
    picture, noise = encode(model.vae, _input(case, "rgb")), _input(case, "init_latent")
    case.check_array("rgb_latent", picture)
    for text, vectors in _texts(case, len(picture)).items():
        for steps in map(int, case.facts["timesteps"]):
            with _outputs(model.unet) as outputs:
                latents = model.denoise(picture, vectors, noise, steps)
            case.check(model.scheduler.timesteps.tolist(), "timesteps", str(steps))
            raw = decode(model.vae, latents[-1])
            key = f"{text}_s{steps}"
            case.check_array(f"{key}_z", torch.cat(latents))
            case.check_array(f"{key}_model_out_first", outputs[0])
            case.check_array(f"{key}_raw", raw.mean(dim=1, keepdim=True))
            case.check_array(f"{key}_depth", depth_of(raw))
            if key in case.facts["diffusers_agreement"]:
                beyond = float((raw.mean(dim=1).abs() > 1).double().mean())
                case.check(float(latents[-1].abs().max()), "diffusers_agreement", key, "latent_absmax", rtol=1e-4)
                case.check(beyond, "diffusers_agreement", key, "clipped_fraction", rtol=1e-4)
    # How far diffusers' own pipeline is from the originals: of the recording, not of ours.
    case.fact("diffusers_agreement")
    return _finish(case, "unet_input", "rgb_latent", "depth", "text_embedding")


@torch.inference_mode()
def check_marigold_call_resize(folder: Path) -> list[Row]:
    """A whole call at several resolutions, and the rule of sizes."""
    case = Case.read(folder, "marigold_call_resize")
    # The recording names another one, whose schedule and texts are meant.
    named, steps = groups(r"(\w+), (\d+) steps", case.facts["inputs"]["scheduler"])
    other = Case.read(folder, f"marigold_infer_{named}")
    scheduler = DDIMScheduler.from_config(other.facts["scheduler"]["config"])
    model = Marigold(MarigoldConfig(), *_parts(case), None, scheduler)
    text = case.facts["inputs"]["text"].split()[-1]
    case.facts["inputs"].setdefault("token_ids", other.facts["inputs"]["token_ids"])

    def depth(picture: Tensor) -> Tensor:
        found: Tensor = model(picture, case.text(text), _noise(case, "init_latent", picture), int(steps))
        return found

    _check_calls(case, "marigold", model, depth, facts="cases")
    for i, row in enumerate(case.facts["size_table"]):
        width, height = row["in_wh"]
        size = processing_size(height, width, row["max_edge"], official=True)
        case.check(list(size[::-1]), "size_table", i, "official_wh", atol=0.0)
    case.fact("size_table")
    examples = next(key for key in case.facts if key.startswith("float_truncation_examples"))
    for i, (width, edge, _) in enumerate(case.facts[examples]):
        case.check(processing_size(width, width, edge, official=True)[1], examples, i, 2, atol=0.0)
    case.fact(examples)
    for key in case.facts:
        counted = re.fullmatch(r"n_truncation_cases_W_(\d+)_to_(\d+)_x_(\d+)_R", key)
        if counted is None:
            continue
        first, last, number = map(int, counted.groups())
        edges = {edge for _, edge, _ in case.facts[examples]}
        if len(edges) != number:
            case.fail(key, f"the examples name {len(edges)} resolutions")
        cut = (processing_size(w, w, r, official=True)[1] != r for w in range(first, last + 1) for r in edges)
        case.check(sum(cut), key)
    return _finish(case, "resize_rule")


def _noise(case: Case, entry: str, picture: Tensor) -> Tensor:
    """Noise of the latents' size, from a recipe with ``{h}x{w}`` in its name."""
    height, width = picture.shape[-2] // 8, picture.shape[-1] // 8
    name = re.findall(r"'([^']*\{h\}x\{w\})'", str(case.facts["inputs"][entry]))[0].format(h=height, w=width)
    return follow("noise", name, (1, 4, height, width), case.seed)


def _picture_of_calls(case: Case) -> str:
    """The name of the entry that describes what whole calls are given."""
    return next(name for name in case.facts["inputs"] if name.startswith("image"))


def _text_of_calls(case: Case) -> str:
    """The name of the text that whole calls are given."""
    (name,) = groups(r"text embedding '(\w+)'", case.facts["inputs"][_picture_of_calls(case)])
    return name


def _check_calls(
    case: Case,
    system: Literal["marigold", "lotus-d", "lotus-g", "e2e-ft"],
    model: Any,
    depth: Callable[[Tensor], Tensor],
    *,
    facts: str,
) -> None:
    """Every ``res<R>_match<0|1>`` of a case."""
    pipeline = Pipeline(system, model, cast(Any, None), "affine", cast(Any, None), "none", {})
    predictor = RelativePredictor("case", pipeline, torch.device("cpu"))
    entry = _picture_of_calls(case)
    # What else the entry says may hold recipes whose shapes are letters.
    rgb = follow(*recipes_in(case.facts["inputs"][entry].split(")")[0] + "))")[0], case.seed).numpy()
    for name, said in case.facts[facts].items():
        resolution, match = map(int, re.findall(r"res(\d+)_match(\d)", name)[0])
        working = processing_size(*rgb.shape[:2], resolution, official=True)
        picture = predictor.prepare(rgb, working, official=True)
        found = depth(picture)
        if isinstance(said, dict):
            case.check(list(working), facts, name, "network_input", atol=0.0)
            if "rgb_min_max" in said:
                case.check([float(picture.min()), float(picture.max())], facts, name, "rgb_min_max")
            case.check([side // 8 for side in working], facts, name, "latent", atol=0.0)
            if "decoded" in said:
                case.check(list(found.shape[-2:]), facts, name, "decoded", atol=0.0)
        if match:
            found = predictor.enlarge(found, (rgb.shape[0], rgb.shape[1]), official=True).clamp(0, 1)
        output = list(found.shape[-2:])
        case.check(output, *([facts, name, "output"] if isinstance(said, dict) else [facts, name]), atol=0.0)
        case.check_array(name, found[0, 0])
    case.fact(facts)


@torch.inference_mode()
def check_e2e_ft_infer(folder: Path) -> list[Row]:
    """One step from zeros and from noise, and whole calls."""
    case = Case.read(folder, "e2e_ft_infer")
    scheduler = DDIMScheduler.from_config(case.facts["scheduler"]["config"])
    case.fact("scheduler")
    model = E2EFT(E2EFTConfig(), *_parts(case), None, scheduler)
    image = _input(case, "rgb")
    picture, texts = encode(model.vae, image), _texts(case, len(image))
    starts = {"zeros": None, "gaussian": case.make("noise")}
    for text, vectors in texts.items():
        for start, noise in starts.items():
            with _outputs(model.unet) as outputs:
                x0 = model.predict_x0(picture, vectors, noise)
            depth = model(image, vectors, noise)
            key = f"{text}_{start}"
            case.check_array(f"{key}_model_out", outputs[0])
            case.check_array(f"{key}_x0", x0)
            case.check_array(f"{key}_raw", decode(model.vae, x0).mean(dim=1, keepdim=True))
            case.check_array(f"{key}_depth", depth)
            case.check_array(f"{key}_depth_minmax", stretched(depth))
    case.check(int(scheduler.timesteps[0]), "step", "timestep", atol=0.0)
    # The recording says it of the last of its runs.
    apart = "max |prev_sample - pred_original_sample|"
    if apart in case.facts["step"]:
        start = torch.zeros_like(x0) if noise is None else noise
        last = scheduler.step(outputs[0], scheduler.timesteps[0], start).prev_sample
        case.check(float((last - x0).abs().max()), "step", apart, rtol=1e-3)
    case.fact("step")
    said = texts[_text_of_calls(case)][:1]  # a call takes one picture
    _check_calls(case, "e2e-ft", model, lambda x: stretched(model(x, said)), facts="sizes")
    return _finish(case, "post")


@torch.inference_mode()
def check_lotus_infer(folder: Path, name: str) -> list[Row]:
    """Both tasks from the mean and from a sample of the picture's posterior, and whole calls."""
    case = Case.read(folder, name)
    model = Lotus(LotusConfig(), *_parts(case), None)
    noise = case.make("init_latent (lotus_g only)") if model.generative else None
    image, eps = _input(case, "rgb"), case.make("vae_eps")
    texts = _texts(case, len(image))
    for said, task in TASKS.items():
        case.check_array(f"task_emb_{said}", task_embedding(task, eps))
    for encoding, sample in (("mode", None), ("sample", eps)):
        picture = encode(model.vae, image, sample)
        case.check_array(f"rgb_latent_{encoding}", picture)
        for text, vectors in texts.items():
            for said, task in TASKS.items():
                key = f"{text}_{encoding}_{said}"
                if f"{key}_latent" not in case.arrays:
                    continue
                latents = model.predict(picture, vectors, noise, task)
                case.check_array(f"{key}_latent", latents)
                case.check_array(f"{key}_decoded", decode(model.vae, latents))
                found = model(image, vectors, noise, task, sample)[:, 0]
                case.check_array(f"{key}_prediction", found[0] if len(found) == 1 else found)

    words = texts[_text_of_calls(case)][:1]  # a call takes one picture

    def depth(x: Tensor) -> Tensor:
        found: Tensor = model(x, words, _noise(case, _picture_of_calls(case), x) if model.generative else None)
        return found

    _check_calls(case, "lotus-g" if model.generative else "lotus-d", model, depth, facts="sizes")
    return _finish(case, "keys", "meaning")


@torch.inference_mode()
def check_marigold_ensemble(folder: Path) -> list[Row]:
    """Merged maps and their uncertainty, with the original's optimiser."""
    case = Case.read(folder, "marigold_ensemble")
    maps = case.array("maps")
    for name, found in case.facts["optimiser"].items():
        shifts, reduction = name.startswith("affine"), name.split("_")[1]
        tolerance = UNSTABLE_LIMIT if name == UNSTABLE else {"rtol": 1e-4}
        start = ensemble._start(maps, shift_invariant=shifts)
        for suffix, said, settings in (
            ("", "marigold (max_iter=50, tol=1e-6)", {}),
            ("_maxiter2", "diffusers defaults (max_iter=2, tol=1e-3)", {"iterations": 2, "tolerance": 1e-3}),
        ):
            merge = partial(
                ensemble.ensemble_depth,
                maps,
                shift_invariant=shifts,
                reduction=cast(Any, reduction),
                compat="official",
                **cast(Any, settings),
            )
            with _minima() as minima:
                depth, uncertainty = merge()
            if said in found:
                case.check(start.tolist(), "optimiser", name, said, "x0")
                # Shifts of all maps at once change nothing in what is merged, and the cost hardly.
                near = UNSTABLE_LIMIT if shifts else tolerance
                case.check(minima[0].x, "optimiser", name, said, "x", **near)
                case.check(float(minima[0].fun), "optimiser", name, said, "fun", **tolerance)
                array = f"{name}_depth{suffix}"
                if name != UNSTABLE and array in case.arrays:
                    case.rows.append(compare(case.name, f"{array}, our optimum", depth, case.arrays[array], rtol=1e-4))
                # Rounding noise leads to other shifts on another processor. At those recorded there is none of it.
                with _minima(at=np.array(found[said]["x"])):
                    depth, uncertainty = merge()
            limit = {"rtol": 1e-4} if said in found else tolerance
            case.check_array(f"{name}_depth{suffix}", depth, **limit)
            case.check_array(f"{name}_uncertainty{suffix}", uncertainty, **limit)
    # The optimiser's own account of its way, which differs between its versions, and how stable the recording is.
    case.fact("optimiser")
    return _finish(case, "how", "scipy")


@contextmanager
def _minima(at: npt.NDArray[np.float64] | None = None) -> Iterator[list[Any]]:
    """What scipy's optimiser finds meanwhile; ``at`` is found in its place."""
    kept: list[Any] = []
    minimise: Any = scipy.optimize.minimize

    def kept_minimise(*given: Any, **named: Any) -> Any:
        kept.append(minimise(*given, **named) if at is None else SimpleNamespace(x=at))
        return kept[-1]

    with mock.patch.object(scipy.optimize, "minimize", kept_minimise):
        yield kept


CHECKS: dict[str, Callable[[Path], list[Row]]] = {
    **{name: partial(check_marigold_infer, name=name) for name in ("marigold_infer_v1_0", "marigold_infer_v1_1")},
    "marigold_call_resize": check_marigold_call_resize,
    "marigold_ensemble": check_marigold_ensemble,
    "e2e_ft_infer": check_e2e_ft_infer,
    **{name: partial(check_lotus_infer, name=name) for name in ("lotus_d_infer", "lotus_g_infer")},
}
