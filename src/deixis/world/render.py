"""Draws a scene by path tracing: colour as a camera would see it, exact depth and the thing at every pixel.

Rays are traced by Embree, all of a frame at once; what noise few rays leave is removed by Open Image Denoise. Within
this module points are relative to the camera, and arrays of vectors are [3, N]: one row a component.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from deixis.errors import UsageError
from deixis.world.mesh import triangles
from deixis.world.scene import Frame, Light, Scene, Sky, View
from deixis.world.textures import Textures, noise

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_SUN = 1e4  # distance of the sun [m]: far enough for parallel light, near enough for float32
_LUMINANCE = np.array([0.2126, 0.7152, 0.0722], dtype=np.float32)
_GREY = 0.2  # linear value that metering gives to the scene's geometric mean
_SEED = 60302  # sets the renderer's random numbers apart from the scene's


def draw(scene: Scene, *, samples: int = 4) -> Frame:
    """Draw a scene.

    The same scene gives the same bytes, however many processes draw at the same time.

    Args:
        scene: what to draw.
        samples: primary rays a pixel, for colour only; depth and ids always come from the ray through the centre.

    Returns:
        Colour, planar depth [m] and ids at pixel centres.

    Raises:
        UsageError: the ray tracer or the denoiser is not installed, or ``samples`` is not positive.
    """
    if samples < 1:
        raise UsageError("samples", f"is {samples}", "give 1 or more")
    rng = np.random.default_rng([scene.seed, _SEED])
    world = _World(scene)
    view = scene.view
    rays = _primary_rays(view, samples, rng)  # [3, S * H * W], the first of each pixel through its centre
    hits = world.trace(np.zeros_like(rays), rays)

    pixels = view.width * view.height
    faces = hits.faces[:pixels]
    depth = np.zeros(pixels, dtype=np.float32)
    seen = faces >= 0
    depth[seen] = world.planar_depth(faces[seen], np.flatnonzero(seen), view)
    ids = np.where(seen, world.things[world.owners[faces]], 0).astype(np.int32)

    colour, albedo, normal = _shade(world, rays, hits, samples, rng)
    shape = (view.height, view.width)
    images = [np.ascontiguousarray(image.reshape(3, *shape).transpose(1, 2, 0)) for image in (colour, albedo, normal)]
    rgb = _develop(_denoise(*images), view, rng)
    return Frame(scene, rgb, depth.reshape(shape), ids.reshape(shape))


def _library(module: str) -> Any:  # noqa: ANN401 - neither library has types
    """A module of the libraries that the extra ``world`` installs."""
    try:
        return import_module(module)
    except ImportError as error:
        raise UsageError("the world's renderer", "is not installed", "pip install 'deixis[world]'") from error


def _dot(a: Floats, b: Floats) -> Floats:
    """Of vectors [3, N]: [N]. Written out because BLAS may round differently with other numbers of threads."""
    product: Floats = a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
    return product


def _at(vectors: Floats, index: Ints) -> Floats:
    """Columns [3, N] of [3, M]; several times faster than indexing."""
    return np.take(vectors, index, axis=1)


def _unit(vectors: Floats) -> Floats:
    """Vectors [3, N] at length 1."""
    return vectors / np.sqrt(np.maximum(_dot(vectors, vectors), np.float32(1e-20)))


def _primary_rays(view: View, samples: int, rng: np.random.Generator) -> Floats:
    """Directions [3, S * H * W], not of unit length, sample by sample and row by row."""
    rows, columns = np.mgrid[: view.height, : view.width].astype(np.float32)
    shape = (samples, view.height, view.width)
    x, y = np.full(shape, 0.5, dtype=np.float32), np.full(shape, 0.5, dtype=np.float32)
    if samples > 1:
        # Strata are columns of the pixel; each pixel shifts a low-discrepancy set in y.
        offset = rng.random(shape[1:], dtype=np.float32)
        jitter = rng.random((samples - 1, *shape[1:]), dtype=np.float32)
        strata = np.arange(samples - 1, dtype=np.float32)[:, None, None]
        x[1:] = (strata + jitter) / (samples - 1)
        y[1:] = (offset + strata * np.float32(0.618034)) % 1
    x = (x + columns - np.float32(view.cx)) / np.float32(view.fx)
    y = (y + rows - np.float32(view.cy)) / np.float32(view.fy)
    turn = np.asarray(view.rotation, dtype=np.float32)
    return np.stack([(turn[i, 0] * x + turn[i, 1] * y + turn[i, 2]).ravel() for i in range(3)])


@dataclass
class _Hits:
    """Where rays meet the scene: face or -1 [N], distance in ray lengths [N]."""

    faces: Ints
    distance: Floats


class _World:
    """A scene, ready for rays."""

    def __init__(self, scene: Scene) -> None:
        vertices, faces, owners = triangles(scene.parts)
        self.scene = scene
        self.owners = owners
        self.things = np.array([part.thing for part in scene.parts], dtype=np.int32)
        self.face_materials = np.array([part.material for part in scene.parts], dtype=np.int64)[owners]
        self.origin = np.asarray(scene.view.position, dtype=np.float64)
        self._corners = (vertices - self.origin)[faces]  # [F, 3, 3]
        a, b, c = self._corners.transpose(1, 2, 0)  # [3, F] each
        normals = np.cross(b - a, c - a, axis=0)
        normals /= np.maximum(np.sqrt((normals**2).sum(axis=0)), 1e-30)
        self._exact_normals = normals
        self.normals = normals.astype(np.float32)  # [3, F]
        self._round = np.array([part.shape != "box" and part.sides >= 10 for part in scene.parts])[owners]
        self._ball = np.array([part.shape == "ellipsoid" for part in scene.parts])  # [P]
        self._rotations = np.array([part.rotation for part in scene.parts], dtype=np.float32).transpose(1, 2, 0)
        self._sizes = np.array([part.size for part in scene.parts], dtype=np.float32).T  # [3, P]
        self._centers = (np.array([part.center for part in scene.parts]) - self.origin).T.astype(np.float32)  # [3, P]
        self.textures = Textures(scene, normals, owners, self.origin)
        self.far = self.textures.far()
        self.gloss = np.array([material.gloss for material in scene.materials], dtype=np.float32)
        self.metal = np.array([material.name == "metal" for material in scene.materials])
        self.emission = np.array([material.emission for material in scene.materials], dtype=np.float32).T  # [3, M]
        self.lights = _Lights(scene, self.origin)
        self._embree = _library("embreex.rtcore_scene").EmbreeScene(robust=True)
        mesh = _library("embreex.mesh_construction").TriangleMesh
        self._mesh = mesh(self._embree, (vertices - self.origin).astype(np.float32), faces)

    def trace(self, origins: Floats, directions: Floats) -> _Hits:
        """First hits of rays from points [3, N] along directions [3, N]."""
        found = self._embree.run(origins.T, directions.T, output=True)
        return _Hits(found["primID"].astype(np.int64), found["tfar"])

    def blocked(self, origins: Floats, directions: Floats, reach: Floats) -> npt.NDArray[np.bool_]:
        """Whether anything lies within ``reach`` [N] ray lengths."""
        found: npt.NDArray[np.int32] = self._embree.run(origins.T, directions.T, reach, query="OCCLUDED")
        return found >= 0

    def planar_depth(self, faces: Ints, pixels: Ints, view: View) -> Doubles:
        """Depth along the optical axis [N] [m] where the rays through pixel centres meet the planes of ``faces``."""
        x = (pixels % view.width + 0.5 - view.cx) / view.fx
        y = (pixels // view.width + 0.5 - view.cy) / view.fy
        turn = np.asarray(view.rotation, dtype=np.float64)
        normal, corner = self._exact_normals[:, faces], self._corners[faces, 0].T
        ray = [turn[i, 0] * x + turn[i, 1] * y + turn[i, 2] for i in range(3)]
        facing = sum(normal[i] * ray[i] for i in range(3))
        depth: Doubles = (normal * corner).sum(axis=0) / facing
        return depth

    def surface_normals(self, hits: _Hits, rays: Floats, points: Floats) -> tuple[Floats, Floats]:
        """Normals of the flat faces and of the smooth surfaces they stand for, both towards the viewer [3, N]."""
        flat = _at(self.normals, hits.faces)
        flat *= np.where(_dot(flat, rays) > 0, np.float32(-1), np.float32(1))
        smooth = flat.copy()
        curved = np.flatnonzero(self._round[hits.faces])
        part = self.owners[hits.faces[curved]]
        turn, size = self._rotations[:, :, part], self._sizes[:, part]  # [3, 3, N], [3, N]
        face, offset = _at(flat, curved), _at(points, curved) - self._centers[:, part]
        # In the part's own coordinates. The outward direction of an ellipsoid, or of a cylinder seen from above:
        local = [_dot(turn[:, i], offset) / np.maximum(size[i], np.float32(1e-4)) ** 2 for i in range(3)]
        axial = _dot(turn[:, 2], face)
        around = np.sqrt(np.maximum(1 - axial**2, 0) / np.maximum(local[0] ** 2 + local[1] ** 2, np.float32(1e-12)))
        ball = self._ball[part]
        normal = [np.where(ball, local[0], local[0] * around), np.where(ball, local[1], local[1] * around)]
        normal.append(np.where(ball, local[2], axial))
        world = _unit(
            np.stack([turn[i, 0] * normal[0] + turn[i, 1] * normal[1] + turn[i, 2] * normal[2] for i in range(3)])
        )
        cap = ~ball & (np.abs(axial) > 0.95)
        # Inside of a shell, or where a coarse shape leaves its ideal: the face's own normal.
        usable = ~cap & (_dot(world, face) > 0.5)
        smooth[:, curved] = np.where(usable, world, face)
        return flat, smooth


class _Lights:
    """The lights of a scene as rectangles [L]; the sun is one far away."""

    def __init__(self, scene: Scene, origin: Doubles) -> None:
        lights = list(scene.lights)
        if scene.sky is not None and max(scene.sky.sun) > 0:
            lights.append(_sun(scene.sky, origin))
        vectors = np.array([(light.center, light.u, light.v, light.radiance) for light in lights], dtype=np.float64)
        vectors = vectors.reshape(-1, 4, 3).transpose(1, 2, 0)  # [4, 3, L]
        self.center = (vectors[0] - origin[:, None]).astype(np.float32)
        self.u, self.v, self.radiance = (part.astype(np.float32) for part in vectors[1:])
        normal = np.cross(vectors[1], vectors[2], axis=0)
        area = np.sqrt((normal**2).sum(axis=0))
        self.normal = (normal / np.maximum(area, 1e-12)).astype(np.float32)
        self.area = (4 * area).astype(np.float32)
        self.power = self.area * (self.radiance * _LUMINANCE[:, None]).sum(axis=0)

    def direct(self, world: _World, points: Floats, normals: Floats, rng: np.random.Generator) -> Floats:
        """Radiance [3, N] that a white surface would reflect of the light that reaches it directly.

        One point of one light is tried for each point, bright and near lights more often.
        """
        count, number = points.shape[1], len(self.power)
        reflected = np.zeros((3, count), dtype=np.float32)
        if number == 0:
            return reflected
        chances = np.empty((number, count), dtype=np.float32)
        for i in range(number):
            to = self.center[:, i, None] - points
            square = _dot(to, to)
            front = np.maximum(-_dot(to, self.normal[:, i, None]), 0)
            facing = np.maximum(_dot(to, normals), 0) + np.float32(0.15) * np.sqrt(square)
            chances[i] = self.power[i] * front * facing / (square * (square + self.area[i]))
        np.cumsum(chances, axis=0, out=chances)
        total = chances[-1]
        dice = rng.random((3, count), dtype=np.float32)
        chosen = (dice[0] * total >= chances[:-1]).sum(axis=0)
        below = np.where(chosen > 0, np.take_along_axis(chances, np.maximum(chosen - 1, 0)[None], axis=0)[0], 0)
        chance = np.take_along_axis(chances, chosen[None], axis=0)[0] - below

        s, t = 2 * dice[1] - 1, 2 * dice[2] - 1
        to = _at(self.center, chosen) + s * _at(self.u, chosen) + t * _at(self.v, chosen) - points
        square = np.maximum(_dot(to, to), np.float32(1e-6))
        facing = _dot(to, normals)
        cosines = facing * -_dot(to, _at(self.normal, chosen)) / square
        lit = np.flatnonzero((cosines > 0) & (facing > 0) & (chance > 0))
        # No light fills more than the half space: this bounds what a point right beside a light receives.
        solid = np.minimum(cosines[lit] * self.area[chosen[lit]] / square[lit], np.float32(2 * np.pi))
        length = np.sqrt(square[lit])
        direction = _at(to, lit) / length
        # Just short of the light, so that the lamp's own glowing surface does not shade it.
        free = ~world.blocked(_at(points, lit), direction, np.maximum(length * np.float32(0.995) - np.float32(0.02), 0))
        lit, solid = lit[free], solid[free]
        factor = solid * total[lit] / (chance[lit] * np.float32(np.pi))
        reflected[:, lit] = _at(self.radiance, chosen[lit]) * factor
        return reflected


def _sun(sky: Sky, origin: Doubles) -> Light:
    """The sun as a square that faces the camera."""
    direction = np.asarray(sky.sun_direction, dtype=np.float64)
    half = _SUN * float(np.tan(np.deg2rad(max(sky.sun_angle_deg, 0.2))))
    side = np.cross(direction, (0.0, 0.0, 1.0) if abs(direction[2]) < 0.9 else (1.0, 0.0, 0.0))
    side *= half / np.linalg.norm(side)
    up = np.cross(side, direction)  # side × up points from the sun to the camera
    solid = (2 * half / _SUN) ** 2
    red, green, blue = (float(value) / solid for value in sky.sun)
    return Light(_vector(origin + direction * _SUN), _vector(side), _vector(up), (red, green, blue))


def _vector(values: Doubles) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z


def _sky_radiance(sky: Sky, seed: int, rays: Floats) -> Floats:
    """Radiance [3, N] of the sky along unit directions [3, N]."""
    up = np.maximum(rays[2], 0)
    horizon, zenith = (np.array(v, dtype=np.float32)[:, None] for v in (sky.horizon, sky.zenith))
    radiance = zenith + (horizon - zenith) * np.exp(-4 * up)
    sun, towards = np.array(sky.sun, dtype=np.float32), np.array(sky.sun_direction, dtype=np.float32)
    angle = np.maximum(_dot(rays, towards[:, None]), 0)
    clear = 1 - np.float32(sky.cloud)
    radiance = radiance + sun[:, None] * (0.03 * angle**8 + 0.12 * angle**64) * clear
    if sky.cloud > 0:
        x, y = rays[0] / (up + np.float32(0.12)), rays[1] / (up + np.float32(0.12))
        shift = np.float32(seed % 97)
        texture = 0.7 * noise(x * 0.8 + shift, y * 0.8) + 0.3 * noise(x * 2.7, y * 2.7 + shift)
        cover = np.clip((texture - clear) / np.float32(0.25) + 0.5, 0, 1)
        cover = cover * cover * (3 - 2 * cover) * np.clip(up * 8, 0, 1)
        level = float(_LUMINANCE @ np.array(sky.horizon))
        white = (horizon * 0.3 + np.float32(0.7 * level)) * (1 + 0.25 * (0.5 - texture)) + sun[:, None] * 0.03
        radiance = radiance + (white - radiance) * (0.9 * cover)
    return radiance


def _shade(
    world: _World, rays: Floats, hits: _Hits, samples: int, rng: np.random.Generator
) -> tuple[Floats, Floats, Floats]:
    """Linear radiance, albedo and normal of every pixel, each [3, H * W].

    All samples get direct light; light from other surfaces comes from one path a pixel, that of its centre, as it
    changes slowly.
    """
    scene, view = world.scene, world.scene.view
    pixels = rays.shape[1] // samples
    length = np.sqrt(_dot(rays, rays))
    seen = np.flatnonzero(hits.faces >= 0)
    solid = _Hits(hits.faces[seen], hits.distance[seen])
    ray = _at(rays, seen)
    material = world.face_materials[solid.faces]
    points = ray * solid.distance
    flat, normal = world.surface_normals(solid, ray, points)
    pixel_size = solid.distance / np.float32(view.fx)
    albedo = world.textures.albedo(solid.faces, material, points, pixel_size)
    points += flat * (np.float32(1e-3) + np.float32(3e-5) * solid.distance)

    radiance = albedo * world.lights.direct(world, points, normal, rng)
    # Glow, which a picture on a screen or behind a window colours.
    glow = _at(world.emission, material)
    shown = np.array([m.texture == "picture" for m in scene.materials])[material]
    glowing = np.flatnonzero(glow.max(axis=0, initial=0) > 0)
    radiance[:, glowing] += glow[:, glowing] * np.where(shown[glowing], 2 * albedo[:, glowing], 1)

    # Secondary rays start from the first sample's hits, which come first.
    first = int(np.searchsorted(seen, pixels))
    gloss = world.gloss[material]
    shiny = np.flatnonzero(gloss[:first] > 0.02)
    diffuse, mirror = _secondary(world, ray[:, :first], points[:, :first], normal[:, :first], gloss, shiny, rng)
    source = _lookup(seen[:first], seen % pixels, pixels)
    centred = np.flatnonzero(source >= 0)
    # Where the centre looks past everything, other samples of that pixel take the frame's mean.
    bounced = np.zeros_like(radiance) + diffuse.sum(axis=1, keepdims=True) / np.float32(max(first, 1))
    bounced[:, centred] = _at(diffuse, source[centred])
    radiance += albedo * bounced
    if len(shiny):
        source = _lookup(seen[shiny], seen % pixels, pixels)
        reflecting = np.flatnonzero((source >= 0) & (gloss > 0.02))
        grazing = 1 - np.abs(_dot(ray[:, reflecting], normal[:, reflecting])) / length[seen[reflecting]]
        share = gloss[reflecting]
        share = share + (1 - share) * np.minimum(4 * share, 1) * np.maximum(grazing, 0) ** 5
        tint = np.where(world.metal[material[reflecting]], albedo[:, reflecting], np.float32(1))
        radiance[:, reflecting] += share * (tint * mirror[:, source[reflecting]] - radiance[:, reflecting])

    colour = np.zeros_like(rays)
    colour[:, seen] = radiance
    base = np.zeros_like(rays)
    base[:, seen] = albedo
    base[:, seen[glowing]] = 1
    facing = np.zeros_like(rays)
    facing[:, seen] = normal
    if scene.sky is not None:
        open_air = np.flatnonzero(hits.faces < 0)
        above = _sky_radiance(scene.sky, scene.seed, _unit(rays[:, open_air]))
        colour[:, open_air] = above
        base[:, open_air] = np.minimum(above, 1)
        air = 1 - np.exp(-solid.distance / np.float32(_visibility(scene)))
        horizon = np.array(scene.sky.horizon, dtype=np.float32)[:, None]
        colour[:, seen] += (horizon - radiance) * air
    shape = (3, samples, pixels)
    colour, base, facing = (image.reshape(shape).mean(axis=1) for image in (colour, base, facing))
    return colour, base, facing


def _lookup(known: Ints, wanted: Ints, pixels: int) -> Ints:
    """Position in ``known`` of every wanted pixel, -1 where it is not there."""
    position = np.full(pixels, -1)
    position[known] = np.arange(len(known))
    return position[wanted]


def _visibility(scene: Scene) -> float:
    """Distance at which haze leaves 1/e of the contrast [m]."""
    for word, metres in (("fog", 80.0), ("haz", 250.0), ("rain", 350.0), ("overcast", 600.0)):
        if word in scene.weather:
            return metres
    return 900.0


def _secondary(
    world: _World,
    rays: Floats,
    points: Floats,
    normals: Floats,
    gloss: Floats,
    shiny: Ints,
    rng: np.random.Generator,
) -> tuple[Floats, Floats]:
    """Light that surfaces receive from other surfaces and from the sky.

    Args:
        world: the scene.
        rays: directions towards the surfaces [3, N].
        points: on them [3, N].
        normals: there [3, N].
        gloss: of at least the first N [N or more].
        shiny: which of the N have a mirror ray as well [M].
        rng: source of directions.

    Returns:
        Radiance a white matt surface would reflect of it [3, N], and radiance from the mirror directions [3, M].
    """
    count = points.shape[1]
    if count == 0:
        return np.zeros((3, 0), dtype=np.float32), np.zeros((3, 0), dtype=np.float32)
    # A point of the unit sphere around the tip of the normal is a cosine-weighted direction.
    dice = rng.random((2, count), dtype=np.float32)
    height, turn = 2 * dice[0] - 1, np.float32(2 * np.pi) * dice[1]
    around = np.sqrt(np.maximum(1 - height**2, 0))
    scattered = _unit(normals * np.float32(1.001) + np.stack([around * np.cos(turn), around * np.sin(turn), height]))
    normal = normals[:, shiny]
    towards = _unit(rays[:, shiny])
    reflected = towards - 2 * _dot(towards, normal) * normal
    rough = np.float32(0.22) * (1 - gloss[shiny])
    reflected = _unit(reflected + rough * rng.standard_normal((3, len(shiny)), dtype=np.float32))
    directions = np.concatenate([scattered, reflected], axis=1)
    starts = np.concatenate([points, points[:, shiny]], axis=1)

    hits = world.trace(starts, directions)
    met = np.flatnonzero(hits.faces >= 0)
    found = _Hits(hits.faces[met], hits.distance[met])
    flat = _at(world.normals, found.faces)
    heading = _at(directions, met)
    flat *= np.where(_dot(flat, heading) > 0, np.float32(-1), np.float32(1))
    there = _at(starts, met) + heading * found.distance
    there += flat * (np.float32(1e-3) + np.float32(3e-5) * found.distance)
    material = world.face_materials[found.faces]
    albedo = _at(world.far, material)
    light = np.zeros_like(directions)
    light[:, met] = albedo * world.lights.direct(world, there, flat, rng)
    sky = world.scene.sky
    if sky is not None:
        missed = np.flatnonzero(hits.faces < 0)
        light[:, missed] = _sky_radiance(sky, world.scene.seed, directions[:, missed])

    # What the surfaces met receive from yet others: the mean of this bounce, carried on as a geometric series.
    scattered_met = met < count
    reflectance = albedo[:, scattered_met].sum(axis=1, dtype=np.float64) / count
    mean = light[:, :count].mean(axis=1, dtype=np.float64) / (1 - np.minimum(reflectance, 0.85))
    light[:, met] += albedo * mean.astype(np.float32)[:, None]
    glow = world.emission[:, material] * (met >= count)  # lamps are lights already: seen in mirrors only
    light[:, met] += glow
    return light[:, :count], light[:, count:]


@cache
def _filter(height: int, width: int) -> tuple[Any, Any, list[Floats]]:
    """Denoiser for one size: device, filter, and its colour, albedo, normal and output images [H, W, 3]."""
    oidn = _library("pyoidn")
    device = oidn.Device()
    device.set_int("numThreads", 1)  # many processes draw side by side, each on its own core
    device.set_bool("setAffinity", False)
    device.commit()
    images = [np.zeros((height, width, 3), dtype=np.float32) for _ in range(4)]
    smoother = oidn.Filter(device, oidn.OIDN_FILTER_TYPE_RT)
    names = (oidn.OIDN_IMAGE_COLOR, oidn.OIDN_IMAGE_ALBEDO, oidn.OIDN_IMAGE_NORMAL, oidn.OIDN_IMAGE_OUTPUT)
    for name, image in zip(names, images, strict=True):
        smoother.set_image(name, image, oidn.OIDN_FORMAT_FLOAT3)
    smoother.set_bool("hdr", True)
    smoother.set_quality(oidn.OIDN_QUALITY_FAST)
    smoother.commit()
    return device, smoother, images


# A process that forks leaves the child a device without its thread: the child makes its own.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_filter.cache_clear)


def _denoise(colour: Floats, albedo: Floats, normal: Floats) -> Floats:
    """Radiance without the noise of few samples [H, W, 3]."""
    if not colour.any():
        return colour  # the denoiser scales by the mean brightness, and there is none
    _, smoother, images = _filter(*colour.shape[:2])
    for image, values in zip(images[:3], (colour, albedo, normal), strict=True):
        image[:] = values
    smoother.execute()
    return images[3].copy()


def _develop(radiance: Floats, view: View, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """What the camera makes of radiance [H, W, 3]: exposure, white balance, blur, tone curve, noise, 8 bit."""
    luminance = _dot(np.maximum(radiance, 0).transpose(2, 0, 1), _LUMINANCE[:, None, None])
    light = luminance[luminance > 1e-4 * luminance.mean()]  # the denoiser leaves traces where there is no light
    if len(light) == 0:
        return np.zeros(radiance.shape, dtype=np.uint8)
    low, high = np.percentile(light, (2, 98))
    metered = np.exp(np.log(np.clip(light, low, high)).mean(dtype=np.float64))
    gain = np.array(view.white) * (_GREY * view.exposure / metered)
    linear = np.maximum(radiance, 0) * gain.astype(np.float32)
    if view.blur_px > 0:
        linear = _blur(np.minimum(linear, 4), view.blur_px)
    # Linear up to a knee, then a shoulder that never quite reaches white.
    knee = np.float32(0.45)
    above = np.maximum(linear - knee, 0) / (1 - knee)
    toned = np.minimum(linear, knee) + (1 - knee) * above / (1 + above)
    srgb = np.where(toned <= 0.0031308, 12.92 * toned, 1.055 * np.maximum(toned, 1e-6) ** np.float32(1 / 2.4) - 0.055)
    if view.noise > 0:
        grain = rng.standard_normal(srgb.shape, dtype=np.float32) * np.float32(view.noise)
        srgb = srgb + grain * (0.5 + 0.35 / (srgb + 0.2))  # 1 at mid grey, more in the dark
    return (np.clip(srgb, 0, 1) * 255 + np.float32(0.5)).astype(np.uint8)


def _blur(image: Floats, sigma: float) -> Floats:
    """Gaussian blur of [H, W, 3]; ``sigma`` in pixels."""
    radius = int(np.ceil(3 * sigma))
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    weights = (weights / weights.sum()).astype(np.float32)
    for axis in (0, 1):
        padding = [(radius, radius) if a == axis else (0, 0) for a in range(3)]
        padded = np.pad(image, padding, mode="edge")
        size = image.shape[axis]
        image = sum(
            (w * padded.take(range(k, k + size), axis=axis) for k, w in enumerate(weights)), np.zeros_like(image)
        )
    return image
