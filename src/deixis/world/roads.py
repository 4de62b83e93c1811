"""Roads and what is on and beside them, made from a seed.

Where something is along a road is told by ``s``, metres along its middle from the camera, and ``t``, metres to the
right of it. Roads are flat; ground is at z = -0.02, road at 0, pavement at 0.12.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from deixis.errors import UsageError
from deixis.world import nature, street, vehicles
from deixis.world.colours import albedo
from deixis.world.outdoors import Block, Design, Piece, Site, area, box, ellipsoid, pick, place, turn_z
from deixis.world.scene import Material, Scene, Sky, Vector, View

Make = Callable[[np.random.Generator], Design]

FAR = 150.0  # how far roads and what stands along them go [m]
GROUND, PAVEMENT = -0.02, 0.12  # heights [m]
MOST_PARTS = 1480
WHITE_PAINT = Material("paint", (0.62, 0.62, 0.6))


@dataclass(frozen=True)
class Profile:
    """How a kind of road looks. Lengths in metres; shares from 0 to 1; crowds in things per 100 m and side.

    Attributes:
        place: its name.
        lanes: of each direction.
        lane: width of one.
        median: width of what separates the directions.
        parking: width of the strip for parked cars on each side.
        pavement: width of each; 0 where there is none.
        setback: from pavement to buildings, least and most.
        buildings: ``house``, ``flats`` or empty.
        built: share of plots with a building.
        parked: share of parking places taken.
        traffic: mean distance between moving vehicles.
        people, trees, bushes: crowds.
        furniture: what stands on pavements or verges.
        enclosure: share of plots with fence, wall or hedge in front.
        bend: tightest radius.
    """

    place: str
    lanes: int = 1
    lane: float = 3.2
    median: float = 0.0
    parking: float = 0.0
    pavement: float = 0.0
    setback: tuple[float, float] = (3.0, 8.0)
    buildings: str = ""
    built: float = 0.9
    parked: float = 0.0
    traffic: float = 30.0
    people: float = 0.0
    trees: float = 6.0
    bushes: float = 4.0
    furniture: tuple[Make, ...] = ()
    enclosure: float = 0.0
    bend: float = 200.0


TOWN = (street.litter_bin, street.bench, street.bollard, street.sign, street.mailbox, street.hydrant, street.litter_bin)
PROFILES = (
    Profile(
        "city street",
        1,
        3.2,
        0.0,
        2.2,
        3.4,
        (0.3, 0.8),
        "flats",
        0.96,
        0.7,
        20,
        14,
        4,
        0,
        (*TOWN, vehicles.bicycle, vehicles.motorcycle, vehicles.bicycle),
        0.0,
        400,
    ),
    Profile("city street", 2, 3.2, 0.0, 0.0, 3.8, (0.5, 3.0), "flats", 0.9, 0.0, 18, 12, 5, 1, TOWN, 0.0, 400),
    Profile(
        "village street",
        1,
        2.9,
        0.0,
        0.0,
        1.6,
        (0.5, 4.0),
        "house",
        0.85,
        0.0,
        35,
        6,
        4,
        5,
        (street.sign, street.bench, street.litter_bin, street.mailbox, street.pole, vehicles.bicycle),
        0.6,
        150,
    ),
    Profile(
        "suburb",
        1,
        3.0,
        0.0,
        2.1,
        2.0,
        (4.0, 8.0),
        "house",
        0.95,
        0.45,
        45,
        5,
        5,
        6,
        (street.litter_bin, street.mailbox, street.hydrant, street.sign, street.pole, street.litter_bin),
        0.75,
        200,
    ),
    Profile(
        "country road",
        1,
        2.9,
        0.0,
        0.0,
        0.0,
        (8.0, 16.0),
        "house",
        0.12,
        0.0,
        45,
        0.8,
        8,
        6,
        (street.sign, street.pole, street.pole),
        0.35,
        120,
    ),
    Profile(
        "motorway", 2, 3.6, 3.0, 2.2, 0.0, (8.0, 16.0), "", 0.0, 0.0, 24, 0, 6, 5, (street.board, street.sign), 0, 450
    ),
    Profile(
        "crossroads",
        1,
        3.3,
        0.0,
        2.1,
        3.0,
        (0.5, 3.0),
        "flats",
        0.92,
        0.5,
        20,
        10,
        4,
        1,
        (*TOWN, vehicles.bicycle),
        0.0,
        math.inf,
    ),
    Profile("car park", 1, 3.3, 0.0, 0.0, 0.0, (0.0, 0.0), "", 0.0, 0.65, 30, 5, 0, 0, (), 0.0, math.inf),
)
SHARES = (0.18, 0.1, 0.16, 0.2, 0.12, 0.09, 0.1, 0.05)


@dataclass(frozen=True)
class Path:
    """The middle of a road: straight, then from ``start`` [m] on an arc of curvature ``bend`` [1/m], left positive."""

    start: float
    bend: float

    def at(self, s: float, t: float) -> tuple[float, float, float]:
        """x, y [m] and heading [deg] of a point beside the road; heading 0 is +y, left positive."""
        if self.bend == 0 or s <= self.start:
            return t, s, 0.0
        angle = (s - self.start) * self.bend
        c, w = math.cos(angle), math.sin(angle)
        return -(1 - c) / self.bend + t * c, self.start + w / self.bend + t * w, math.degrees(angle)


@dataclass
class Road:
    """A road under construction."""

    rng: np.random.Generator
    profile: Profile
    path: Path
    drive: int  # 1: traffic keeps to the right; -1: to the left
    view: View
    heading_deg: float  # of the camera
    site: Site = field(default_factory=Site)
    surfaces: dict[str, int] = field(default_factory=dict)  # name to id; pavements are left and right
    cross: float = math.inf  # where another road crosses
    zebra: float = math.inf  # where people cross

    @property
    def edge(self) -> float:
        """From the middle to the kerb [m]."""
        p = self.profile
        return p.median / 2 + p.lanes * p.lane + p.parking

    @property
    def back(self) -> float:
        """From the middle to the far side of the pavement [m]."""
        return self.edge + (self.profile.pavement + 0.15 if self.profile.pavement else 0.0)

    def lane(self, index: int, direction: int) -> float:
        """Where the middle of a lane is; ``direction`` 1 is away from the camera [m]."""
        p = self.profile
        return self.drive * direction * (p.median / 2 + (index + 0.5) * p.lane)

    def surface(self, s: float, t: float) -> tuple[str, float]:
        """Name and height [m] of what one stands on."""
        if abs(t) <= self.edge or (abs(s - self.cross) <= self.half_cross and abs(t) < 70):
            return "road", 0.0
        beside = abs(t) <= self.back or abs(s - self.cross) <= self.half_cross + self.profile.pavement
        if self.profile.pavement and beside:
            return "pavement", PAVEMENT
        return "ground", GROUND

    @property
    def half_cross(self) -> float:
        """Half the width of the road that crosses [m]."""
        return self.profile.lane

    def seen(self, x: float, y: float, reach: float) -> bool:
        """Whether something so large could be in the picture or cast a shadow into it."""
        dx, dy = x - self.view.position[0], y - self.view.position[1]
        distance = math.hypot(dx, dy)
        if distance < reach + 8:
            return True
        off = abs((math.degrees(math.atan2(-dx, dy)) - self.heading_deg + 180) % 360 - 180)
        half = math.degrees(math.atan2(self.view.width / 2, self.view.fx))
        return off - math.degrees(math.asin(min(1.0, reach / distance))) < half + 6

    def sees(self, s: float, t: float, reach: float) -> bool:
        """Likewise for a place beside the road: whether it is worth thinking of what stands there."""
        x, y, _ = self.path.at(s, t)
        return self.seen(x, y, reach)

    def stand(self, design: Design, s: float, t: float, turn: float = 0.0, gap: float = 0.15, on: str = "") -> int:
        """Place a thing beside or on the road where it is free.

        Args:
            design: the thing.
            s: where along the road [m].
            t: where to its right [m].
            turn: 0 faces the camera, 180 faces away from it, -90 faces left [deg].
            gap: to others [m].
            on: surface it must stand on; empty is any.

        Returns:
            Its id, or 0 where there is no room or it could not be seen.
        """
        name, z = self.surface(s, t)
        if on and name != on:
            return 0
        under = f"{'right' if t > 0 else 'left'} pavement" if name == "pavement" else name
        x, y, heading = self.path.at(s, t)
        bounds = design.bounds
        size = [h - low for low, h in zip(bounds.low, bounds.high, strict=True)]
        distance = math.hypot(x - self.view.position[0], y - self.view.position[1])
        reach = math.hypot(size[0], size[1]) / 2
        least = 1.5 * max(0.0, distance - reach) / min(max(self.view.fx, 120.0), 200.0)  # about a pixel
        if not self.seen(x, y, max(reach, 0.7 * size[2])) or not any(area(p) > least * least for p in design.pieces):
            return 0
        if len(self.site.parts) + len(design.pieces) > MOST_PARTS:
            return 0
        if not self.site.claim(design.blocks or (bounds,), (x, y, z), heading + turn, gap):
            return 0
        return place(self.site, design, (x, y, z), heading + turn, self.surfaces[under], "on", least)

    def strip(
        self, t0: float, t1: float, spans: Sequence[tuple[float, float]], top: float, deep: float, m: Material
    ) -> list[Piece]:
        """Boxes that follow the road between two lateral positions."""
        pieces = []
        for begin, end in spans:
            cuts = [begin, *(c for c in np.arange(self.path.start, end, 10.0).tolist() if c > begin), end]
            if self.path.bend == 0:
                cuts = [begin, end]
            for a, b in pairwise(cuts):
                x, y, heading = self.path.at((a + b) / 2, (t0 + t1) / 2)
                near, far = self.path.at(a, t0), self.path.at(b, t0)
                other, last = self.path.at(a, t1), self.path.at(b, t1)
                long = max(math.dist(near[:2], far[:2]), math.dist(other[:2], last[:2]))
                pieces.append(box((x, y, top - deep / 2), (t1 - t0, long, deep), m, turn_z(heading)))
        return pieces

    def structure(self, name: str, pieces: Sequence[Piece], colour: str = "", material: str = "", on: int = 0) -> int:
        """Place something flat or fixed, given in world coordinates."""
        if not pieces:
            return 0
        return place(self.site, Design(name, tuple(pieces), colour, material), (0, 0, 0), 0, on, "structure")


def make_road(seed: int, width: int, height: int) -> Scene:
    """A road with all that is on and beside it, seen by a driver or somebody on foot.

    Args:
        seed: decides everything.
        width: of the picture [px].
        height: of the picture [px].

    Returns:
        The scene; its view has square pixels and a horizontal field of view of 45 to 90 degrees.

    Raises:
        UsageError: a picture without pixels.
    """
    if width < 1 or height < 1:
        raise UsageError(f"{width} x {height}", "a picture needs pixels", "give a width and a height of at least 1")
    rng = np.random.default_rng((seed, 77))
    profile = PROFILES[int(rng.choice(len(PROFILES), p=SHARES))]
    profile = replace(profile, lane=profile.lane * float(rng.uniform(0.95, 1.1)))
    if profile.place == "motorway" and rng.random() < 0.4:
        profile = replace(profile, lanes=3)
    bent = math.isfinite(profile.bend) and rng.random() < 0.6
    bend = float(pick(rng, (-1, 1)) / (profile.bend * rng.uniform(1, 2.5))) if bent else 0.0
    path = Path(float(rng.uniform(5, 40)), bend)
    drive = 1 if rng.random() < 0.7 else -1
    road = Road(rng, profile, path, drive, _level_view(width, height), 0.0)
    _look(road)
    sky, weather = make_sky(rng)
    if profile.place == "crossroads":
        road.cross = float(rng.uniform(14, 40))
        road.zebra = road.cross - road.half_cross - 3.2
    elif profile.pavement and rng.random() < 0.4:
        road.zebra = float(rng.uniform(9, 45))
    if profile.place == "car park":
        _car_park(road)
    else:
        _surfaces(road)
        _traffic(road)
        _parked(road)
        _people(road, 0.5)
        _beside(road)
        _people(road, 0.5)
    _hills(road)
    site = road.site
    return Scene(
        seed,
        "road",
        profile.place,
        tuple(site.things),
        tuple(site.parts),
        tuple(site.materials),
        (),
        sky,
        road.view,
        weather,
    )


def _level_view(width: int, height: int) -> View:
    """A view that :func:`_look` then aims."""
    return View((0.0, 0.0, 1.5), ((1, 0, 0), (0, 0, 1), (0, -1, 0)), 1.0, 1.0, width / 2, height / 2, width, height)


def _look(road: Road) -> None:
    """Put the camera into a lane or on a pavement, aim it, and keep its surroundings free."""
    rng, p = road.rng, road.profile
    width, height = road.view.width, road.view.height
    fov = math.radians(45 + 45 * float(rng.beta(0.9, 2.5)))
    focal = width / 2 / math.tan(fov / 2)
    pitch, roll = -6 * float(rng.random()) ** 3, float(np.clip(rng.normal(0, 1), -3, 3))
    if rng.random() < 0.8 or p.place == "motorway":
        t = road.lane(int(rng.integers(p.lanes)), 1) + float(rng.normal(0, 0.2))
        z = float(rng.uniform(1.35, 1.9))
        yaw = float(np.clip(rng.normal(0, 3), -8, 8))
        room = Block((-1.0, -2.5, 0.0), (1.0, 3.5, 2.6))
    else:
        side = pick(rng, (-1, 1))
        t = side * (road.edge + (0.6 * p.pavement if p.pavement else 1.2))
        if p.place == "car park":
            t = side * float(rng.uniform(0.5, 2.5))
        z = float(rng.uniform(1.5, 1.7)) + (PAVEMENT if p.pavement else 0.0)
        yaw = side * float(rng.uniform(0, 75))  # on the right one looks to the left
        room = Block((-1.2, -1.0, 0.0), (1.2, 3.0, 2.6))
    noise, blur = float(rng.uniform(0, 0.01)), float(rng.uniform(0.2, 0.6))
    exposure = float(np.exp(rng.normal(0, 0.2)))
    white = tuple(float(v) for v in np.exp(rng.normal(0, 0.05, 3)))
    road.heading_deg = yaw
    road.view = View(
        (t, 0.0, z),
        aim(yaw, pitch, roll),
        focal,
        focal,
        width / 2,
        height / 2,
        width,
        height,
        exposure,
        (white[0], white[1], white[2]),
        noise,
        blur,
    )
    road.site.claim((room,), (t, 0.0, 0.0), yaw, force=True)


def aim(yaw_deg: float, pitch_deg: float, roll_deg: float) -> tuple[Vector, Vector, Vector]:
    """Camera to world: yaw to the left, pitch up and roll to the right are positive; zero looks along +y [deg]."""
    yaw, pitch, roll = np.radians([yaw_deg, pitch_deg, roll_deg])
    forward = np.array([-np.sin(yaw) * np.cos(pitch), np.cos(yaw) * np.cos(pitch), np.sin(pitch)])
    right = np.array([np.cos(yaw), np.sin(yaw), 0.0])
    down = np.cross(forward, right)
    x = np.cos(roll) * right + np.sin(roll) * down
    y = np.cos(roll) * down - np.sin(roll) * right
    a, b, c = np.stack([x, y, forward], axis=1).tolist()
    return (a[0], a[1], a[2]), (b[0], b[1], b[2]), (c[0], c[1], c[2])


def make_sky(rng: np.random.Generator) -> tuple[Sky, str]:
    """Sky, sun and the word for the weather. Radiance is relative; the renderer meters."""
    weather = pick(rng, ("sunny", "sunny", "sunny", "cloudy", "cloudy", "hazy", "overcast", "overcast", "evening"))
    low, high = (4, 14) if weather == "evening" else (18, 65)
    elevation, azimuth = math.radians(float(rng.uniform(low, high))), float(rng.uniform(0, 2 * math.pi))
    sun_direction = (
        math.cos(elevation) * math.sin(azimuth),
        math.cos(elevation) * math.cos(azimuth),
        math.sin(elevation),
    )
    looks: dict[str, tuple[Vector, float, Vector, Vector, tuple[float, float]]] = {
        # sun, its radius, zenith, horizon, clouds
        "sunny": ((8.2, 7.7, 6.8), 0.4, (0.22, 0.38, 0.78), (0.72, 0.85, 1.0), (0.0, 0.3)),
        "cloudy": ((6.0, 5.7, 5.2), 0.6, (0.30, 0.45, 0.78), (0.80, 0.88, 0.98), (0.4, 0.75)),
        "hazy": ((3.4, 3.2, 2.8), 2.0, (0.55, 0.64, 0.78), (0.95, 0.96, 0.95), (0.0, 0.3)),
        "overcast": ((0.0, 0.0, 0.0), 0.5, (0.85, 0.88, 0.93), (0.62, 0.65, 0.68), (1.0, 1.0)),
        "evening": ((3.2, 2.0, 0.95), 0.6, (0.16, 0.24, 0.46), (0.85, 0.62, 0.42), (0.0, 0.5)),
    }
    sun, angle, zenith, horizon, clouds = looks[weather]
    power = float(np.exp(rng.normal(0, 0.1)))
    sky = Sky(
        sun_direction,
        (sun[0] * power, sun[1] * power, sun[2] * power),
        angle,
        zenith,
        horizon,
        float(rng.uniform(*clouds)),
    )
    return sky, weather


def asphalt(rng: np.random.Generator) -> Material:
    """Dark when new, pale when old."""
    v = float(rng.uniform(0.06, 0.17))
    return Material("asphalt", (v, v, 1.02 * v), "speckle", (0.75 * v, 0.75 * v, 0.75 * v), 0.06)


def turf(rng: np.random.Generator, colour: str = "green") -> Material:
    """Grass or crops."""
    r, g, b = albedo(colour, rng)
    if colour == "green":
        r, g, b = 1.5 * r + 0.035, 0.8 * g, 0.8 * b  # grass is yellower than paint of that name
    return Material("grass" if colour == "green" else "", (r, g, b), "noise", (0.7 * r, 0.75 * g, 0.7 * b), 0.6)


def _surfaces(road: Road) -> None:
    """Ground, road, pavements, kerbs and what is painted on the road."""
    rng, p = road.rng, road.profile
    town = p.buildings == "flats"
    base = box(
        (0, 120, GROUND - 0.1),
        (900, 700, 0.2),
        Material("concrete", (0.2, 0.195, 0.19), "noise", (0.16, 0.155, 0.15), 3.0) if town else turf(rng),
    )
    road.surfaces["ground"] = road.structure("ground" if town else "grass", [base], "grey" if town else "green")
    whole = [(-45.0, FAR)]
    edge, back, cross, half = road.edge, road.back, road.cross, road.half_cross
    tar = asphalt(rng)
    if p.median:
        lanes = [
            *road.strip(-edge, -p.median / 2, whole, 0, 0.3, tar),
            *road.strip(p.median / 2, edge, whole, 0, 0.3, tar),
        ]
    else:
        lanes = road.strip(-edge, edge, whole, 0, 0.3, tar)
    crosses = math.isfinite(cross)
    if crosses:
        lanes += [box((s * (edge + 35), cross, -0.15), (70, 2 * half, 0.3), tar) for s in (-1, 1)]
    road.surfaces["road"] = road.structure("road", lanes, "grey", "asphalt")
    if p.pavement:
        slab = float(rng.uniform(0.2, 0.38))
        flags = Material(
            "stone", (slab, 0.98 * slab, 0.94 * slab), "tiles", (0.7 * slab, 0.68 * slab, 0.65 * slab), 0.6
        )
        stone = Material("stone", (1.15 * slab, 1.13 * slab, 1.1 * slab))
        spans = [(-45.0, cross - half), (cross + half, FAR)] if crosses else whole
        for side, name in ((-1, "left"), (1, "right")):
            inner, outer = sorted((side * (edge + 0.15), side * back))
            pieces = road.strip(inner, outer, spans, PAVEMENT, 0.3, flags)
            if crosses:
                pieces += [
                    box(
                        (side * (back + 33), cross + e * (half + p.pavement / 2), PAVEMENT - 0.15),
                        (66, p.pavement, 0.3),
                        flags,
                    )
                    for e in (-1, 1)
                ]
            number = road.structure("pavement", pieces, "grey", "stone")
            road.surfaces[f"{name} pavement"] = number
            inner, outer = sorted((side * edge, side * (edge + 0.15)))
            road.structure("kerb", road.strip(inner, outer, spans, PAVEMENT + 0.01, 0.3, stone), "grey", "stone")
    _markings(road)


def _markings(road: Road) -> None:
    """Lines between lanes and along edges, and a crossing."""
    p, edge = road.profile, road.edge
    top, deep = 0.008, 0.02
    pieces: list[Piece] = []
    clear = [c for c in (road.zebra, road.cross) if math.isfinite(c)]

    def line(t: float, length: float, period: float, wide: float = 0.12) -> None:
        for s in np.arange(-9.0, 110.0, period).tolist():
            if all(abs(s + length / 2 - c) > road.half_cross + 3 + length / 2 for c in clear):
                pieces.extend(road.strip(t - wide / 2, t + wide / 2, [(s, s + length)], top, deep, WHITE_PAINT))

    if not p.median and (p.place != "suburb" or road.rng.random() < 0.5):
        line(0.0, 3.0, 9.0)
    for index in range(1, p.lanes):
        for direction in (-1, 1):
            line(direction * (p.median / 2 + index * p.lane), 3.0 if p.median else 2.0, 12.0 if p.median else 8.0)
    if p.median or (p.place == "country road" and road.rng.random() < 0.6):
        outer = edge - p.parking - 0.2 if p.median else edge - 0.25
        for t in (outer, p.median / 2 + 0.25) if p.median else (outer,):
            for side in (-1, 1):
                pieces += road.strip(side * t - 0.08, side * t + 0.08, [(-9.0, 120.0)], top, deep, WHITE_PAINT)
    if math.isfinite(road.cross):
        t = road.lane(0, 1)
        pieces.append(box((t, road.zebra - 2.6, 0), (p.lane - 0.3, 0.4, 2 * top), WHITE_PAINT))
    road.structure("lane marking", pieces, "white", "paint", road.surfaces["road"])
    if math.isfinite(road.zebra):
        count = int(2 * edge / 1.0)
        bars = []
        for i in range(count):
            t = (i + 0.5 - count / 2) * 2 * edge / count
            x, y, heading = road.path.at(road.zebra, t)
            bars.append(box((x, y, 0.0), (0.5, 2.8, 2 * top), WHITE_PAINT, turn_z(heading)))
        road.structure("crossing", bars, "white", "paint", road.surfaces["road"])


def any_vehicle(rng: np.random.Generator, motorway: bool = False) -> Design:
    """What drives along: mostly cars."""
    u = float(rng.random())
    if u < (0.3 if motorway else 0.08):
        return vehicles.truck(rng)
    if u < (0.34 if motorway else 0.14):
        return vehicles.bus(rng)
    if u < (0.44 if motorway else 0.25):
        return vehicles.van(rng)
    if u < 0.3 and not motorway:
        return vehicles.taxi(rng)
    return vehicles.car(rng)


def _traffic(road: Road) -> None:
    """Vehicles that drive in their lanes, both ways, and on the road that crosses."""
    rng, p = road.rng, road.profile
    if math.isfinite(road.cross):
        for direction in (-1, 1):
            for side in (-1, 1):
                if rng.random() < 0.6:
                    s = road.cross - road.drive * direction * p.lane / 2
                    road.stand(
                        any_vehicle(rng), s, side * float(rng.uniform(road.back + 4, 30)), 180.0 - 90 * direction
                    )
    for index in range(p.lanes):
        for direction in (1, -1):
            s = float(rng.uniform(7, 14 + p.traffic)) if direction == 1 else float(rng.uniform(-2, p.traffic))
            while s < 120:
                clear = min(abs(s - road.zebra), abs(s - road.cross)) > 6
                if clear and road.sees(s, road.lane(index, direction), 7.0):
                    t = road.lane(index, direction) + float(rng.normal(0, 0.12))
                    turn = (180.0 if direction == 1 else 0.0) + float(rng.normal(0, 0.8))
                    road.stand(any_vehicle(rng, bool(p.median)), s, t, turn, 1.0)
                s += 8 + float(rng.exponential(p.traffic))


def _parked(road: Road) -> None:
    """Cars at the kerb."""
    rng, p = road.rng, road.profile
    if not p.parked:
        return
    for s in np.arange(-6.0, 110.0, 6.1).tolist():
        for side in (-1, 1):
            near = min(abs(s - road.zebra) - 5, abs(s - road.cross) - road.half_cross - p.pavement - 4)
            if rng.random() > p.parked or near < 0 or not road.sees(s, side * road.edge, 4.0):
                continue
            away = side == road.drive
            if rng.random() < 0.08:
                away = not away
            u = rng.random()
            design = vehicles.van(rng) if u < 0.12 else vehicles.motorcycle(rng) if u < 0.17 else vehicles.car(rng)
            t = side * (road.edge - p.parking / 2 + float(rng.normal(0, 0.06)))
            road.stand(design, s + float(rng.normal(0, 0.25)), t, (180 if away else 0) + float(rng.normal(0, 1.2)))


def _people(road: Road, share: float) -> None:
    """People on pavements and crossings, some with a dog."""
    rng, p = road.rng, road.profile
    if math.isfinite(road.zebra):
        for _ in range(int(rng.integers(0, 4))):
            s, t = road.zebra + float(rng.uniform(-1, 1)), float(rng.uniform(-1, 1)) * (road.edge - 0.4)
            road.stand(nature.person(rng), s, t, pick(rng, (-90, 90)) + float(rng.normal(0, 8)))
    for side in (-1, 1):
        for _ in range(int(rng.poisson(p.people * share))):
            s = float(rng.gamma(1.6, 18)) - (12 if abs(road.heading_deg) > 20 else -2)
            if p.pavement:
                t = side * float(rng.uniform(road.edge + 0.5, road.back - 0.3))
            else:
                t = side * float(rng.uniform(road.edge + 0.6, road.edge + 2.0))
            if not road.sees(s, t, 1.5):
                continue
            turn = pick(rng, (0, 180)) + float(rng.normal(0, 15)) if rng.random() < 0.8 else float(rng.uniform(0, 360))
            if road.stand(nature.person(rng), s, t, turn, 0.2) and rng.random() < 0.1:
                road.stand(nature.dog(rng), s - 0.3, t + 0.7, turn, 0.1)


def _beside(road: Road) -> None:
    """Buildings, gardens, furniture and trees on both sides."""
    rng, p = road.rng, road.profile
    if math.isfinite(road.cross):
        _corners(road)
    for side in (-1, 1):
        _rows(road, side)
    for side in (-1, 1):
        _plots(road, side)
    first = -20.0 if abs(road.heading_deg) > 20 else -4.0
    for side in (-1, 1):
        for _ in range(int(rng.poisson(p.trees * (FAR - first) / 100))):
            s, t = (
                float(rng.uniform(first, FAR)),
                road.back + 1.2 + float(rng.exponential(12 if not p.buildings or p.built < 0.5 else 3)),
            )
            if not road.sees(s, side * t, 8.0):
                continue
            road.stand(
                nature.tree(rng, float(rng.uniform(3, 13))), s, side * t, float(rng.uniform(0, 360)), 0.3, "ground"
            )
        for _ in range(int(rng.poisson(p.bushes * (FAR - first) / 100))):
            s, t = float(rng.uniform(first, FAR)), road.back + 0.8 + float(rng.exponential(5))
            road.stand(nature.bush(rng), s, side * t, float(rng.uniform(0, 360)), 0.1, "ground")
    if rng.random() < 0.2 and p.place != "motorway":
        _works(road)


def _corners(road: Road) -> None:
    """Traffic lights, and free ground where the other road goes."""
    p = road.profile
    ahead = road.zebra - 2.2
    road.stand(street.traffic_light(road.rng), ahead, road.drive * (road.edge + 0.5))
    road.stand(street.traffic_light(road.rng), road.cross + road.half_cross + 1.2, -road.drive * (road.edge + 0.5))
    road.stand(street.traffic_light(road.rng), road.cross + road.half_cross + 1.2, road.drive * (road.edge + 0.5), 180)
    for side in (-1, 1):
        half = road.half_cross + p.pavement
        low, high = sorted((side * (road.back + 0.2), side * 72))
        road.site.claim((Block((low, -half, 0), (high, half, 12)),), (0, road.cross, 0), 0, force=True)


def _rows(road: Road, side: int) -> None:
    """What stands in a row along the road: lamps, street trees, rails, furniture."""
    rng, p = road.rng, road.profile
    verge = road.edge + (0.55 if p.pavement else 1.2)
    face = -90.0 * side
    first = -18.0 if abs(road.heading_deg) > 20 else -2.0
    if p.place == "motorway":
        for s in np.arange(-6.0, FAR, 12.0).tolist():
            road.stand(street.guard_rail(rng, 11.9), s, side * (road.edge + 0.7), face, 0.0)
            road.stand(street.guard_rail(rng, 11.9), s, side * 0.5, -face, 0.0)
        verge += 1.5
    elif p.place == "country road" and rng.random() < 0.25:
        begin = float(rng.uniform(10, 60))
        for i in range(4):
            road.stand(street.guard_rail(rng, 7.9), begin + 8 * i, side * (road.edge + 0.6), face, 0.0)
    if p.place != "country road" and rng.random() < 0.8:
        state = int(rng.integers(1 << 30))
        for s in np.arange(first + float(rng.uniform(0, 20)), FAR, float(rng.uniform(22, 34))).tolist():
            # The same generator state for each: lamps of one road are alike.
            road.stand(street.lamp(np.random.default_rng(state)), s, side * verge, face, 0.1)
    if p.pavement > 1.9 and rng.random() < 0.5:
        high = float(rng.uniform(4.5, 8))
        for s in np.arange(first + float(rng.uniform(0, 9)), FAR, float(rng.uniform(9, 15))).tolist():
            tall = high * float(rng.uniform(0.85, 1.15))
            if not road.sees(s, side * verge, 6.0):
                continue
            road.stand(nature.tree(rng, tall), s, side * (verge + 0.2), float(rng.uniform(0, 360)), 0.05)
    if p.pavement > 2.5 and rng.random() < 0.6:
        road.stand(street.bus_stop(rng), float(rng.uniform(6, 50)), side * (road.edge + 1.6), face, 0.1, "pavement")
    elif p.pavement and rng.random() < 0.25:
        begin = float(rng.uniform(0, 30))
        for i in range(6):
            road.stand(street.bollard(rng), begin + 1.6 * i, side * (road.edge + 0.4), 0, 0.1, "pavement")
    if not p.furniture:
        return
    s = first
    while s < 110:
        s += float(rng.exponential(5.5 if p.pavement > 2.5 else 9.0 if p.pavement else 18.0))
        if not road.sees(s, side * verge, 3.0):
            continue
        design = pick(rng, p.furniture)(rng)
        front = p.pavement == 0 or rng.random() < 0.5 or design.name in ("sign", "pole")
        t = verge + (0.6 if p.median else 0) if front else road.back - 0.45
        turn = face
        if design.name == "sign":
            turn = (0.0 if side == road.drive else 180.0) + float(rng.normal(0, 6))
            t += 1.5 if design.build == "large" else 0.0
        elif design.name in ("bicycle", "motorcycle"):
            turn = face + float(pick(rng, (0, 90, 180))) + float(rng.normal(0, 8))
        elif design.name in ("mailbox", "bench") and front and p.pavement:
            turn = -face
        road.stand(design, s, side * t, turn, 0.1, "pavement" if p.pavement else "")


def _plots(road: Road, side: int) -> None:
    """Plot by plot: a building and what encloses its garden."""
    rng, p = road.rng, road.profile
    face = -90.0 * side
    s = -25.0 if abs(road.heading_deg) > 20 else -8.0
    style = pick(rng, ("fence", "fence", "wall", "hedge"))
    while s < FAR:
        if p.buildings == "flats":
            wide, deep, gap = float(rng.uniform(9, 20)), float(rng.uniform(9, 13)), 0.02 if rng.random() < 0.75 else 3.0
        elif p.buildings == "house":
            wide, deep, gap = float(rng.uniform(6.5, 12)), float(rng.uniform(6.5, 9.5)), float(rng.uniform(2.5, 8))
        else:
            wide, deep, gap = 20.0, 8.0, 4.0
        setback = float(rng.uniform(*p.setback))
        begin, end = road.cross - road.half_cross - p.pavement, road.cross + road.half_cross + p.pavement
        if s < end and s + wide + gap > begin:  # up to the corner, then on behind it
            if begin - s < 8.5:
                s = end + 0.3
            else:
                wide, gap = begin - s - 0.3, 0.3
        middle = s + (wide + gap) / 2
        line = side * (road.back + 0.25)
        if not road.sees(middle, line, (wide + gap) / 2 + deep):
            s += wide + gap
            continue
        if rng.random() < p.built:
            if p.buildings == "flats":
                design = street.flats(rng, wide, deep, rng.random() < 0.6)
            else:
                design = street.house(rng, wide, deep)
            road.stand(design, middle, side * (road.back + setback + 0.3 + deep / 2), face, 0.0)
            if setback > 3.6 and rng.random() < 0.25:
                road.stand(
                    vehicles.car(rng), s + 0.9, side * (road.back + 3.0), face + pick(rng, (0, 180)), 0.1, "ground"
                )
        elif p.place == "country road" or p.place == "motorway":
            _field(road, middle, side, wide + gap)
        if rng.random() < p.enclosure and setback > 1.2:
            _enclose(
                road,
                style if rng.random() < 0.6 else pick(rng, ("fence", "wall", "hedge")),
                s,
                s + wide + gap,
                line,
                face,
            )
        s += wide + gap


def _enclose(road: Road, style: str, begin: float, end: float, t: float, face: float) -> None:
    """A fence, wall or hedge along the road, with a gate's gap."""
    rng = road.rng
    gate = float(rng.uniform(begin + 2, max(begin + 2.1, end - 3)))
    shape = int(rng.integers(1 << 30))
    t += math.copysign(0.6, t) if not road.profile.pavement else 0.0
    t += math.copysign(1.5, t) if road.profile.place == "country road" else math.copysign(0.3, t)
    colour = pick(rng, ("brown", "white", "grey", "dark brown", "green", "black"))
    for a, b in ((begin, gate), (gate + 1.4, end)):
        cuts = np.linspace(a, b, max(2, math.ceil((b - a) / 6.0) + 1)).tolist()
        for low, high in pairwise(cuts):
            length, same = high - low - 0.02, np.random.default_rng(shape)
            if length < 0.8 or not road.sees((low + high) / 2, t, 4.0):
                continue
            if style == "fence":
                design = street.fence(same, length, colour, "planks" if colour in ("brown", "grey") else "rails")
            elif style == "wall":
                kinds = ("red", "beige", "white", "grey", "brown")
                design = street.wall(same, length, kinds[shape % 5], 0.8 + 0.1 * (shape % 9))
            else:
                design = nature.hedge(same, length, 0.8 + 0.1 * (shape % 11), "dark green" if shape % 2 else "green")
            road.stand(design, (low + high) / 2, t, face, 0.0, "ground")


def _field(road: Road, middle: float, side: int, long: float) -> None:
    """A field of grass, corn or bare earth beyond the verge."""
    rng = road.rng
    colour = pick(rng, ("green", "light green", "yellow", "brown", "dark green", "beige"))
    high = 0.05 if colour == "brown" else float(rng.uniform(0.1, 0.9))
    soil = turf(rng, colour)
    wide = float(rng.uniform(40, 80))
    x, y, heading = road.path.at(middle, side * (road.edge + 18 + wide / 2))
    block = Block((-wide / 2, -long / 2 + 0.2, 0), (wide / 2, long / 2 - 0.2, high))
    if (
        len(road.site.parts) < MOST_PARTS
        and road.seen(x, y, wide)
        and road.site.claim((block,), (x, y, 0), heading, 0.0)
    ):
        piece = box((0, 0, high / 2 - 0.05), (wide, long - 0.4, high + 0.1), soil)
        place(road.site, Design("field", (piece,), colour), (x, y, 0), heading, road.surfaces["ground"], "structure")


def _works(road: Road) -> None:
    """A row of traffic cones along the edge of the carriageway."""
    rng = road.rng
    side, begin = pick(rng, (-1, 1)), float(rng.uniform(4, 30))
    for i in range(int(rng.integers(3, 8))):
        road.stand(street.cone(rng), begin + 2.2 * i, side * (road.edge - road.profile.parking - 0.3), 0, 0.1)


def _car_park(road: Road) -> None:
    """Rows of parked cars on both sides of an aisle, lamps, and a shop at the end."""
    rng = road.rng
    turf_box = box((0, 120, GROUND - 0.1), (900, 700, 0.2), turf(rng))
    road.surfaces["ground"] = road.structure("grass", [turf_box], "green")
    end = float(rng.uniform(60, 95))
    tar = asphalt(rng)
    road.surfaces["road"] = road.structure(
        "road", [box((0, end / 2 - 15, -0.15), (52, end + 36, 0.3), tar)], "grey", "asphalt"
    )
    half, bay, deep = road.profile.lane, 2.6, 5.0
    road.profile = replace(road.profile, lane=26.0)  # everything within is road
    stop = end - 14
    bays = np.arange(-10.4, stop, bay).tolist()
    rows = [
        (side * (half + deep * (0.5 + row) + (2 * half + 0.9 if row == 2 else 0.9 * (row > 0))), side, row)
        for side in (-1, 1)
        for row in (0, 1, 2)
    ]
    lines = [
        box((t, s, 0), (deep if row < 2 else deep - 0.1, 0.1, 0.016), WHITE_PAINT)
        for t, _, row in rows
        for s in bays
        if s < (60 if row == 0 else 30)
    ]
    road.structure("lane marking", lines, "white", "paint", road.surfaces["road"])
    for side in (-1, 1):
        lamps = int(rng.integers(1 << 30))
        for s in np.arange(float(rng.uniform(4, 18)), stop, 20.0).tolist():
            t = side * (half + deep + 0.45)
            design = (
                street.lamp(np.random.default_rng(lamps))
                if rng.random() < 0.6
                else nature.tree(rng, float(rng.uniform(4, 6)))
            )
            road.stand(design, s, t, -90 * side, 0.0)
    for _ in range(int(rng.integers(2, 7))):
        road.stand(
            nature.person(rng),
            float(rng.uniform(3, 40)),
            float(rng.uniform(-half, half)),
            float(rng.uniform(0, 360)),
            0.3,
        )
    if rng.random() < 0.6:
        road.stand(any_vehicle(rng), float(rng.uniform(14, 40)), -road.drive * half / 2, 0, 0.3)
    road.stand(street.shed(rng, float(rng.uniform(30, 50)), 18.0), end + 10, float(rng.uniform(-8, 8)), 0, 0.0)
    for s in bays:
        for t, side, row in rows:
            taken = rng.random() < (road.profile.parked if row == 0 else 0.5)
            if taken and road.sees(s, t, 4.0):
                design = vehicles.van(rng) if rng.random() < 0.08 else vehicles.car(rng)
                nose = 90.0 if rng.random() < 0.3 else -90.0
                road.stand(
                    design, s + bay / 2, t + float(rng.normal(0, 0.15)), nose * side + float(rng.normal(0, 1.5)), 0.1
                )
    for s in np.arange(-5.0, end + 40, 11.0).tolist():
        for side in (-1, 1):
            road.stand(nature.tree(rng, float(rng.uniform(4, 11))), s, side * float(rng.uniform(29, 36)), 0, 0.2)


def _hills(road: Road) -> None:
    """Distant hills behind everything, on open places more often."""
    rng = road.rng
    if rng.random() < (0.35 if road.profile.buildings == "flats" else 0.65):
        for _ in range(int(rng.integers(2, 6))):
            colour = pick(rng, ("green", "dark green", "grey", "light blue"))
            r, g, b = albedo(colour, rng)
            haze = Material(
                "",
                (0.5 * r + 0.12, 0.5 * g + 0.16, 0.5 * b + 0.2),
                "noise",
                (0.4 * r + 0.1, 0.4 * g + 0.13, 0.4 * b + 0.16),
                40.0,
            )
            x, y = float(rng.uniform(-300, 300)), float(rng.uniform(260, 420))
            size = (float(rng.uniform(200, 420)), float(rng.uniform(80, 160)), float(rng.uniform(25, 100)))
            road.structure("hill", [ellipsoid((x, y, -2), size, haze, sides=20)], "", "", road.surfaces["ground"])
