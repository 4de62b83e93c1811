"""Training objectives, depth normalisations, affine-invariant scoring and masks against recorded outputs.

One function per case takes the folder that the case lies in and gives its rows. Inputs, shapes, seeds, schedules
and options come from the recording; where its prose describes a toy input, the numbers are read from the prose.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.optimize
import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn

from deixis.backbones.latents import encode
from deixis.data.hypersim import planar
from deixis.protocols.affine import (
    affine_metrics,
    align_depth,
    align_disparity,
    depth_to_disparity,
    limited,
    mean_metrics,
    thinned,
)
from deixis.protocols.masks import (
    DIODE,
    ETH3D,
    EVALUATION_SETS,
    KITTI,
    SCANNET,
    EvaluationSet,
    prediction_name,
    read_split,
)
from deixis.training.normalise import (
    HYPERSIM_RANGE,
    LOTUS_NORMS,
    VKITTI_RANGE,
    Sample,
    between,
    e2e_ft_sample,
    far_where_invalid,
    lotus_sample,
    marigold_sample,
    marigold_target,
)
from deixis.training.objectives import (
    annealed_strength,
    e2e_ft_objective,
    iter_exponential,
    latent_mask,
    lotus_latents,
    lotus_objective,
    marigold_objective,
    multi_resolution_noise,
    scale_and_shift_invariant_l1,
)
from tests.parity.iris_rows import Case, Row, follow, groups, recipes_in

NUMBER = r"([-+\d.eE]*\d)"
METRICS = {
    "abs_relative_difference": "abs_rel",
    "squared_relative_difference": "sq_rel",
    "rmse_linear": "rmse",
    "rmse_log": "rmse_log",
    "log10": "log10",
    "delta1_acc": "d1",
    "delta2_acc": "d2",
    "delta3_acc": "d3",
    "i_rmse": "i_rmse",
    "silog_rmse": "silog_rmse",
}


# Training objectives.


def check_marigold_train_loss(folder: Path) -> list[Row]:
    """Losses and gradients at several timesteps, texts and schedules; noise; learning rates."""
    case = Case.read(folder, "marigold_train_loss")
    unet, vae = case.model("unet"), case.model("vae")
    mask = latent_mask(case.array("valid_mask") != 0)
    case.check_array("latent_mask", mask)
    with torch.no_grad():
        picture = encode(vae, case.make("rgb_norm"))
        depth = encode(vae, case.make("depth_raw_norm").expand(-1, 3, -1, -1))
    noise = case.make("noise")
    schedules = {name: _schedule(case, name) for name in case.facts["schedulers"] if name != "sd2 config"}
    for key, entry in case.facts["losses"].items():
        version = _longest(schedules, key.startswith)
        text = _longest(case.facts["inputs"]["token_ids"], lambda name, key=key: key.endswith(f"_{name}"))
        stem = key.removesuffix(f"_{text}")
        timesteps = torch.tensor(case.fact("losses", key, "timesteps"))
        found = marigold_objective(
            unet, picture, depth, case.text(text), noise, timesteps, schedules[version].alphas_cumprod, mask
        )
        case.check_array(f"{key}_model_pred", found.prediction)
        for name, value in {"target": found.target, "unet_input": found.inputs}.items():
            case.check_array(f"{stem}_{name}", value)
        length = schedules[version].config.num_train_timesteps
        values = {"loss": found.loss.item(), "noise_strength": annealed_strength(timesteps, length=length)}
        _check_entry(case, ("losses", key), values | _gradient_norms(unet, found.loss, entry))
    _check_noise(case)
    for key, multipliers in case.facts["lr_multiplier"].items():
        total, ratio, warmup = groups(rf"\w+\({NUMBER},\s*{NUMBER},\s*{NUMBER}\)", key)
        for step in multipliers:
            case.check(iter_exponential(int(step), int(total), float(ratio), int(warmup)), "lr_multiplier", key, step)
    return case.finish()


def check_lotus_d_train_loss(folder: Path) -> list[Row]:
    """Both tasks, with and without a mask and words."""
    return _check_lotus(Case.read(folder, "lotus_d_train_loss"))


def check_lotus_g_train_loss(folder: Path) -> list[Row]:
    """The same with noise beside the picture."""
    return _check_lotus(Case.read(folder, "lotus_g_train_loss"))


def _check_lotus(case: Case) -> list[Row]:
    unet, vae = case.model("unet"), case.model("vae")
    inputs = case.facts["inputs"]
    image, annotation = case.make("pixel_values"), case.make("depth_values")
    with torch.no_grad():
        picture, target = lotus_latents(vae, image, annotation, case.make("vae eps", 0), case.make("vae eps", 1))
    case.check_array("rgb_latents", picture)
    case.check_array("target", target)
    noise = alphas = None
    if unet.config.in_channels > vae.config.latent_channels:
        noise, alphas = case.make("noise (lotus_g)"), _betas(inputs["noise_scheduler (lotus_g)"]).alphas_cumprod
    known = (case.array("valid_mask") != 0) | (case.array("sky_mask") != 0)
    for key, entry in case.facts["losses"].items():
        text = _longest(inputs["token_ids"], lambda name, key=key: key.startswith(f"{name}_"))
        data = key.removeprefix(f"{text}_")
        mask = latent_mask(torch.ones_like(known) if data.endswith("no_mask") else known)
        case.check_array(f"{data}_latent_mask_anno", mask)
        found = lotus_objective(
            unet, picture, target, case.text(text), noise, alphas, mask, timestep=int(inputs["timestep"])
        )
        case.check_array(f"{key}_model_pred", found.prediction)
        half = found.prediction[len(image) :]
        values = {
            "loss": found.loss.item(),
            "anno_loss": found.parts["annotation"].item(),
            "rgb_loss": found.parts["reconstruction"].item(),
            "n_latent_elements_kept_anno": int(mask.sum()) * half.shape[1],
            "n_latent_elements_kept_rgb": half.numel(),
        }
        _check_entry(case, ("losses", key), values | _gradient_norms(unet, found.loss, entry))
    if noise is not None:
        case.check_array("noisy_latents", found.inputs[:, picture.shape[1] :])
    return case.finish()


def check_e2e_ft_train_loss(folder: Path) -> list[Row]:
    """From zeros and from noise, with padded, unpadded and no words; predictions that are flat or turned over."""
    case = Case.read(folder, "e2e_ft_train_loss")
    unet, vae = case.model("unet"), case.model("vae").requires_grad_(False)
    inputs = case.facts["inputs"]
    with torch.no_grad():
        picture = encode(vae, case.make("rgb"))
    noise = case.make("noise")
    alphas = DDPMScheduler.from_config(inputs["scheduler"]).alphas_cumprod
    metric, valid = case.array("metric"), case.array("val_mask") != 0
    for key, entry in case.facts["losses"].items():
        text = _longest(inputs["token_ids"], lambda name, key=key: key.startswith(f"{name}_"))
        start = None if key.endswith("_zeros") else noise
        found = e2e_ft_objective(
            unet,
            vae,
            picture,
            case.text(text),
            metric,
            valid,
            alphas,
            start,
            compat="official",
            timestep=int(inputs["timestep"]),
        )
        case.check_array(f"{key}_estimate", found.estimate)
        case.check_array(f"{key}_model_pred", found.prediction)
        values = {"loss": found.loss.item(), "scale": found.scale, "shift": found.shift}
        _check_entry(case, ("losses", key), values | _gradient_norms(unet, found.loss, entry))
    for key in case.facts["edge_cases"]:
        constant = re.match(rf"constant prediction {NUMBER}, target metric\[(.*?)\]", key)
        if constant:
            target = metric[_index(constant[2])]
            prediction, fit = torch.full_like(target, float(constant[1])), "scale_shift"
        elif re.match(r"anti-correlated prediction \(-target/", key):
            prediction, fit = -target / float(re.findall(NUMBER, key)[-1]), "its scale_shift"
        else:
            continue
        loss, scale, shift = scale_and_shift_invariant_l1(
            prediction, target, torch.ones_like(target, dtype=torch.bool), "official"
        )
        # What rounding leaves of a zero is compared with the size of the targets.
        size = {"rtol": case.tolerance["rtol"], "atol": case.tolerance["rtol"] * target.mean().item()}
        case.check(loss.item(), "edge_cases", key, **size)
        case.check((scale, shift), "edge_cases", fit, **size)
    return case.finish()


def _schedule(case: Case, name: str) -> DDPMScheduler:
    """A schedule of the recording: the base settings with those that its description changes."""
    config = dict(case.facts["schedulers"]["sd2 config"])
    for key, value in re.findall(r"(\w+)=(\w+)", case.facts["schedulers"][name]):
        config[key] = {"True": True, "False": False, "None": None}.get(value, value)
    return DDPMScheduler.from_config(config)


def _betas(text: str) -> DDPMScheduler:
    """A schedule described as ``DDPM scaled_linear 0.00085..0.012, 1000 steps, no zero-SNR rescale``."""
    kind, first, last, steps = groups(rf"DDPM (\w+) {NUMBER}\.\.{NUMBER}, (\d+) steps", text)
    return DDPMScheduler(
        num_train_timesteps=int(steps),
        beta_schedule=kind,
        beta_start=float(first),
        beta_end=float(last),
        rescale_betas_zero_snr="zero-SNR" in text and "no zero-SNR" not in text,
    )


def _gradient_norms(unet: nn.Module, loss: Tensor, entry: dict[str, Any]) -> dict[str, float]:
    """Norms under the names that the recording asks for; gradients are cleared."""
    unet.zero_grad(set_to_none=True)
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in unet.named_parameters() if parameter.grad is not None}
    norms = {name: gradient.double().norm().item() for name, gradient in gradients.items()}
    unet.zero_grad(set_to_none=True)
    norms["all"] = math.sqrt(math.fsum(norm**2 for norm in norms.values()))
    asked = (name.removeprefix("grad_norm_") for name in entry if name.startswith("grad_norm_"))
    return {f"grad_norm_{name}": norms[name] for name in asked if name in norms}


def _check_entry(case: Case, path: tuple[str, ...], values: dict[str, Any]) -> None:
    """Compare an entry's values by name; what the entry holds beside them fails in the end."""
    entry: Any = case.facts
    for key in path:
        entry = entry[key]
    for name, value in values.items():
        if name in entry:
            case.check(value, *path, name)


class _Recorded:
    """The recording's random numbers, by call, with a log of the calls.

    Args:
        case: whose they are.
        normal: kind and name of the recipe of ``randn`` calls.
        uniform: the same of ``rand`` calls.
    """

    def __init__(self, case: Case, normal: tuple[str, str], uniform: tuple[str, str]) -> None:
        self.seed = case.seed
        self.recipes = {"randn": normal, "rand": uniform}
        self.calls: list[list[Any]] = []

    def _draw(self, call: str, shape: tuple[int, ...]) -> Tensor:
        number = sum(one[0] == call for one in self.calls)
        kind, name = self.recipes[call]
        value = follow(kind, name.replace("{n}", str(number)), shape, self.seed)
        self.calls.append([call, number, list(shape) if call == "randn" else value.item()])
        return value

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        return self._draw("randn", shape)

    def uniform(self) -> Tensor:
        return self._draw("rand", (1,))


def _check_noise(case: Case) -> None:
    """Multi-resolution noise: the order of the calls, the values, their spread and mean."""
    path = "multi_resolution_noise"
    shape = tuple(case.fact(path, "shape"))
    remark = case.facts[path]["random source"]
    normal, uniform = re.findall(r"(\w+)\('([^']*\{n\}[^']*)'", remark)
    kept = _index(groups(r"keep \[(.*?)\]", remark)[0])
    for key in case.facts[path]["calls"]:
        named = re.fullmatch(rf"(\w+?)_(?:scalar{NUMBER}|annealed)", key)
        if named is None:
            continue

        def make(strength: Any, strategy: Any = named[1]) -> tuple[Tensor, list[list[Any]]]:
            source = _Recorded(case, normal, uniform)
            return multi_resolution_noise(shape, strength, strategy, source, compat="official"), source.calls

        theirs = torch.from_numpy(case.arrays[f"mrnoise_{key}"])
        strength = float(named[2]) if named[2] else _fitted(lambda x, make=make: make(x)[0][kept], theirs)
        noise, calls = make(strength)
        case.check_array(f"mrnoise_{key}", noise[kept])
        case.check(calls, path, "calls", key)
        case.check((noise.std().item(), noise.mean().item()), path, "calls", f"{key}_std_and_mean")


def _fitted(make: Callable[[Tensor], Tensor], theirs: Tensor) -> Tensor:
    """Strengths [B] of annealed noise.

    The recording does not say at which timesteps its annealed noise was drawn: it is compared at the whole
    timesteps that fit best, one number per image for hundreds.
    """

    def off(strength: Any) -> Any:
        return (make(torch.tensor(strength, dtype=torch.float32).clamp(0, 1)) - theirs).double().flatten().numpy()

    full = annealed_strength(torch.tensor([1000])).item()
    best: Any = None
    for share in (0.5, 0.2, 0.8):
        start = np.full(len(theirs), share * full)
        fit = scipy.optimize.least_squares(off, start, bounds=(0, full), diff_step=1e-3)
        best = fit if best is None or fit.cost < best.cost else best
        if best.cost < 1e-6 * theirs.numel():
            break
    return annealed_strength(torch.tensor(best.x / full * 1000).round().long())


# Depth normalisations.


def check_depth_normalisation_marigold(folder: Path) -> list[Row]:
    """Plain maps, Hypersim, and Virtual KITTI with and without an evaluation crop."""
    case = Case.read(folder, "depth_normalisation_marigold")
    depth, mask = case.array("plain_depth"), case.array("plain_mask") != 0
    case.check_array("plain_norm", marigold_target(depth, mask).values)
    case.check_array("plain_norm_nomask", marigold_target(depth).values)
    case.check_array("plain_norm_noclip", marigold_target(depth, mask, clip=False).values)
    step, size = _kept(case, "hypersim")
    rgb, depth = _toy(case, "hypersim")
    samples = {"hypersim": marigold_sample(rgb, depth, between(depth, HYPERSIM_RANGE), size)}
    rgb, depth = _toy(case, "vkitti")
    for prefix in (name.removesuffix("_rgb_norm") for name in case.arrays if re.match(r"vkitti_\w+_rgb_norm$", name)):
        crop: Any = {"None": "none"}.get(prefix.split("_")[1], f"kitti_{prefix.split('_')[1]}")
        vkitti = EvaluationSet("vkitti", *VKITTI_RANGE, crop=crop, benchmark_crop=True)
        framed = vkitti.frame(depth)
        samples[prefix] = marigold_sample(_framed(rgb), framed, vkitti.valid(framed[0])[None])
    for prefix, sample in samples.items():
        step, _ = _kept(case, prefix.split("_")[0])
        _check_maps(
            case,
            step,
            {
                f"{prefix}_rgb_norm": sample.image,
                f"{prefix}_depth_raw_linear": sample.target.depth,
                f"{prefix}_depth_raw_norm": sample.target.values,
                f"{prefix}_depth_filled_norm": far_where_invalid(sample.target),
                f"{prefix}_valid_mask_raw": sample.target.valid,
            },
        )
    return case.finish()


def check_depth_normalisation_lotus(folder: Path) -> list[Row]:
    """Five norms on Hypersim without a mask and on Virtual KITTI with one; distance to planar depth."""
    case = Case.read(folder, "depth_normalisation_lotus")
    rgb, depth = _toy(case, "hypersim")
    for value, limit, new in re.findall(
        rf"(?:above {NUMBER}|{NUMBER}) replaced by {NUMBER}", case.facts["notes"]["hypersim input"]
    ):
        depth = torch.where(depth > float(value) if value else depth == float(limit), float(new), depth)
    step, size = _kept(case, "hypersim")
    found = {norm: lotus_sample(rgb, depth, None, size, norm, HYPERSIM_RANGE[1], "official") for norm in LOTUS_NORMS}
    maps = {f"hypersim_{norm}": sample.target.values for norm, sample in found.items()}
    _check_maps(case, step, maps | {"hypersim_rgb": found["instnorm"].image})
    rgb, depth = _toy(case, "vkitti")
    rgb, depth = _framed(rgb), KITTI.frame(depth)
    valid, step = between(depth, VKITTI_RANGE), _kept(case, "vkitti")[0]
    found = {norm: lotus_sample(rgb, depth, valid, None, norm, VKITTI_RANGE[1], "official") for norm in LOTUS_NORMS}
    maps = {f"vkitti_{norm}": sample.target.values for norm, sample in found.items()}
    maps |= {"vkitti_rgb": found["instnorm"].image, "vkitti_valid_mask_values": valid}
    _check_maps(case, step, maps | {"vkitti_sky_mask_values": depth >= VKITTI_RANGE[1]})
    height, width = recipes_in(_described(case, "hypersim depth")[1])[0][2]
    for key, entries in case.facts["stats"].items():
        constant = re.match(rf"distance_to_plane_depth of constant distance {NUMBER}", key)
        for pixel in entries if constant else ():
            row, column = map(int, pixel.split(","))
            plane = planar(np.full((height, width), float(constant[1]), np.float32))
            case.check(plane[row, column].item(), "stats", key, pixel)
    return case.finish()


def check_depth_normalisation_e2e_ft(folder: Path) -> list[Row]:
    """Metres and normalised values of Hypersim and Virtual KITTI."""
    case = Case.read(folder, "depth_normalisation_e2e_ft")
    rgb, depth = _toy(case, "hypersim")
    step, size = _kept(case, "hypersim")
    samples: dict[str, Sample] = {"hypersim": e2e_ft_sample(rgb, depth, between(depth, HYPERSIM_RANGE), size)}
    rgb, depth = _toy(case, "vkitti")
    depth = KITTI.frame(depth)
    samples["vkitti"] = e2e_ft_sample(_framed(rgb), depth, between(depth, VKITTI_RANGE))
    for prefix, sample in samples.items():
        step, _ = _kept(case, prefix)
        maps = {
            f"{prefix}_rgb": sample.image,
            f"{prefix}_depth": sample.target.values.expand(3, -1, -1),
            f"{prefix}_metric": sample.target.depth,
            f"{prefix}_val_mask": sample.target.valid,
        }
        # The pictures of this set were not recorded.
        _check_maps(case, step, {name: x for name, x in maps.items() if name in case.facts["arrays"]})
    return case.finish()


def _described(case: Case, start: str) -> tuple[str, str]:
    """The input whose name begins so: name and description."""
    return next((name, text) for name, text in case.facts["inputs"].items() if name.startswith(start))


def _toy(case: Case, dataset: str) -> tuple[Any, Tensor]:
    """Picture uint8 [H, W, 3] and depth float32 [1, H, W] in metres, by the recording's description."""
    name, text = _described(case, f"{dataset} depth")
    (base, holes), seed = recipes_in(text), case.seed
    call = r"\w+\('[^']+',\s*\([^)]*\)\)"
    factor, offset = groups(rf"floor\({call}\s*\*\s*{NUMBER}\s*\+\s*{NUMBER}", text)
    depth = follow(*base, seed) * float(factor) + float(offset)
    slope = re.search(rf"linspace\({NUMBER},{NUMBER},(\d+)\) down the rows", text)
    if slope:
        rows = np.linspace(float(slope[1]), float(slope[2]), int(slope[3]), dtype=np.float32)
        depth = depth + torch.from_numpy(rows)[:, None]
    depth = depth.floor()
    value, share = groups(rf"{NUMBER} where {call}\s*<\s*{NUMBER}", text)
    depth[follow(*holes, seed) < float(share)] = float(value)
    region, value = groups(rf"then (rows.*?) = {NUMBER}", text)
    depth[_span(region, "rows"), _span(region, "cols")] = float(value)
    unit = {"mm": 1000, "cm": 100}[groups(r"uint16 (mm|cm)", name)[0]]
    return case.make("rgb", dataset).numpy(), depth[None] / unit


def _span(text: str, axis: str) -> slice:
    """``rows<40`` or ``cols 300..699``."""
    found = re.search(rf"{axis}\s*(?:<\s*(\d+)|(\d+)\.\.(\d+))", text)
    assert found is not None
    return slice(int(found[1])) if found[1] else slice(int(found[2]), int(found[3]) + 1)


def _kept(case: Case, dataset: str) -> tuple[tuple[Any, ...], tuple[int, int]]:
    """Which pixels of a set's maps are stored, and the maps' size."""
    text = case.facts["notes"]["subsampling"]
    found = re.search(rf"{dataset}[^\[]*\[([^\]]*)\] of (\d+)x(\d+)", text)
    assert found is not None
    index = _index(found[1])
    return (index if Ellipsis in index else (Ellipsis, *index)), (int(found[2]), int(found[3]))


def _framed(rgb: Any) -> Any:
    """A picture [H, W, 3] cut to KITTI's frame."""
    return KITTI.frame(torch.from_numpy(rgb).permute(2, 0, 1)).permute(1, 2, 0).numpy()


def _check_maps(case: Case, kept: tuple[Any, ...], maps: dict[str, Tensor]) -> None:
    """Compare the stored pixels of each map, and the whole map's statistics where they are recorded."""
    for name, full in maps.items():
        case.check_array(name, full[kept])
        for key in (name, f"{name}_depth_values"):
            if key in case.facts["stats"]:
                whole, limit = full.double(), max(case.tolerance.values())
                case.check(list(full.shape), "stats", key, "shape", atol=0.0)
                for what, value in {
                    "mean": whole.mean(),
                    "min": whole.min(),
                    "max": whole.max(),
                    "std": whole.std(correction=0),
                }.items():
                    case.check(value.item(), "stats", key, what, atol=limit, rtol=limit)


# Scoring.


def check_evaluation_metrics(folder: Path) -> list[Row]:
    """Alignment, limits and metrics on every recorded set; several images at once; the thinning of columns."""
    case = Case.read(folder, "evaluation_metrics")
    truth, depth, disparity = (case.array(name) for name in ("gt", "pred_depth", "pred_disparity"))
    factor, offset = groups(rf"pred_depth\s*\*\s*{NUMBER}\s*\+\s*{NUMBER}", case.facts["inputs"])
    aligned: dict[str, Tensor] = {}
    for key in case.facts["metrics"]:
        named = re.fullmatch(r"([^_]+)_(\w+)_(None|\d+)", key)
        if named is None:
            continue
        dataset = next(one for name, one in EVALUATION_SETS.items() if name.startswith(named[1]))
        valid = between(truth, (dataset.min_depth, dataset.max_depth))
        max_res = None if named[3] == "None" else int(named[3])
        fit = None
        if named[2] == "least_square":
            metric, fit = align_depth(depth, truth, valid, max_res, compat="official")
        elif named[2] == "least_square_disparity":
            metric, fit = align_disparity(disparity, truth, valid, max_res, compat="official")
        elif named[2] == "None":
            metric = depth * float(factor) + float(offset)
        else:
            continue
        metric = aligned[key] = limited(metric, dataset.min_depth, dataset.max_depth)
        case.check_array(f"{key}_aligned", metric)
        found = affine_metrics(metric[valid], truth[valid])
        values: dict[str, Any] = {official: found[ours] for official, ours in METRICS.items()}
        values |= {"valid_pixels": int(valid.sum()), "aligned_dtype": str(metric.dtype).removeprefix("torch.")}
        values |= {} if fit is None else fit._asdict()
        _check_entry(case, ("metrics", key), values)
    for key in case.facts:
        batch = re.match(
            rf"batched .*\((\w+)_aligned and {NUMBER}x of it; masks gt in "
            rf"\({NUMBER},\s*{NUMBER}\) and \({NUMBER},\s*{NUMBER}\)\)",
            key,
        )
        if batch:
            low, high, low2, high2 = (float(limit) for limit in batch.groups()[2:])
            found = mean_metrics(
                torch.stack([aligned[batch[1]], aligned[batch[1]] * float(batch[2])]),
                torch.stack([truth, truth]),
                torch.stack([between(truth, (low, high)), between(truth, (low2, high2))]),
                compat="official",
            )
            _check_entry(case, (key,), {official: found[ours] for official, ours in METRICS.items()})
    for key in case.facts["alignment_max_res"]:
        scaled = re.match(rf"Upsample\(scale_factor={NUMBER}\)\(tensor\[1,(\d+),(\d+)\]\)\.shape", key)
        if scaled:
            flat = torch.ones(int(scaled[2]), int(scaled[3]))
            max_res = round(float(scaled[1]) * max(flat.shape))
            case.check([1, *thinned(flat, flat, flat > 0, max_res, "official")[0].shape], "alignment_max_res", key)
    for key in case.facts["notes"]:
        inverted = re.match(r"depth2disparity\(\[(.*?)\]\)", key)
        if inverted:
            values_in = torch.tensor([[float(value) for value in inverted[1].split(",")]])
            case.check(depth_to_disparity(values_in), "notes", key)
    return case.finish()


def check_dataset_masks(folder: Path) -> list[Row]:
    """How many pixels of toy frames count, where they lie, and where a crop comes from; file names."""
    case = Case.read(folder, "dataset_masks")
    toy = case.facts.get("toy", {})
    for key in case.facts["masks"]:
        mask, extra = None, {}
        kitti = re.fullmatch(r"kitti (\d+)x(\d+) bm_crop=(\w+) mask=(\w+)", key)
        if kitti:
            crop: Any = "none" if kitti[4] == "None" else f"kitti_{kitti[4]}"
            dataset = EvaluationSet(
                "kitti", KITTI.min_depth, KITTI.max_depth, crop=crop, benchmark_crop=kitti[3] == "True"
            )
            depth = _kitti_toy(toy["kitti"], int(kitti[1]), int(kitti[2]))
            extra = _kitti_extra(dataset.frame(depth), toy["kitti"])
        elif key.startswith("nyu"):
            nyu = EVALUATION_SETS["nyuv2"]
            crop = nyu.crop if key.endswith("=True") else "none"
            dataset = EvaluationSet("nyuv2", nyu.min_depth, nyu.max_depth, crop=crop)
            depth = _rows_toy(toy["nyu"])
        elif key.startswith("scannet"):
            dataset, depth = SCANNET, _rows_toy(toy["scannet"])
        elif key.startswith("eth3d"):
            dataset, depth = ETH3D, _steps_toy(key, case.facts["masks"][key]["shape"])
        elif key.startswith("diode"):
            described, _, file = key.partition("mask file")
            dataset, depth = DIODE, _steps_toy(described, case.facts["masks"][key]["shape"])
            mask = torch.ones_like(depth)
            mask[_span(file, "rows") if "rows" in file else slice(None), _span(file, "cols")] = 0
        else:
            continue
        valid = dataset.valid(depth, mask)
        values: dict[str, Any] = {"shape": list(valid.shape), "count": int(valid.sum())}
        for name, axis in {"rows": 1, "cols": 0}.items():
            found = valid.any(dim=axis).nonzero().flatten().tolist()
            values[f"{name} [first,last+1]"] = [found[0], found[-1] + 1]
        framed = dataset.frame(depth)
        for name in case.facts["masks"][key]:
            row = re.fullmatch(r"depth at row (\d+)", name)
            rows = re.fullmatch(r"valid rows ([\d,]+)", name)
            if row:
                values[name] = framed[int(row[1]), framed.shape[1] // 2].item()
            if rows:
                values[name] = [bool(valid[int(one)].any()) for one in rows[1].split(",")]
        _check_entry(case, ("masks", key), values | extra)
    for key in case.facts["prediction_file_names"]:
        case.check(prediction_name(key.split()[0]), "prediction_file_names", key)
    return case.finish()


def _rows_toy(text: str) -> Tensor:
    """``480x640 depth 2500 mm; rows 100-109 = 0, 200-209 = 10000`` in metres."""
    height, width, base = map(int, groups(r"(\d+)x(\d+) depth (\d+) mm", text))
    depth = torch.full((height, width), float(base))
    for below, first, last, value in re.findall(r"(?:<(\d+)|(\d+)-(\d+)) = (\d+)", text):
        depth[slice(int(below)) if below else slice(int(first), int(last) + 1)] = float(value)
    return depth / 1000


def _steps_toy(text: str, shape: Iterable[int]) -> Tensor:
    """``rows<1000 inf, <1100 zero, <1200 nan, rest 7.5``: each value from where the last ended [m]."""
    rest = re.search(rf"rest {NUMBER}", text)
    depth = torch.full(tuple(shape), float(rest[1]) if rest else 1.0)
    start = 0
    for end, value in re.findall(rf"<(\d+) (inf|zero|nan|{NUMBER[1:-1]})", text):
        depth[start : int(end)] = 0.0 if value == "zero" else float(value)
        start = int(end)
    return depth


def _kitti_toy(text: str, height: int, width: int) -> Tensor:
    """``constant 20 m (uint16 = m*256); row 0 = 7/256 m; row H//2 = column index/256 m``."""
    base, scale = groups(rf"constant {NUMBER} m \(uint16 = m\*(\d+)\)", text)
    depth = torch.full((height, width), float(base))
    row, value = groups(rf"row (\d+) = {NUMBER}/{scale} m", text)
    depth[int(row)] = float(value) / float(scale)
    depth[height // 2] = torch.arange(width) / float(scale)
    return depth


def _kitti_extra(framed: Tensor, text: str) -> dict[str, Any]:
    """Where the row that counts columns has gone, and the first column that is left; lines of a split list."""
    scale = float(groups(r"uint16 = m\*(\d+)", text)[0])
    counted = (framed.diff(dim=1) * scale == 1).all(dim=1).nonzero().flatten().tolist()
    lines = ["date/drive/0.png drive/0.png 721.5", "date/drive/1.png None 721.5"]
    return {
        "n_samples (line with None dropped)": len(read_split(lines)),
        "row of original row H//2": counted[0],
        "original column of crop column 0": round(framed[counted[0], 0].item() * scale),
    }


def _index(text: str) -> tuple[Any, ...]:
    """``:, :2, ::4`` or ``..., ::10`` as an index."""
    return tuple(
        Ellipsis if part.strip() == "..." else slice(*(int(n) if n.strip() else None for n in part.split(":")))
        for part in text.split(",")
    )


def _longest(names: Iterable[str], fits: Callable[[str], bool]) -> str:
    """The longest name that fits: one may be the beginning of another."""
    return max(filter(fits, names), key=len)


CHECKS: dict[str, Callable[[Path], list[Row]]] = {
    "marigold_train_loss": check_marigold_train_loss,
    "lotus_d_train_loss": check_lotus_d_train_loss,
    "lotus_g_train_loss": check_lotus_g_train_loss,
    "e2e_ft_train_loss": check_e2e_ft_train_loss,
    "depth_normalisation_marigold": check_depth_normalisation_marigold,
    "depth_normalisation_lotus": check_depth_normalisation_lotus,
    "depth_normalisation_e2e_ft": check_depth_normalisation_e2e_ft,
    "evaluation_metrics": check_evaluation_metrics,
    "dataset_masks": check_dataset_masks,
}
