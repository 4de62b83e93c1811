"""What a scene is: things made of parts, lights, a camera. Plain data, the same for rooms and roads.

World coordinates [m]: x right, y forward, z up; the floor or road is at z = 0. A camera looks along its own
z axis (x right, y down, z forward), as :class:`deixis.camera.Camera` has it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Vector = tuple[float, float, float]
Shape = Literal["box", "frustum", "ellipsoid"]
Texture = Literal["plain", "grain", "planks", "tiles", "bricks", "checks", "stripes", "speckle", "noise", "picture"]


@dataclass(frozen=True)
class Material:
    """How a surface looks.

    Attributes:
        name: ``wood``, ``metal``, ``fabric`` … as language calls it; empty where language is silent.
        albedo: linear reflectance, red green blue, each in [0, 1].
        texture: pattern, evaluated in the part's own coordinates; ``plain`` has none.
        second: albedo of the pattern's other colour.
        scale: size of one period of the pattern [m].
        gloss: share of light reflected as by a mirror, 0 to 1.
        emission: radiance given off (lamps, screens, sky behind a window), linear red green blue.
    """

    name: str
    albedo: Vector
    texture: Texture = "plain"
    second: Vector = (0.5, 0.5, 0.5)
    scale: float = 0.2
    gloss: float = 0.0
    emission: Vector = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Part:
    """One solid of a thing.

    Attributes:
        thing: id of the thing it belongs to.
        shape: ``box``: axis-aligned cuboid in its own coordinates; ``frustum``: upright cylinder or cone with
            ``sides`` flat sides; ``ellipsoid``: with ``sides`` meridians and ``sides // 2`` rings.
        size: extent along its own x, y, z before rotation [m]; of a frustum, at its wider end.
        center: of that extent, in the world [m].
        rotation: rows of the 3 x 3 matrix from its own to world coordinates.
        material: index into the scene's materials.
        taper: frustum only: radius at the top over radius at the bottom (1 cylinder, 0 cone).
        sides: frustum and ellipsoid only.
    """

    thing: int
    shape: Shape
    size: Vector
    center: Vector
    rotation: tuple[Vector, Vector, Vector]
    material: int
    taper: float = 1.0
    sides: int = 16


@dataclass(frozen=True)
class Thing:
    """Something that has a name.

    Attributes:
        id: number in the instance map, from 1; 0 is sky or nothing.
        name: class, for example ``chair``; structure is called ``wall``, ``floor``, ``ceiling``, ``road`` …
        colour: name of its main colour; empty where no single one fits.
        material: name of its main material; empty where none fits.
        pattern: ``striped``, ``checked`` …; empty where plain.
        build: relative size within its class by construction: ``small``, ``large`` or empty. Never from metres alone.
        center: of its bounding box in the world [m].
        size: of its bounding box along its own x (width), y (depth), z (height) [m].
        yaw_deg: turn about the vertical [deg].
        on: id of what it stands, hangs or lies on; 0 where it is structure itself.
        mount: how it is held: standing ``on``, ``hanging`` at a wall or ceiling, or ``structure``.
    """

    id: int
    name: str
    colour: str = ""
    material: str = ""
    pattern: str = ""
    build: Literal["", "small", "large"] = ""
    center: Vector = (0.0, 0.0, 0.0)
    size: Vector = (0.0, 0.0, 0.0)
    yaw_deg: float = 0.0
    on: int = 0
    mount: Literal["on", "hanging", "structure"] = "on"


@dataclass(frozen=True)
class View:
    """Where the camera is and how it exposes.

    Attributes:
        position: in the world [m].
        rotation: rows of the 3 x 3 matrix from camera (x right, y down, z forward) to world coordinates.
        fx, fy, cx, cy: intrinsics [px], origin at the outer corner of the top left pixel.
        width, height: size [px].
        exposure: factor on radiance before the tone curve; 1 is what metering chose.
        white: white-balance gains of red, green, blue.
        noise: standard deviation of the sensor's noise at mid grey, in [0, 1] units of sRGB.
        blur_px: standard deviation of the lens's blur [px].
    """

    position: Vector
    rotation: tuple[Vector, Vector, Vector]
    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int
    exposure: float = 1.0
    white: Vector = (1.0, 1.0, 1.0)
    noise: float = 0.0
    blur_px: float = 0.0


@dataclass(frozen=True)
class Light:
    """A rectangle that shines to one side (window, lamp, ceiling panel). It is not seen unless a part glows.

    Attributes:
        center: [m].
        u, v: half edges as world vectors [m]; it shines towards ``cross(u, v)``.
        radiance: linear red green blue.
    """

    center: Vector
    u: Vector
    v: Vector
    radiance: Vector


@dataclass(frozen=True)
class Sky:
    """Light from outside, for roads and through nothing else.

    Attributes:
        sun_direction: unit vector towards the sun.
        sun: irradiance on a surface that faces it, linear red green blue; zeros on an overcast day.
        sun_angle_deg: apparent radius; larger is softer [deg].
        zenith, horizon: radiance overhead and at the horizon.
        cloud: share of the sky that clouds cover, 0 to 1.
    """

    sun_direction: Vector
    sun: Vector
    sun_angle_deg: float
    zenith: Vector
    horizon: Vector
    cloud: float = 0.0


@dataclass(frozen=True)
class Scene:
    """A whole scene, from a seed alone.

    Attributes:
        seed: what it was made from.
        kind: ``room`` or ``road``.
        place: ``bedroom``, ``corridor``, ``village street`` …
        things, parts, materials, lights, sky, view: see their classes. ``things`` are sorted by id, without gaps
            from 1.
    """

    seed: int
    kind: Literal["room", "road"]
    place: str
    things: tuple[Thing, ...]
    parts: tuple[Part, ...]
    materials: tuple[Material, ...]
    lights: tuple[Light, ...]
    sky: Sky | None
    view: View
    weather: str = ""

    def thing(self, number: int) -> Thing:
        """The thing with this id."""
        return self.things[number - 1]

    def as_dict(self) -> dict[str, Any]:
        """Plain lists and dictionaries, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Frame:
    """A drawn scene.

    Attributes:
        scene: what was drawn.
        rgb: uint8 [H, W, 3], sRGB.
        depth: float32 [H, W] [m], planar (along the optical axis) at pixel centres; 0 where there is only sky.
        ids: int32 [H, W], the thing seen at each pixel centre; 0 where there is only sky.
    """

    scene: Scene
    rgb: npt.NDArray[np.uint8]
    depth: npt.NDArray[np.float32]
    ids: npt.NDArray[np.int32]


@dataclass
class Builder:
    """Collects things, parts and materials while a scene is being furnished."""

    things: list[Thing] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    materials: list[Material] = field(default_factory=list)

    def material(self, material: Material) -> int:
        """Its index, adding it if it is new."""
        if material not in self.materials:
            self.materials.append(material)
        return self.materials.index(material)
