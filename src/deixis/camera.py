"""A pinhole camera: intrinsics, the EXIF focal length, and what resize, crop and flip do to them.

Pixel coordinates have their origin at the outer corner of the top left pixel: the centre of the pixel in
row ``r`` and column ``c`` is ``(u, v) = (c + 0.5, r + 0.5)`` and the middle of an image is
``(width / 2, height / 2)``. With this convention a resize multiplies and a crop subtracts, nothing more.
"""

from __future__ import annotations

import math
import struct
import warnings
from dataclasses import dataclass, replace
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import ExifTags

from deixis.errors import UsageError

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL import Image

FULL_FRAME_DIAGONAL_MM = math.hypot(36.0, 24.0)
"""Diagonal of the 36 mm x 24 mm frame that "35 mm equivalent" refers to (CIPA DCG-001) [mm]."""

SMALLEST_FOCAL_PX = 1e-6
"""Smaller focal lengths, which no lens has, put what is seen farther off than a float can say [px]."""

EXIF_FOV_DEG = (1.0, 160.0)
"""Diagonal fields of view that are taken from EXIF; anything else is a wrong entry [deg]."""

EXIF_MAX_ASPECT = 2.5
"""Longer pictures are stitched panoramas or banner crops, whose EXIF focal length is of another frame."""

_MM_PER_FOCAL_PLANE_UNIT = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}
_EXIF_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    AttributeError,
    OverflowError,
    struct.error,
)


@dataclass(frozen=True)
class Camera:
    """Intrinsics of an upright image.

    Attributes:
        fx, fy: focal length [px].
        cx, cy: principal point [px], origin at the image corner (see the module's docstring).
        width, height: size of the image [px].

    Raises:
        UsageError: if a number is not finite, a size not positive, or a focal length below :data:`SMALLEST_FOCAL_PX`.
    """

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int

    def __post_init__(self) -> None:
        for name in ("fx", "fy"):
            value = getattr(self, name)
            if not SMALLEST_FOCAL_PX <= value < math.inf:
                raise UsageError(f"focal length {name}", f"is {value}", "give it in pixels, for example 500")
        for name in ("cx", "cy"):
            if not math.isfinite(getattr(self, name)):
                raise UsageError(f"principal point {name}", "is not finite", "give a number of pixels")
        if self.width < 1 or self.height < 1:
            raise UsageError("camera", f"has size {self.width} x {self.height}", "give at least 1 x 1 pixel")

    @classmethod
    def from_focal_px(cls, f: float, width: int, height: int) -> Camera:
        """A camera with square pixels, centred principal point and the given focal length [px]."""
        return cls(fx=f, fy=f, cx=width / 2, cy=height / 2, width=width, height=height)

    @classmethod
    def from_fov(cls, fov_deg: float, width: int, height: int) -> Camera:
        """A camera with square pixels, centred principal point and the given horizontal field of view [deg].

        Raises:
            UsageError: if the field of view is not between 0 and 180 degrees, or next to one of them.
        """
        # Neither end has a focal length, nor has an angle so close to one that its tangent is out of bounds.
        tangent = math.tan(math.radians(fov_deg) / 2) if 0 < fov_deg < 180 else math.nan
        if not width / 2e9 < tangent <= width / 2 / SMALLEST_FOCAL_PX:
            raise UsageError("field of view", f"is {fov_deg} degrees", "give an angle between 0 and 180")
        return cls.from_focal_px(width / 2 / tangent, width, height)

    @classmethod
    def from_exif(cls, image: Image.Image) -> Camera | None:
        """The camera of the upright picture according to its EXIF tags, None where they do not tell.

        ``FocalLengthIn35mmFilm`` is read with the diagonal convention (the field of view across the diagonal
        is that of a 36 mm x 24 mm frame); without it ``FocalLength`` and ``FocalPlaneXResolution`` are used.
        The picture may still carry its orientation tag or have been turned already.
        """
        tags = exif_tags(image)
        width, height = image.size
        # Pillow reports the size of a TIFF as it will be after its own turn.
        if tags.get(ExifTags.Base.Orientation) in (5, 6, 7, 8) and image.format != "TIFF":
            width, height = height, width
        focal = _focal_px(tags, width, height)
        return None if focal is None else cls.from_focal_px(focal, width, height)

    def scaled(self, sx: float, sy: float) -> Camera:
        """The camera after a resize by ``sx`` horizontally and ``sy`` vertically; the size is rounded."""
        return Camera(
            fx=self.fx * sx,
            fy=self.fy * sy,
            cx=self.cx * sx,
            cy=self.cy * sy,
            width=max(1, round(self.width * sx)),
            height=max(1, round(self.height * sy)),
        )

    def cropped(self, left: float, top: float, width: int, height: int) -> Camera:
        """The camera of the window at (left, top) [px]; a window beyond the image is a padding."""
        return replace(self, cx=self.cx - left, cy=self.cy - top, width=width, height=height)

    def flipped(self) -> Camera:
        """The camera of the image mirrored left to right."""
        return replace(self, cx=self.width - self.cx)

    def point(self, u: float, v: float, z: float) -> tuple[float, float, float]:
        """Camera coordinates (x right, y down, z forward) [m] of point (u, v) [px] at planar depth z [m]."""
        return (u - self.cx) * z / self.fx, (v - self.cy) * z / self.fy, z

    def unproject(self, depth_m: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float32]:
        """Camera coordinates (x right, y down, z forward) of every pixel centre.

        Args:
            depth_m: planar depth along the optical axis [H, W] [m].

        Returns:
            float32 [H, W, 3] [m].

        Raises:
            UsageError: if the map's size is not the camera's.
        """
        if depth_m.shape != (self.height, self.width):
            raise UsageError(
                "depth map",
                f"has shape {depth_m.shape}, the camera {(self.height, self.width)}",
                "pass a map of the camera's height and width, or scale or crop the camera",
            )
        points = np.empty((self.height, self.width, 3), dtype=np.float32)
        points[..., 0] = (np.arange(self.width) + 0.5 - self.cx) / self.fx * depth_m
        points[..., 1] = ((np.arange(self.height) + 0.5 - self.cy) / self.fy)[:, None] * depth_m
        points[..., 2] = depth_m
        return points


def exif_tags(image: Image.Image) -> dict[int, Any]:
    """The EXIF tags of the main and the Exif directory; whatever is damaged is left out."""
    tags: dict[int, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            exif = image.getexif()
            tags.update(exif)
            tags.update(exif.get_ifd(ExifTags.IFD.Exif))
        except _EXIF_ERRORS:
            pass
    return tags


def _focal_px(tags: dict[int, Any], width: int, height: int) -> float | None:
    """Focal length [px] of a width x height picture with these EXIF tags, None without a sane one."""
    if max(width, height) > EXIF_MAX_ASPECT * min(width, height):
        return None
    diagonal = math.hypot(width, height)
    focal = _focal_px_from_35mm(tags, diagonal) or _focal_px_from_sensor(tags, max(width, height))
    if focal is None:
        return None
    fov_deg = 2 * math.degrees(math.atan(diagonal / 2 / focal))
    return focal if EXIF_FOV_DEG[0] <= fov_deg <= EXIF_FOV_DEG[1] else None


def _focal_px_from_35mm(tags: dict[int, Any], diagonal: float) -> float | None:
    focal_mm = _positive(tags.get(ExifTags.Base.FocalLengthIn35mmFilm))
    return focal_mm and focal_mm / FULL_FRAME_DIAGONAL_MM * diagonal


def _focal_px_from_sensor(tags: dict[int, Any], long_side: int) -> float | None:
    """From the focal length [mm] and the sensor's pixels per unit; pixels are taken to be square."""
    focal_mm = _positive(tags.get(ExifTags.Base.FocalLength))
    resolution = _positive(tags.get(ExifTags.Base.FocalPlaneXResolution))
    unit = tags.get(ExifTags.Base.FocalPlaneResolutionUnit, 2)
    mm = _MM_PER_FOCAL_PLANE_UNIT.get(unit) if isinstance(unit, int) else None
    if focal_mm is None or resolution is None or mm is None:
        return None
    # The tag speaks of the picture as taken; it may have been resized since.
    sides = [tags.get(ExifTags.Base.ExifImageWidth), tags.get(ExifTags.Base.ExifImageHeight)]
    taken = max(_positive(side) or 0.0 for side in sides)
    return focal_mm * resolution / mm * (long_side / taken if taken else 1.0)


def _positive(value: object) -> float | None:
    """An EXIF number as a float above 0; None for what is absent, zero, infinite or no number."""
    if not isinstance(value, Real):
        return None
    try:
        number = float(value)
    except (ZeroDivisionError, OverflowError):  # a rational with denominator 0 in Pillow before 13
        return None
    return number if math.isfinite(number) and number > 0 else None


def choose_camera(
    exif: Camera | None, size: tuple[int, ...], fov: float | None, focal_px: float | None
) -> Camera | None:
    """The camera of a picture of ``size`` (height, width): as stated by the user, or else as EXIF tells.

    Raises:
        UsageError: if both ``fov`` [deg] and ``focal_px`` are given, or the one given is out of range.
    """
    if fov is not None and focal_px is not None:
        raise UsageError("--fov and --focal-px", "both state the focal length", "pass one of them")
    height, width = size
    if focal_px is not None:
        return Camera.from_focal_px(focal_px, width, height)
    if fov is not None:
        return Camera.from_fov(fov, width, height)
    return exif
