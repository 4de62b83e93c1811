"""What comes out: :class:`Depth`, :class:`Mask` and :class:`Answer`, with the words that led to them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from deixis.errors import KindError, UsageError

if TYPE_CHECKING:
    from PIL import Image

    from deixis.camera import Camera

FloatMap = npt.NDArray[np.float32]
BoolMap = npt.NDArray[np.bool_]
IntMap = npt.NDArray[np.int32]
RGB = npt.NDArray[np.uint8]

DepthKind = Literal["metric", "affine", "disparity"]
# Test-time augmentation: one pass; the mean with the mirrored picture; the papers' windows.
TTA = Literal["none", "flip", "windows"]
# Standard deviations from the middle of a normal distribution to its 90th percentile.
P90 = 1.2816
DEPTH_KINDS: tuple[DepthKind, ...] = ("metric", "affine", "disparity")


@dataclass(frozen=True)
class Text:
    """The words behind a prediction and where they came from.

    Attributes:
        text: the words; empty when an embedding without words was used.
        provenance: ``user``, ``caption:<model>``, ``class:<name>``, ``aggregate:<dataset>``, ``oracle``
            or ``empty``.
    """

    text: str
    provenance: str


@dataclass(frozen=True)
class Calibration:
    """What brought a map without metres to metres.

    ``scale * map + shift`` is the depth [m] of an ``affine`` map, and its inverse [1/m] of a ``disparity`` map.

    Attributes:
        kind: of the map before.
        scale: [m] or [1/m].
        shift: the same.
        by: what it rests on, in words, such as ``the door (2.00 m)`` or ``evp-depth-mini``.
        covariance: variance of the scale, covariance of both, variance of the shift.
        residual: how far the map differs from what it was fitted to, as a share of the distance (one standard
            deviation); part of every distance's uncertainty.
        assumed_from: the one known distance [m] where there was no second, so that the shift was assumed; None
            where both were fitted.
        notes: what the reader should know.
    """

    kind: DepthKind
    scale: float
    shift: float
    by: tuple[str, ...]
    covariance: tuple[float, float, float]
    residual: float = 0.0
    assumed_from: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def formula(self) -> str:
        """How a value of the map becomes metres, in words."""
        sign = "-" if self.shift < 0 else "+"
        depth = "depth [m]" if self.kind == "affine" else "1 / depth [1/m]"
        return f"{depth} = {self.scale:.3g} x map {sign} {abs(self.shift):.3g}"

    @property
    def unit(self) -> str:
        """Of scale and shift: ``m``, or ``1/m``."""
        return "m" if self.kind == "affine" else "1/m"

    def widened(self, distance_m: dict[str, float]) -> dict[str, float]:
        """``median``, ``p10`` and ``p90`` [m] with the calibration's uncertainty in the interval.

        Where the shift was assumed the interval reaches to the known distance: whatever the shift, neither it nor the
        scale being negative, the truth lies between that and the median.
        """
        median, low, high = distance_m["median"], distance_m["p10"], distance_m["p90"]
        y = median if self.kind == "affine" else 1 / median
        x = (y - self.shift) / self.scale
        scale, both, shift = self.covariance
        share = (max(x * x * scale + 2 * x * both + shift, 0.0) / (y * y) + self.residual**2) ** 0.5
        spread = P90 * share * median
        low = median - ((median - low) ** 2 + spread**2) ** 0.5
        high = median + ((high - median) ** 2 + spread**2) ** 0.5
        if self.assumed_from is not None:
            low, high = min(low, self.assumed_from), max(high, self.assumed_from)
        return {"median": median, "p10": max(low, 0.0), "p90": high}

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        scale, _, shift = self.covariance
        return {
            "kind": self.kind,
            "scale": _rounded(self.scale, 6),
            "shift": _rounded(self.shift, 6),
            "unit": self.unit,
            "scale_deviation": _rounded(scale**0.5, 6),
            "shift_deviation": None if self.assumed_from is not None else _rounded(shift**0.5, 6),
            "residual": _rounded(self.residual, 4),
            "by": list(self.by),
        }


@dataclass(frozen=True, eq=False)
class Depth:
    """A depth map that knows what its numbers mean.

    Attributes:
        values: float32 [H, W] of the upright input. ``metric``: planar depth along the optical axis [m];
            ``affine``: 0 near to 1 far, up to scale and shift; ``disparity``: 1 near to 0 far.
        kind: what ``values`` are.
        text: the description the map was conditioned on.
        model: name or folder of the system.
        camera: intrinsics of the upright input, when known.
        seconds: time spent on the forward pass [s].
        uncertainty: float32 [H, W], how far the maps of an ensemble lie apart, in units of their range; None for one.
        calibration: where the metres come from, if the system gives none; see :func:`deixis.calibration.calibrate`.
    """

    values: FloatMap
    kind: DepthKind
    text: Text
    model: str
    camera: Camera | None = None
    seconds: float | None = None
    uncertainty: FloatMap | None = None
    calibration: Calibration | None = None

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.dtype != np.float32:
            raise UsageError(
                "Depth.values",
                f"has shape {self.values.shape} and type {self.values.dtype}",
                "pass a float32 array of shape [H, W]",
            )
        if self.kind not in DEPTH_KINDS:
            raise UsageError("Depth.kind", f"is '{self.kind}'", f"use one of {', '.join(DEPTH_KINDS)}")

    @property
    def unit(self) -> str | None:
        """``"m"`` for a metric map, None for the relative kinds."""
        return "m" if self.kind == "metric" else None

    @property
    def valid(self) -> BoolMap:
        """Where there is a depth, bool [H, W]: finite and, in metres, above 0."""
        finite = np.isfinite(self.values)
        return finite & (self.values > 0) if self.kind == "metric" else finite

    def to_dict(self) -> dict[str, Any]:
        """What the map is, without its pixels, as JSON-ready values; ``min`` and ``max`` over its valid pixels."""
        valid = self.valid
        found = bool(valid.any())
        height, width = self.values.shape
        return {
            "model": self.model,
            "kind": self.kind,
            "unit": self.unit,
            "text": asdict(self.text),
            "min": float(np.min(self.values, where=valid, initial=np.inf)) if found else None,
            "max": float(np.max(self.values, where=valid, initial=-np.inf)) if found else None,
            "seconds": _rounded(self.seconds, 4),
            "width": width,
            "height": height,
            "camera": asdict(self.camera) if self.camera else None,
            **({"calibration": self.calibration.to_dict()} if self.calibration else {}),
        }

    def metres(self) -> FloatMap:
        """The map in metres, float32 [H, W].

        Raises:
            KindError: if the map is not metric.
        """
        if self.kind != "metric":
            raise KindError(
                self.model,
                f"gives {self.kind} depth, which has no metres",
                "use a metric model such as evp-depth-mini, or calibrate the map with a known distance"
                " (deixis.calibrate)",
            )
        return self.values

    def colorize(self, *, low: float | None = None, high: float | None = None) -> Image.Image:
        """The map as a picture [H, W]: near is warm, far is cold, whatever the kind.

        Args:
            low: near end of the colour scale (far end for disparity) in the map's own unit.
            high: the other end; both are robust ends of the map by default.
        """
        from deixis import viz

        return viz.colorize_depth(self, low=low, high=high)

    def save(self, out: str | Path, name: str) -> list[Path]:
        """Write ``name.depth.npy``, ``name.depth.png``, ``name.preview.png`` and ``name.json`` into ``out``.

        Returns the paths written. Each file appears whole or not at all. See :func:`deixis.io.save_depth`.
        """
        from deixis import io

        return io.save_depth(self, Path(out), name)

    def show(self) -> None:
        """Open the coloured map in the system's picture viewer."""
        self.colorize().show()


@dataclass(frozen=True, eq=False)
class Mask:
    """The pixels an expression refers to.

    Attributes:
        mask: bool [H, W] of the upright input; empty when nothing was found.
        probability: float32 [H, W] in [0, 1], the per-pixel score behind ``mask``, whatever was found.
        score: confidence in [0, 1] that it is there: the mean of the highest 1 % of probabilities.
        found: whether the expression is taken to have a referent in the image.
        text: the expression and its provenance.
        model: name or folder of the system.
        seconds: time spent on the forward pass [s].
    """

    mask: BoolMap
    probability: FloatMap
    score: float
    found: bool
    text: Text
    model: str
    seconds: float | None = None

    @property
    def expression(self) -> str:
        """The words that were looked for."""
        return self.text.text

    @property
    def area(self) -> int:
        """Number of pixels in the mask."""
        return int(self.mask.sum())

    @property
    def box(self) -> tuple[int, int, int, int] | None:
        """Half-open bounding box (left, top, right, bottom) [px], None for an empty mask."""
        rows, columns = np.flatnonzero(self.mask.any(axis=1)), np.flatnonzero(self.mask.any(axis=0))
        if not len(rows):
            return None
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1

    def to_dict(self) -> dict[str, Any]:
        """What was found, without the pixels, as JSON-ready values; ``box`` as in :attr:`box`, ``area`` [px]."""
        height, width = self.mask.shape
        return {
            "expression": self.expression,
            "found": self.found,
            "box": list(self.box) if self.box else None,
            "area": self.area,
            "score": _rounded(self.score, 4),
            "model": self.model,
            "text": asdict(self.text),
            "seconds": _rounded(self.seconds, 4),
            "width": width,
            "height": height,
        }


@dataclass(frozen=True, eq=False)
class Referent:
    """One thing a question points at, located and measured.

    Attributes:
        expression: the words, for example ``the red chair``.
        found: whether it is in the picture.
        distance_m: ``median``, ``p10`` and ``p90`` of the planar depth over the mask [m]; None if not found. The
            interval holds the uncertainty of the map's calibration, if it has one.
        position_m: camera coordinates (x right, y down, z forward) of the referent [m]; None without a
            focal length or if not found.
        mask: the pixels.
    """

    expression: str
    found: bool
    distance_m: dict[str, float] | None
    position_m: tuple[float, float, float] | None
    mask: Mask


@dataclass(frozen=True, eq=False)
class Answer:
    """The answer to a question about distance.

    Attributes:
        question: the question as asked.
        referents: one entry, or two for a comparison, in the order they were named.
        depth: the depth map of the image.
        nearer: expression of the nearer of two found referents, None otherwise.
        gap_m: difference of the two median distances [m], None unless two were found.
        notes: what the reader should know (for example why there is no position).
    """

    question: str
    referents: tuple[Referent, ...]
    depth: Depth
    nearer: str | None = None
    gap_m: float | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def found(self) -> bool:
        """Whether every referent was found."""
        return all(referent.found for referent in self.referents)

    @property
    def calibration(self) -> Calibration | None:
        """Where the metres come from, if the depth system gives none."""
        return self.depth.calibration

    @property
    def distance_m(self) -> dict[str, float] | None:
        """Distance of the first referent: ``median``, ``p10``, ``p90`` [m]."""
        return self.referents[0].distance_m

    @property
    def position_m(self) -> tuple[float, float, float] | None:
        """Position of the first referent (x right, y down, z forward) [m]."""
        return self.referents[0].position_m

    @property
    def mask(self) -> Mask:
        """Mask of the first referent."""
        return self.referents[0].mask

    def to_dict(self) -> dict[str, Any]:
        """The answer as JSON-ready values, lengths to 0.1 mm (the contract of ``deixis ask --json``)."""
        first = self.referents[0]
        out: dict[str, Any] = {
            "question": self.question,
            "referent": first.expression,
            **_referent_dict(first),
            "models": {"depth": self.depth.model, "mask": first.mask.model},
            "text": {
                "depth": asdict(self.depth.text),
                "mask": asdict(first.mask.text),
            },
            "notes": list(self.notes),
        }
        if self.calibration is not None:
            out["calibration"] = self.calibration.to_dict()
        if len(self.referents) > 1:
            out["found"] = self.found
            out["referents"] = [{"referent": r.expression, **_referent_dict(r)} for r in self.referents]
            out["nearer"] = self.nearer
            out["gap_m"] = _rounded(self.gap_m, 4)
        return out


def _referent_dict(referent: Referent) -> dict[str, Any]:
    distance, position = referent.distance_m, referent.position_m
    return {
        "found": referent.found,
        "distance_m": {name: _rounded(value, 4) for name, value in distance.items()} if distance else None,
        "box": list(referent.mask.box) if referent.found and referent.mask.box else None,
        "position_m": [_rounded(value, 4) for value in position] if position else None,
        "score": _rounded(referent.mask.score, 4),
    }


def _rounded(value: float | None, digits: int) -> float | None:
    """A number as far as it means anything; 0 without a sign."""
    return None if value is None else round(float(value), digits) + 0.0
