"""Indoor scenes from a seed: kinds of rooms, their furnishing, and a camera as a person would hold it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from deixis.errors import UsageError
from deixis.world.clutter import CLUTTER
from deixis.world.furniture import FURNITURE, Fitted, counter, fitted, wall_cabinet
from deixis.world.pieces import MUTED, STRONG, WOODS, Piece, Style, between, chance, cloth, pick
from deixis.world.placing import Placed, Room, Wall
from deixis.world.scene import Scene
from deixis.world.structure import Plan, build
from deixis.world.viewpoint import take

_MAKERS = {**FURNITURE, **CLUTTER}
_SIZED = {
    "box",
    "vase",
    "plant",
    "tall plant",
    "picture",
    "basket",
    "bag",
    "ball",
    "rug",
    "mirror",
    "teddy bear",
    "book",
}
_ON_TABLE = (
    "book",
    "book stack",
    "cup",
    "cup",
    "bowl",
    "vase",
    "plant",
    "bottle",
    "paper",
    "small box",
    "laptop",
    "photo",
)
_ON_DESK = (
    "book stack",
    "books",
    "paper",
    "paper",
    "cup",
    "telephone",
    "small box",
    "bottle",
    "table lamp",
    "plant",
    "bag",
)
_ON_CABINET = (
    "vase",
    "plant",
    "photo",
    "table lamp",
    "books",
    "book stack",
    "box",
    "small box",
    "clock",
    "bowl",
    "basket",
)
_ON_COUNTER = (
    "kettle",
    "toaster",
    "microwave",
    "bottle",
    "bottle",
    "bowl",
    "cup",
    "pot",
    "small box",
    "plate",
    "plant",
)
_ON_SHELF = (
    "box",
    "small box",
    "basket",
    "book stack",
    "books",
    "vase",
    "plant",
    "folded towels",
    "teddy bear",
    "bottle",
)
_ON_FLOOR = ("box", "bag", "basket", "shoes", "clothes", "bin", "suitcase", "ball", "book stack", "toy car")
_TOYS = ("ball", "ball", "toy car", "toy car", "teddy bear", "teddy bear", "toy blocks", "toy blocks", "box", "book")


def _make(room: Room, name: str) -> Piece:
    """A new piece of a class; of some classes now and then a small or a large one."""
    piece = _MAKERS[name](room.rng, room.style)
    if name in _SIZED and (luck := room.rng.random()) < 0.24:
        return piece.scaled(0.68, "small") if luck < 0.12 else piece.scaled(1.4, "large")
    return piece


def _several(room: Room, names: Sequence[str], low: int, high: int) -> list[Piece]:
    return [_make(room, pick(room.rng, names)) for _ in range(int(room.rng.integers(low, high + 1)))]


def _strew(room: Room, names: Sequence[str], low: int, high: int) -> None:
    """Things on the floor, mostly near walls."""
    for piece in _several(room, names, low, high):
        if chance(room.rng, 0.6) and room.against(piece, gap=between(room.rng, 0.03, 0.3)):
            continue
        room.anywhere(piece, 4)


def _decorate(room: Room, names: Sequence[str], low: int, high: int) -> None:
    """Things on the walls, at eye level."""
    for piece in _several(room, names, low, high):
        middle = between(room.rng, 1.45, 1.7)
        room.hang(piece, max(1.0, middle - piece.bounds()[1][2] / 2), margin=0.08)


def _stand(room: Room, name: str, load: Sequence[str] = (), low: int = 0, high: int = 0) -> Placed | None:
    """A piece of furniture against some wall, with things on it."""
    placed = room.against(_make(room, name))
    if placed and load:
        room.load(placed, _several(room, load, low, high))
    return placed


def _in_front(
    room: Room, host: Placed, piece: Piece, gap: float, aside: float = 0.0, turn: float = math.pi
) -> Placed | None:
    """Stands a piece ``gap`` before the front of another [m], facing it unless ``turn`` [rad] says otherwise."""
    front = host.piece.bounds()[0][1]
    low, high = piece.bounds()
    reach = -low[1] if abs(turn) > 1.6 else high[1]
    x, y = host.world(aside, front - gap - reach)
    return room.stand(piece, x, y, host.yaw + turn)


def _beside(room: Room, host: Placed, piece: Piece, side: int, gap: float = 0.05) -> Placed | None:
    """Stands a piece at the same wall, to the left (-1) or right (1)."""
    if host.wall is None:
        return None
    low, high = piece.bounds()
    host_low, host_high = host.piece.bounds()
    at = host.along + (host_high[0] + gap - low[0] if side > 0 else host_low[0] - gap - high[0])
    return room.against(piece, host.wall, at)


def _seat(room: Room, host: Placed, chair: Piece, x: float, y: float, face: float) -> Placed | None:
    """A chair at a table: ``x``, ``y`` in its coordinates, turned roughly to ``face`` [deg], a little pushed under."""
    px, py = host.world(x, y)
    yaw = host.yaw + math.radians(face + between(room.rng, -12, 12))
    under = room.footprint(host.piece, host.x, host.y, host.yaw, 0.01)
    return room.stand(chair, px, py, yaw, next((r for r in room.taken if r == under), None))


def _dining(room: Room, host: Placed, chair: Piece, most: int) -> None:
    """Chairs around a table."""
    rng = room.rng
    (x0, y0, _), (x1, y1, _) = host.piece.bounds()
    reach = -chair.bounds()[0][1]
    long = x1 - x0
    spots = [(x, y0, 180.0) for x in ((0.0,) if long < 1.4 else (0.41 - long / 2, long / 2 - 0.41))]
    spots += [(x, y1, 0.0) for x, _, _ in spots]
    spots += [(x0, 0.0, 90.0), (x1, 0.0, -90.0)]
    order = rng.permutation(len(spots))
    count = 0
    for i in order:
        if count >= most:
            return
        x, y, face = spots[int(i)]
        between_legs = (x1 - x0 if face in (0.0, 180.0) else y1 - y0) > 2 * chair.bounds()[1][0] + 0.28
        out = reach + (between(rng, -0.18, 0.1) if between_legs else between(rng, 0.02, 0.2))
        seat = chair
        if chance(rng, 0.08):
            seat = _make(room, "chair")
        dx, dy = (0.0, math.copysign(out, y)) if face in (0.0, 180.0) else (math.copysign(out, x), 0.0)
        if _seat(room, host, seat, x + dx, y + dy, face):
            count += 1


def _work_place(room: Room, host: Placed | None, seat: str) -> None:
    """A screen and a chair at a desk, and things on it."""
    if host is None:
        return
    rng = room.rng
    room.onto(host, _make(room, "monitor" if chance(rng, 0.7) else "laptop"), 12, spot=(between(rng, -0.6, 0.6), 0.8))
    room.load(host, _several(room, _ON_DESK, 1, 6))
    chair = _make(room, seat)
    front = host.piece.bounds()[0][1]
    _seat(
        room,
        host,
        chair,
        host.piece.seat + between(rng, -0.04, 0.04),
        front + chair.bounds()[0][1] - between(rng, -0.1, 0.3),
        180,
    )


def _lamps(room: Room, name: str = "ceiling lamp") -> None:
    """A lamp in the middle, or a grid of panels."""
    if name == "ceiling lamp":
        room.put(
            _make(room, name),
            between(room.rng, -0.3, 0.3),
            between(room.rng, -0.3, 0.3),
            room.height,
            0,
            room.ceiling,
            "hanging",
        )
        return
    nx, ny = max(1, round(room.width / 2.4)), max(1, round(room.depth / 2.4))
    piece = _make(room, name)
    for i in range(nx):
        for j in range(ny):
            x, y = ((i + 0.5) / nx - 0.5) * room.width, ((j + 0.5) / ny - 0.5) * room.depth
            room.put(piece, x, y, room.height, 0, room.ceiling, "hanging")


def _bedroom(room: Room) -> None:
    rng = room.rng
    bed = room.against(_make(room, "bed"), tries=30)
    if bed:
        stand = _make(room, "night stand")
        for side in (-1, 1):
            if chance(rng, 0.8) and (placed := _beside(room, bed, stand, side)):
                room.load(placed, [_make(room, "table lamp")] if chance(rng, 0.7) else [])
                room.load(
                    placed, _several(room, ("book", "cup", "photo", "small box", "plant", "bottle", "clock"), 0, 3)
                )
        if chance(rng, 0.6):
            room.hang(_make(room, "picture"), between(rng, 1.35, 1.55), bed.wall, bed.along + between(rng, -0.3, 0.3))
        room.load(bed, _several(room, ("clothes", "book", "bag", "teddy bear", "pillow", "laptop"), 0, 2), 90)
        if chance(rng, 0.35):
            _in_front(room, bed, _make(room, "bench"), 0.08)
        if chance(rng, 0.5):
            x, y = bed.world(0, -0.9)
            room.stand(_make(room, "rug"), x, y, bed.yaw)
    if chance(rng, 0.75):
        _stand(room, "wardrobe", ("box", "suitcase", "basket"), 0, 3)
    if chance(rng, 0.7):
        dresser = _stand(room, "dresser", (*_ON_CABINET, "television"), 1, 5)
        if dresser and chance(rng, 0.6):
            room.hang(_make(room, "mirror"), dresser.piece.bounds()[1][2] + 0.2, dresser.wall, dresser.along)
    if chance(rng, 0.45):
        _work_place(room, _stand(room, "desk"), "chair" if chance(rng, 0.5) else "office chair")
    for name, share in (("bookshelf", 0.35), ("chair", 0.3), ("armchair", 0.25), ("floor lamp", 0.3), ("crib", 0.1)):
        if chance(rng, share):
            _stand(room, name, _ON_SHELF if name == "bookshelf" else ("clothes", "bag"), 0, 3)
    _decorate(room, ("picture", "picture", "poster", "mirror", "clock", "shelf"), 2, 5)
    _strew(room, (*_ON_FLOOR, "stool", "fan", "tall plant", "floor mat"), 2, 9)


def _living_room(room: Room) -> None:
    rng = room.rng
    sofa = room.against(_make(room, "sofa"), tries=30)
    table = None
    if sofa:
        if chance(rng, 0.7):
            x, y = sofa.world(0, -1.0)
            room.stand(_make(room, "rug").scaled(1.3, "large"), x, y, sofa.yaw)
        if chance(rng, 0.85):
            table = _in_front(
                room, sofa, _make(room, "coffee table"), between(rng, 0.3, 0.5), between(rng, -0.2, 0.2), 0.0
            )
        for side in (-1, 1):
            if chance(rng, 0.5):
                placed = _beside(
                    room, sofa, _make(room, pick(rng, ("side table", "floor lamp", "tall plant"))), side, 0.08
                )
                if placed:
                    room.load(placed, [_make(room, "table lamp"), *_several(room, ("book", "cup", "photo"), 0, 2)])
        if chance(rng, 0.7):
            room.hang(_make(room, "picture"), between(rng, 1.2, 1.5), sofa.wall, sofa.along + between(rng, -0.5, 0.5))
        opposite = room.walls[(room.walls.index(sofa.wall) + 2) % 4] if sofa.wall else None
        stand = room.against(_make(room, "tv stand"), opposite, -sofa.along if chance(rng, 0.5) else None)
        if stand:
            room.onto(stand, _make(room, "television"), 3, spot=(0.0, 0.6))
            room.load(stand, _several(room, _ON_CABINET, 0, 3))
        seat = _make(room, "armchair")
        for side in (-1, 1):
            if chance(rng, 0.55):
                turn = side * math.radians(-90 + between(rng, -25, 25))
                x, y = sofa.world(
                    side * (sofa.piece.bounds()[1][0] + between(rng, 0.25, 0.6)), between(rng, -1.5, -0.9)
                )
                room.stand(seat if chance(rng, 0.6) else _make(room, "armchair"), x, y, sofa.yaw + turn)
    if table:
        room.load(table, _several(room, _ON_TABLE, 1, 6))
    if room.width * room.depth > 20 and chance(rng, 0.6):
        _dining_set(room)
    for name, share in (("bookshelf", 0.6), ("cabinet", 0.5), ("armchair", 0.25), ("floor lamp", 0.4), ("piano", 0.12)):
        if chance(rng, share):
            _stand(room, name, _ON_CABINET if name != "armchair" else ("pillow", "bag"), 1, 4)
    for name, share in (("ottoman", 0.3), ("tall plant", 0.6), ("desk", 0.15), ("fan", 0.1)):
        if chance(rng, share):
            _stand(room, name, ("laptop", "books"), 1, 2)
    _decorate(room, ("picture", "picture", "picture", "shelf", "clock", "mirror"), 3, 6)
    _strew(room, (*_ON_FLOOR, "pillow", *_TOYS[:6]), 1, 8)


def _dining_set(room: Room) -> None:
    rng = room.rng
    piece, chair = _make(room, "table"), _make(room, "chair")
    quarter = math.pi / 2 * int(rng.integers(4))
    host = None
    for _ in range(12):
        x, y = between(rng, -0.3, 0.3) * room.width, between(rng, -0.3, 0.3) * room.depth
        if host := room.stand(piece, x, y, quarter):
            break
    host = host or room.against(piece)
    if host:
        if chance(rng, 0.35):
            room.stand(_make(room, "rug").scaled(1.3, "large"), host.x, host.y, host.yaw)
        _dining(room, host, chair, int(rng.integers(2, 7)))
        room.load(host, _several(room, (*_ON_TABLE, "plate", "plate", "bottle", "bowl", "cup"), 1, 7), 45)


def _kitchen(room: Room) -> None:
    rng = room.rng
    look, basin = fitted(rng, room.style), True
    for number in rng.permutation(4)[: 1 if chance(rng, 0.4) else 2]:
        basin = not _kitchen_run(room, room.walls[int(number)], look, basin=basin) and basin
    if chance(rng, 0.7):
        _dining_set(room)
    elif room.width > 3 and room.depth > 3:  # an island with stools
        island = counter(rng, room.style, between(rng, 1.2, 1.9), look, basin=False)
        if placed := room.stand(
            island, between(rng, -0.4, 0.4), between(rng, -0.4, 0.4), room.walls[int(rng.integers(4))].yaw
        ):
            room.load(placed, _several(room, _ON_COUNTER, 1, 4))
            stool = _make(room, "stool")
            for dx in (-0.45, 0.1, 0.6):
                x, y = placed.world(dx, 0.6)
                room.stand(stool, x, y, placed.yaw)
    if chance(rng, 0.4):
        _stand(room, "cabinet", (*_ON_COUNTER, *_ON_CABINET), 1, 4)
    if chance(rng, 0.3):
        _stand(room, "washing machine", ("basket", "small box", "bottle"), 0, 3)
    _decorate(room, ("clock", "picture", "shelf", "towel"), 1, 4)
    _strew(room, ("bin", "basket", "box", "bag", "stool", "floor mat", "chair"), 2, 7)


def _kitchen_run(room: Room, wall: Wall, look: Fitted, *, basin: bool) -> bool:
    """Refrigerator, counters, stove side by side along a wall; returns whether a sink is among them."""
    rng, found = room.rng, False
    pieces: list[Piece] = [_make(room, "refrigerator")] if chance(rng, 0.7) else []
    pieces.append(counter(rng, room.style, between(rng, 0.8, 2.0), look, basin=basin))
    if chance(rng, 0.75):
        pieces += [_make(room, "stove"), counter(rng, room.style, between(rng, 0.5, 1.5), look, basin=False)]
    widths = [p.bounds()[1][0] - p.bounds()[0][0] for p in pieces]
    left = -wall.length / 2 + 0.04
    slack = wall.length - sum(widths) - 0.01 * len(pieces) - 0.08
    if slack < 0:
        pieces, widths = pieces[:2], widths[:2]
        slack = max(0.0, wall.length - sum(widths) - 0.1)
    left += between(rng, 0, slack) if chance(rng, 0.5) else 0.0
    if chance(rng, 0.5):
        pieces.reverse()
        widths.reverse()
    for piece, width in zip(pieces, widths, strict=True):
        low = piece.bounds()[0][0]
        placed = room.against(piece, wall, left - low, gap=0.012)
        if placed:
            if piece.name == "counter":
                found = found or bool(piece.carried)
                room.load(placed, _several(room, _ON_COUNTER, 1, 5), 30)
                if chance(rng, 0.8):
                    room.hang(
                        wall_cabinet(rng, room.style, width - 0.01, look),
                        between(rng, 1.4, 1.55),
                        wall,
                        left - low,
                        margin=0.0,
                    )
            elif piece.name == "stove":
                room.load(placed, _several(room, ("pot",), 0, 2), 180)
                if chance(rng, 0.4):
                    room.hang(_make(room, "hood"), 1.6, wall, left - low, margin=0.0)
            elif piece.name == "refrigerator":
                room.load(placed, _several(room, ("box", "basket", "small box", "plant"), 0, 2))
        left += width + 0.01
    return found


def _bathroom(room: Room) -> None:
    rng = room.rng
    if chance(rng, 0.7) and (tub := room.against(_make(room, "bathtub"), tries=20)):
        if chance(rng, 0.6):
            _shower_curtain(room, tub)
        room.load(tub, _several(room, ("soap",), 0, 2))
    basin = room.against(_make(room, "washstand"), tries=20)
    if basin:
        if chance(rng, 0.85):
            room.hang(_make(room, "mirror"), between(rng, 1.1, 1.25), basin.wall, basin.along)
        if chance(rng, 0.5):
            x, y = basin.world(0, -0.65)
            room.stand(_make(room, "floor mat"), x, y, basin.yaw)
    toilet = room.against(_make(room, "toilet"), tries=20)
    if toilet:
        room.load(toilet, _several(room, ("small box", "soap", "plant"), 0, 2))
    if chance(rng, 0.4):
        _stand(room, "washing machine", ("basket", "bottle", "small box", "folded towels"), 1, 4)
    if chance(rng, 0.4):
        _stand(
            room,
            "shelves" if chance(rng, 0.5) else "cabinet",
            ("folded towels", "soap", "soap", "basket", "plant"),
            2,
            6,
        )
    for piece in _several(room, ("towel",), 1, 3):
        room.hang(piece, between(rng, 0.75, 1.0))
    _decorate(room, ("picture", "shelf", "mirror"), 1, 3)
    _strew(room, ("bin", "basket", "floor mat", "clothes", "stool", "shoes", "bottle"), 2, 7)


def _shower_curtain(room: Room, tub: Placed) -> None:
    rng = room.rng
    low, high = tub.piece.bounds()
    tone = pick(rng, ("white", *room.style.fabrics, "light blue", "light green"))
    m, pattern = cloth(rng, tone)
    p = Piece("shower curtain", tone, "fabric", pattern)
    width, top = (high[0] - low[0]) * between(rng, 0.25, 0.9), 1.95
    folds = round(width / 0.09)
    for i in range(folds):
        p.rod(
            width / folds * 1.2,
            top - 0.3,
            (i + 0.5) * width / folds - width / 2,
            0,
            0.3,
            m,
            1,
            8,
            between(rng, 0.04, 0.07),
        )
    x, y = tub.world((low[0] + width / 2 + 0.02) * pick(rng, (-1, 1)), low[1] - 0.05)
    room.put(p, x, y, 0, tub.yaw, room.ceiling, "hanging")


def _dining_room(room: Room) -> None:
    rng = room.rng
    _dining_set(room)
    for name, share in (
        ("cabinet", 0.85),
        ("cabinet", 0.4),
        ("bookshelf", 0.2),
        ("side table", 0.4),
        ("tall plant", 0.6),
    ):
        if chance(rng, share):
            _stand(room, name, (*_ON_CABINET, "bottle", "plate"), 1, 5)
    _decorate(room, ("picture", "picture", "mirror", "clock"), 3, 6)
    _strew(room, ("chair", "box", "bag", "basket", "stool", "floor lamp", "toy car"), 2, 7)


def _office(room: Room) -> None:
    rng = room.rng
    for _ in range(max(1, round(room.width * room.depth / between(rng, 7, 12)))):
        _work_place(room, _stand(room, "desk"), "office chair")
    if room.width > 4 and room.depth > 4 and chance(rng, 0.6):
        piece = _make(room, "desk")
        for _ in range(6):
            x, y, yaw = between(rng, -1, 1), between(rng, -1, 1), math.pi / 2 * int(rng.integers(4))
            if host := room.stand(piece, x, y, yaw):
                _work_place(room, host, "office chair")
                break
    for name, share in (
        ("filing cabinet", 0.7),
        ("filing cabinet", 0.5),
        ("bookshelf", 0.6),
        ("shelves", 0.4),
        ("cabinet", 0.3),
    ):
        if chance(rng, share):
            _stand(room, name, ("box", "books", "book stack", "paper", "plant", "basket"), 1, 6)
    for name, share in (("whiteboard", 0.6), ("clock", 0.3)):
        if chance(rng, share):
            room.hang(_make(room, name), between(rng, 0.95, 1.1) if name == "whiteboard" else 2.0)
    _decorate(room, ("poster", "picture", "poster", "shelf"), 1, 5)
    _strew(room, ("bin", "bin", "box", "box", "bag", "chair", "tall plant", "fan", "office chair"), 3, 9)


def _study(room: Room) -> None:
    rng = room.rng
    _work_place(room, _stand(room, "desk"), "office chair" if chance(rng, 0.6) else "chair")
    for _ in range(int(rng.integers(1, 4))):
        _stand(room, "bookshelf", _ON_SHELF, 0, 4)
    for name, share in (
        ("armchair", 0.5),
        ("sofa", 0.25),
        ("floor lamp", 0.5),
        ("cabinet", 0.4),
        ("side table", 0.3),
        ("piano", 0.12),
    ):
        if chance(rng, share):
            _stand(room, name, (*_ON_CABINET, "pillow"), 1, 3)
    if chance(rng, 0.5):
        room.stand(_make(room, "rug"), 0, 0, math.pi / 2 * int(rng.integers(2)))
    _decorate(room, ("picture", "picture", "shelf", "poster", "clock"), 2, 6)
    _strew(room, ("bin", "box", "box", "bag", "book stack", "tall plant", "stool", "basket"), 2, 9)


def _classroom(room: Room) -> None:
    rng = room.rng
    front = room.walls[int(rng.integers(4))]
    room.hang(_make(room, "whiteboard"), 0.95, front, between(rng, -0.3, 0.3))
    desk, chair = _make(room, "school desk"), _make(room, "chair")
    across = front.length
    deep = room.depth if front in (room.walls[0], room.walls[2]) else room.width
    step_x, step_y = desk.bounds()[1][0] * 2 + between(rng, 0.35, 0.7), between(rng, 1.25, 1.6)
    for i in range(int((across - 1.0) // step_x)):
        for j in range(int((deep - 2.6) // step_y)):
            x, y = front.world((i + 0.5) * step_x - (across - 1.0) // step_x * step_x / 2, -2.0 - j * step_y)
            if chance(rng, 0.9) and (host := room.stand(desk, x, y, front.yaw + between(rng, -0.06, 0.06))):
                seat = chair if chance(rng, 0.9) else _make(room, "chair")
                for dx in (0.0,) if desk.bounds()[1][0] < 0.5 else (-0.3, 0.3):
                    y0 = host.piece.bounds()[0][1] + seat.bounds()[0][1] - between(rng, -0.15, 0.2)
                    _seat(room, host, seat, dx, y0, 180)
                room.load(host, _several(room, ("paper", "book", "book stack", "bottle", "laptop", "bag"), 0, 2))
    for name, share in (
        ("bookshelf", 0.6),
        ("cabinet", 0.5),
        ("shelves", 0.4),
        ("filing cabinet", 0.3),
        ("piano", 0.1),
    ):
        if chance(rng, share):
            _stand(room, name, _ON_SHELF, 1, 5)
    _decorate(room, ("poster", "poster", "picture", "clock"), 3, 7)
    _strew(room, ("bin", "box", "bag", "bag", "chair", "ball"), 2, 8)


def _corridor(room: Room) -> None:
    rng = room.rng
    for name, share in (
        ("cabinet", 0.5),
        ("bench", 0.4),
        ("bookshelf", 0.3),
        ("dresser", 0.25),
        ("tall plant", 0.6),
        ("chair", 0.3),
    ):
        if chance(rng, share):
            _stand(room, name, _ON_CABINET, 0, 3)
    if chance(rng, 0.5):
        room.hang(_make(room, "coat rack"), between(rng, 0.5, 0.8))
    if chance(rng, 0.5):
        room.stand(_make(room, "rug"), 0, between(rng, -1, 1), math.pi / 2)
    _decorate(room, ("picture", "picture", "mirror", "clock", "poster"), 2, 7)
    _strew(room, ("shoes", "shoes", "bag", "box", "floor mat", "suitcase", "bin", "basket"), 2, 9)


def _playroom(room: Room) -> None:
    rng = room.rng
    room.stand(_make(room, "rug"), between(rng, -0.4, 0.4), between(rng, -0.4, 0.4), 0)
    for name, share in (
        ("shelves", 0.9),
        ("bookshelf", 0.6),
        ("crib", 0.3),
        ("sofa", 0.4),
        ("dresser", 0.4),
        ("desk", 0.2),
        ("bed", 0.3),
    ):
        if chance(rng, share):
            _stand(room, name, (*_TOYS, "basket", "box", "books"), 1, 7)
    if chance(rng, 0.6):
        host = room.anywhere(_make(room, "coffee table"))
        if host:
            room.load(host, _several(room, (*_TOYS, "paper", "cup", "book"), 1, 5), 180)
            for _ in range(3):
                x, y = host.world(between(rng, -0.5, 0.5), pick(rng, (-0.7, 0.7)))
                room.stand(_make(room, "stool").scaled(0.7, "small"), x, y, host.yaw)
    _decorate(room, ("poster", "picture", "picture", "shelf", "clock"), 2, 6)
    _strew(room, (*_TOYS, *_TOYS, "basket", "pillow"), 5, 17)


def _store_room(room: Room) -> None:
    rng = room.rng
    for _ in range(int(rng.integers(1, 5))):
        _stand(
            room, "shelves", ("box", "box", "small box", "basket", "suitcase", "bottle", "folded towels", "pot"), 4, 12
        )
    for name, share in (
        ("cabinet", 0.5),
        ("wardrobe", 0.2),
        ("washing machine", 0.35),
        ("refrigerator", 0.2),
        ("desk", 0.3),
        ("fan", 0.4),
    ):
        if chance(rng, share):
            _stand(room, name, _ON_SHELF, 1, 4)
    for _ in range(int(rng.integers(3, 9))):
        if (base := room.against(_make(room, "box"), gap=between(rng, 0.03, 0.2))) and chance(rng, 0.4):
            room.onto(base, _make(room, "box"), 25)
    _strew(room, (*_ON_FLOOR, "box", "box", "chair", "stool"), 3, 11)


def _library(room: Room) -> None:
    rng = room.rng
    shelf = _make(room, "bookshelf")
    for _ in range(int(rng.integers(3, 6))):
        if (placed := room.against(shelf if chance(rng, 0.4) else _make(room, "bookshelf"))) and chance(rng, 0.6):
            _beside(room, placed, _make(room, "bookshelf"), pick(rng, (-1, 1)), 0.01)
    for _ in range(int(rng.integers(1, 3))):
        _dining_set(room)
    for name, share in (
        ("armchair", 0.6),
        ("armchair", 0.4),
        ("sofa", 0.3),
        ("floor lamp", 0.5),
        ("tall plant", 0.5),
        ("desk", 0.3),
    ):
        if chance(rng, share):
            _stand(room, name, ("book stack", "book", "table lamp", "laptop"), 1, 3)
    _decorate(room, ("picture", "poster", "clock"), 2, 5)
    _strew(room, ("book stack", "box", "bag", "bin", "stool", "chair"), 2, 7)


def _cafe(room: Room) -> None:
    rng = room.rng
    bar = room.against(counter(rng, room.style, between(rng, 1.5, 2.5), basin=False))
    if bar:
        room.load(bar, _several(room, (*_ON_COUNTER, "cup", "plate", "vase"), 2, 7))
        stool = _make(room, "stool")
        for dx in (-0.6, 0.0, 0.6):
            x, y = bar.world(dx, -0.75)
            room.stand(stool, x, y, bar.yaw)
    table, chair = _make(room, "table"), _make(room, "chair")
    for _ in range(int(rng.integers(2, 6))):
        if host := room.anywhere(table, 20, 0.8):
            _dining(room, host, chair, int(rng.integers(2, 5)))
            room.load(
                host, _several(room, ("cup", "cup", "plate", "bottle", "vase", "laptop", "paper", "bowl"), 1, 5), 180
            )
    for name, share in (("sofa", 0.3), ("tall plant", 0.7), ("shelves", 0.3), ("bench", 0.4), ("floor lamp", 0.3)):
        if chance(rng, share):
            _stand(room, name, ("bottle", "vase", "plant", "book"), 1, 5)
    _decorate(room, ("picture", "picture", "poster", "shelf", "whiteboard", "clock"), 3, 7)
    _strew(room, ("bag", "bin", "tall plant", "chair", "box"), 2, 7)


_SOFT = ("planks", "planks", "carpet", "carpet")
_PLAIN = ("paint",)
_HARD = ("planks", "tiles", "tiles", "vinyl")
# name: share, width [m], depth [m], furnishing, shell
PLACES: dict[str, tuple[float, tuple[float, float], tuple[float, float], Callable[[Room], None], Plan]] = {
    "bedroom": (0.18, (2.8, 4.8), (3.0, 5.2), _bedroom, Plan(_SOFT, doors=(1, 2))),
    "living room": (0.16, (3.4, 6.0), (3.8, 7.0), _living_room, Plan(windows=(1, 3), doors=(1, 2))),
    "kitchen": (0.14, (2.4, 4.6), (2.8, 5.5), _kitchen, Plan(_HARD, ("paint", "paint", "tiles"), (0, 2), (1, 2))),
    "bathroom": (0.08, (1.9, 3.2), (2.2, 3.8), _bathroom, Plan(_HARD[1:], ("tiles", "tiles", "paint"), (0, 1))),
    "dining room": (0.08, (3.0, 5.0), (3.4, 6.0), _dining_room, Plan(doors=(1, 2))),
    "office": (0.08, (2.8, 6.0), (3.2, 7.0), _office, Plan(("carpet", "vinyl"), _PLAIN, (0, 2), (1, 2), True)),
    "study": (0.06, (2.5, 4.2), (2.8, 4.8), _study, Plan()),
    "classroom": (0.05, (5.0, 8.0), (5.5, 9.5), _classroom, Plan(("vinyl", "carpet"), _PLAIN, (1, 4), (1, 2), True)),
    "corridor": (0.03, (1.3, 2.3), (4.5, 10.0), _corridor, Plan(windows=(0, 1), doors=(3, 5))),
    "playroom": (0.04, (3.0, 5.0), (3.2, 5.5), _playroom, Plan(("carpet", "planks", "vinyl"))),
    "store room": (0.03, (2.0, 3.6), (2.4, 4.8), _store_room, Plan(("vinyl", "tiles"), ("paint", "bricks"), (0, 1))),
    "library": (0.03, (4.0, 7.0), (4.5, 9.0), _library, Plan(("carpet", "planks"), _PLAIN, (0, 3), (1, 2), True)),
    "cafe": (0.04, (4.0, 7.0), (4.5, 9.0), _cafe, Plan(_HARD, ("paint", "bricks", "paint"), (1, 3), (1, 2))),
}  # fmt: skip


def make_room(seed: int, width: int, height: int) -> Scene:
    """A furnished room and a camera in it.

    Args:
        seed: same seed, same scene.
        width: of the picture [px].
        height: of the picture [px].

    Raises:
        UsageError: where the size is not positive.
    """
    if width < 1 or height < 1:
        raise UsageError(f"size {width}x{height}", "not positive", "pass at least 1 pixel each way")
    rng = np.random.default_rng([seed, 1])
    names = list(PLACES)
    place = names[int(rng.choice(len(names), p=[PLACES[n][0] for n in names]))]
    _, widths, depths, furnish, plan = PLACES[place]
    night = chance(rng, 0.25)
    warm = between(rng, 0.0, 1.0)
    style = Style(
        wood=pick(rng, WOODS),
        metal=pick(rng, ("grey", "grey", "black", "white")),
        fabrics=(pick(rng, MUTED), pick(rng, MUTED), pick(rng, STRONG)),
        night=night,
        warmth=(1.0, 0.97 - 0.2 * warm, 0.92 - 0.45 * warm),
    )
    room = Room(rng, style, 1.06 * between(rng, *widths), 1.06 * between(rng, *depths), between(rng, 2.35, 2.85))
    if place in ("classroom", "library", "cafe"):
        room.height += between(rng, 0.1, 0.4)
    build(room, plan)
    if not any(p.piece.name == "window" for p in room.placed):
        room.style = replace(style, night=True)  # lamps must do
    if plan.panels and chance(rng, 0.75):
        _lamps(room, "panel")
    else:
        _lamps(room)
    furnish(room)
    for host in [p for p in room.placed if p.piece.name == "window"]:
        room.load(host, _several(room, ("plant", "vase", "bottle", "small box", "photo"), 0, 2))
        if host.piece.tops and chance(rng, 0.3):
            wall = next(w for w in room.walls if w.thing == room.things[host.thing - 1].on)
            along = (host.x - wall.x) * math.cos(wall.yaw) + (host.y - wall.y) * math.sin(wall.yaw)
            room.against(_make(room, "radiator"), wall, along)
    view = take(room, width, height)
    return Scene(
        seed,
        "room",
        place,
        tuple(room.things),
        tuple(room.parts),
        tuple(room.materials),
        tuple(room.lights),
        None,
        view,
    )
