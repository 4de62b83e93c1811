"""Roads made from a seed: the same each time, sound, and with room for the camera."""

from __future__ import annotations

import numpy as np
import pytest

from deixis.errors import UsageError
from deixis.world.colours import COLOURS
from deixis.world.mesh import triangles
from deixis.world.outdoors import Block, Site, extent
from deixis.world.roads import make_road
from deixis.world.scene import Scene
from deixis.world.vehicles import bicycle, bus, car, motorcycle, truck, van

SEEDS = range(50)
FLAT = {"road", "pavement", "kerb", "ground", "grass", "field", "lane marking", "crossing", "hill"}


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [make_road(seed, 176, 132) for seed in SEEDS]


def vertices_of(scene: Scene) -> dict[int, np.ndarray]:
    """Vertices of each thing [V, 3]."""
    vertices, faces, owners = triangles(scene.parts)
    things = np.array([p.thing for p in scene.parts])[owners]
    return {t.id: vertices[np.unique(faces[things == t.id])] for t in scene.things}


def corners(vertices: np.ndarray, low: float, high: float) -> np.ndarray:
    """x, y of vertices between two heights [N, 2]."""
    return vertices[(vertices[:, 2] >= low) & (vertices[:, 2] <= high), :2]


def apart(a: np.ndarray, b: np.ndarray, yaws: tuple[float, float]) -> bool:
    """Whether a line along either thing's axes separates two sets of points, but for two centimetres."""
    for yaw in yaws:
        for turn in (yaw, yaw + 90):
            axis = np.array([np.cos(np.radians(turn)), np.sin(np.radians(turn))])
            p, q = a @ axis, b @ axis
            if p.max() < q.min() + 0.02 or q.max() < p.min() + 0.02:
                return True
    return False


def test_the_same_seed_makes_the_same_road():
    assert make_road(5, 176, 132) == make_road(5, 176, 132)
    assert make_road(5, 176, 132) != make_road(6, 176, 132)


def test_things_and_parts_belong_together(scenes):
    for scene in scenes:
        assert [t.id for t in scene.things] == list(range(1, len(scene.things) + 1))
        assert {p.thing for p in scene.parts} == {t.id for t in scene.things}
        assert max(p.material for p in scene.parts) < len(scene.materials)
        assert 100 < len(scene.parts) <= 1500


def test_words(scenes):
    for scene in scenes:
        assert scene.kind == "road"
        assert scene.place
        assert scene.weather
        for thing in scene.things:
            assert thing.name
            assert thing.colour == "" or thing.colour in COLOURS
            if thing.on:
                assert scene.thing(thing.on).name in {"road", "pavement", "grass", "ground"}
            if thing.mount == "on":
                assert thing.on
                assert thing.colour


def test_people_stand_on_the_pavement_of_their_side(scenes):
    for scene in (s for s in scenes if s.place == "crossroads"):
        for thing in scene.things:
            if thing.on and scene.thing(thing.on).name == "pavement" and thing.name == "person":
                assert thing.center[0] * scene.thing(thing.on).center[0] > 0


def test_many_classes(scenes):
    assert len({t.name for scene in scenes for t in scene.things}) >= 35
    assert {s.place for s in scenes} >= {
        "city street",
        "village street",
        "suburb",
        "motorway",
        "country road",
        "car park",
    }
    assert len({s.weather for s in scenes}) == 5


def test_nothing_stands_in_another_thing(scenes):
    for scene in scenes[:30]:
        standing = [t for t in scene.things if t.mount == "on"]
        vertices = vertices_of(scene)
        feet = {t.id: corners(vertices[t.id], -1.0, 0.8) for t in standing}  # below the crowns of trees
        standing = [t for t in standing if len(feet[t.id])]  # far traffic lights are drawn without their poles
        for i, a in enumerate(standing):
            for b in standing[:i]:
                far = np.hypot(a.center[0] - b.center[0], a.center[1] - b.center[1])
                if far < np.hypot(*a.size[:2]) / 2 + np.hypot(*b.size[:2]) / 2:
                    assert apart(feet[a.id], feet[b.id], (a.yaw_deg, b.yaw_deg)), (scene.seed, a, b)


def test_bounding_boxes_hold_their_parts(scenes):
    for scene in scenes[:10]:
        vertices_by_thing = vertices_of(scene)
        for thing in scene.things:
            vertices = vertices_by_thing[thing.id]
            c, s = np.cos(np.radians(thing.yaw_deg)), np.sin(np.radians(thing.yaw_deg))
            x, y, z = (vertices - thing.center).T
            local = np.stack([c * x + s * y, c * y - s * x, z], axis=1)
            assert np.all(np.abs(local) <= np.array(thing.size) / 2 + 0.01), (scene.seed, thing)


def test_camera_is_free(scenes):
    for scene in scenes:
        view = scene.view
        rotation = np.array(view.rotation)
        assert np.allclose(rotation @ rotation.T, np.eye(3))
        assert np.linalg.det(rotation) == pytest.approx(1)
        fov = 2 * np.degrees(np.arctan(view.width / 2 / view.fx))
        assert 45 <= fov <= 90
        assert view.fx == view.fy
        vertices_by_thing = vertices_of(scene)
        for thing in scene.things:
            if thing.name in FLAT:
                continue
            vertices = vertices_by_thing[thing.id]
            x, y, z = ((vertices - view.position) @ rotation).T
            seen = (np.abs(x) * view.fx < z * view.width / 2) & (np.abs(y) * view.fy < z * view.height / 2) & (z > 0)
            assert not seen.any() or z[seen].min() > 1.0, (scene.seed, thing)


def test_any_shape_of_picture():
    view = make_road(3, 416, 128).view
    assert (view.width, view.height, view.cx, view.cy) == (416, 128, 208, 64)
    with pytest.raises(UsageError, match="0 x 10"):
        make_road(3, 0, 10)


@pytest.mark.parametrize(
    ("make", "length", "height"),
    [
        (car, (3.3, 5.0), (1.35, 1.85)),
        (van, (4.5, 6.1), (1.8, 2.8)),
        (truck, (6.9, 13.3), (2.4, 4.1)),
        (bus, (7.3, 12.2), (2.7, 3.6)),
        (motorcycle, (1.7, 2.3), (0.95, 1.2)),
        (bicycle, (1.2, 1.9), (0.7, 1.1)),
    ],
)
def test_vehicles_have_real_sizes(make, length, height):
    rng = np.random.default_rng(0)
    for _ in range(30):
        low, high = extent(make(rng).pieces)
        assert length[0] < high[1] - low[1] < length[1]
        assert height[0] < high[2] < height[1]
        assert low[2] > -0.02


def test_space_is_taken_once():
    site, block = Site(), Block((-1, -1, 0), (1, 1, 2))
    assert site.claim([block], (0, 0, 0), 0)
    assert not site.claim([block], (1.5, 0, 0), 45)
    assert site.claim([block], (1.5, 0, 2.5), 45)  # above
    assert site.claim([block], (3, 0, 0), 0)
