"""Intrinsics through resize, crop and flip, unprojection, and focal lengths from EXIF."""

from __future__ import annotations

import math
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps
from PIL.TiffImagePlugin import IFDRational

from deixis.camera import Camera
from deixis.errors import UsageError

TAGS = ExifTags.Base


def with_exif(size: tuple[int, int], tags: dict[int, object], orientation: int = 1, fmt: str = "JPEG") -> Image.Image:
    exif = Image.Exif()
    exif[TAGS.Orientation] = orientation
    exif.get_ifd(ExifTags.IFD.Exif).update(tags)
    file = BytesIO()
    Image.new("RGB", size).save(file, fmt, exif=exif.tobytes())
    return Image.open(file)


def test_field_of_view_is_horizontal() -> None:
    camera = Camera.from_fov(90, 640, 480)
    assert camera.fx == pytest.approx(320)
    assert (camera.fy, camera.cx, camera.cy) == (camera.fx, 320, 240)
    left, _, z = camera.point(0, 240, 1.0)
    assert math.degrees(math.atan2(-left, z)) == pytest.approx(45)


@pytest.mark.parametrize("fov", [0, -1, 180, 200, 1e-320, 1e-9, 180 - 1e-12, math.nan, math.inf])
def test_impossible_field_of_view(fov: float) -> None:
    with pytest.raises(UsageError, match="field of view"):
        Camera.from_fov(fov, 640, 480)


@pytest.mark.parametrize("focal", [0, -500, 1e-320, 1e-7, math.nan, math.inf])
def test_impossible_focal_length(focal: float) -> None:
    with pytest.raises(UsageError, match="focal length"):
        Camera.from_focal_px(focal, 640, 480)


@pytest.mark.parametrize("bad", [{"cx": math.nan}, {"cy": math.inf}, {"width": 0}, {"height": -1}])
def test_impossible_camera(bad: dict[str, float]) -> None:
    good = {"fx": 1.0, "fy": 1.0, "cx": 0.5, "cy": 0.5, "width": 1, "height": 1}
    with pytest.raises(UsageError):
        Camera(**{**good, **bad})  # type: ignore[arg-type]


def test_resize_crop_and_flip_keep_the_ray_of_a_pixel() -> None:
    camera = Camera(fx=500, fy=510, cx=330, cy=236, width=640, height=480)
    u, v, z = 123.5, 77.5, 2.0
    x, y, _ = camera.point(u, v, z)
    assert camera.scaled(0.5, 0.25).point(u * 0.5, v * 0.25, z) == pytest.approx((x, y, z))
    assert camera.cropped(40, 20, 200, 100).point(u - 40, v - 20, z) == pytest.approx((x, y, z))
    assert camera.flipped().point(640 - u, v, z) == pytest.approx((-x, y, z))
    assert camera.flipped().flipped() == camera
    assert (camera.scaled(0.5, 0.25).width, camera.scaled(0.5, 0.25).height) == (320, 120)
    assert camera.scaled(1e-4, 1e-4).width == 1


def test_unprojection_is_point_at_pixel_centres() -> None:
    camera = Camera(fx=50, fy=60, cx=2.2, cy=1.4, width=5, height=3)
    depth = np.random.default_rng(0).uniform(0.5, 5, (3, 5)).astype(np.float32)
    points = camera.unproject(depth)
    assert points.dtype == np.float32
    for row in range(3):
        for column in range(5):
            expected = camera.point(column + 0.5, row + 0.5, float(depth[row, column]))
            assert points[row, column] == pytest.approx(expected, rel=1e-5)
    with pytest.raises(UsageError, match="shape"):
        camera.unproject(depth.T)


def test_35mm_focal_length_spans_the_diagonal() -> None:
    # 24 mm x 36 mm film: the diagonal convention gives the same pixels per millimetre on both sides.
    camera = Camera.from_exif(with_exif((360, 240), {TAGS.FocalLengthIn35mmFilm: 50}))
    assert camera is not None
    assert camera.fx == pytest.approx(500)
    # 4:3: CIPA's "28 mm" has a 75.4 degree diagonal
    camera = Camera.from_exif(with_exif((400, 300), {TAGS.FocalLengthIn35mmFilm: 28}))
    assert camera is not None
    assert 2 * math.degrees(math.atan(250 / camera.fx)) == pytest.approx(75.4, abs=0.1)


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_camera_is_upright_before_and_after_turning(orientation: int, fmt: str) -> None:
    image = with_exif((40, 30), {TAGS.FocalLengthIn35mmFilm: 35}, orientation, fmt)
    camera = Camera.from_exif(image)
    upright = ImageOps.exif_transpose(image)
    assert camera is not None
    assert (camera.width, camera.height) == upright.size == ((40, 30) if orientation < 5 else (30, 40))
    assert Camera.from_exif(image) == camera  # decoded by now


@pytest.mark.parametrize(("unit", "per_mm"), [(None, 1 / 25.4), (2, 1 / 25.4), (3, 1 / 10), (4, 1.0), (5, 1000.0)])
def test_focal_plane_resolution(unit: int | None, per_mm: float) -> None:
    tags: dict[int, object] = {
        TAGS.FocalLength: IFDRational(50, 1),
        TAGS.FocalPlaneXResolution: IFDRational(100 / per_mm),
        TAGS.ExifImageWidth: 3600,
        TAGS.ExifImageHeight: 2400,
    }
    if unit is not None:
        tags[TAGS.FocalPlaneResolutionUnit] = unit
    camera = Camera.from_exif(with_exif((360, 240), tags))
    assert camera is not None
    # 50 mm at 100 px/mm, then the picture was reduced to a tenth
    assert camera.fx == pytest.approx(500, rel=1e-3)


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {TAGS.FocalLengthIn35mmFilm: 0},
        {TAGS.FocalLengthIn35mmFilm: 1},
        {TAGS.FocalLengthIn35mmFilm: 65535},
        {TAGS.FocalLength: IFDRational(50, 1)},
        {TAGS.FocalLength: IFDRational(0, 0), TAGS.FocalPlaneXResolution: IFDRational(100, 1)},
        {TAGS.FocalLength: IFDRational(50, 1), TAGS.FocalPlaneXResolution: IFDRational(0, 1)},
        {TAGS.FocalLength: IFDRational(5, 1), TAGS.FocalPlaneXResolution: IFDRational(9, 1), 0xA210: 77},
    ],
)
def test_no_camera_from_nonsense(tags: dict[int, object]) -> None:
    assert Camera.from_exif(with_exif((40, 30), tags)) is None


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_no_camera_from_panoramas_and_damaged_exif(tmp_path: Path) -> None:
    assert Camera.from_exif(with_exif((300, 30), {TAGS.FocalLengthIn35mmFilm: 26})) is None
    damaged = Image.new("RGB", (40, 30))
    damaged.info["exif"] = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12garbage"
    assert Camera.from_exif(damaged) is None
    path = tmp_path / "a.jpg"
    Image.new("RGB", (40, 30)).save(path, exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\xff\xff\xff\x7f")
    assert Camera.from_exif(Image.open(path)) is None
