"""Captions and referring expressions, on frames made by hand: no renderer is needed."""

import re
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest

from deixis.world import words
from deixis.world.captions import WORD_LIMIT, caption, tokens
from deixis.world.colours import COLOURS
from deixis.world.expressions import Expression, Meaning, expressions
from deixis.world.scene import Frame, Scene, Thing, View
from deixis.world.visible import RELATIONS, holds, perhaps, visible

METRIC = re.compile(
    r"\d|\b(m|cm|metres?|meters?|feet|close|closer|closest|near|nearer|nearest|nearby|far|farther|further|farthest|"
    r"furthest|distant|distance|away|"
    r"cramped|spacious|tight|snug|range|remote|(small|large|tiny|huge|big) (room|space|place))\b"
)
# What a listener may take for one another, written down again without the package's own tables.
LOOKALIKE = (
    {"chair", "armchair", "stool"},
    {"sofa", "armchair", "bench", "bed"},
    {"table", "desk", "coffee table", "night stand", "counter"},
    {"cabinet", "dresser", "wardrobe", "night stand"},
    {"picture", "poster", "mirror", "window"},
    {"television", "monitor", "laptop"},
    {"box", "basket", "bag", "bin"},
    {"car", "taxi", "van", "truck", "bus"},
    {"tree", "bush", "hedge", "plant"},
    {"house", "building"},
    {"vase", "bottle", "cup", "bowl"},
    {"lamp", "street lamp", "traffic light"},
    {"rug", "floor mat"},
    {"person", "pedestrian"},
)
CONFUSED = (
    {"white", "grey"},
    {"white", "beige"},
    {"brown", "dark brown", "beige"},
    {"red", "dark red"},
    {"green", "dark green", "light green"},
    {"blue", "dark blue", "light blue"},
    {"black", "grey"},
)
ROOM = [n for n in words.NOUNS if n not in words.ROAD_ONLY and n not in words.STRUCTURE]
ROAD = [*(n for n in words.ROAD_ONLY if n not in words.STRUCTURE), "person"]


def view(width, height):
    # Looks along the world's y: camera x, y, z are the world's x, -z, y.
    forward = ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, -1.0, 0.0))
    return View((0.0, 0.0, 1.5), forward, 100.0, 100.0, width / 2, height / 2, width, height)


def frame_of(things, boxes, depths, kind="room", place="bedroom", weather="", size=(120, 160)):
    """Draws rectangles far to near; ``boxes`` are left, top, right, bottom [px]."""
    height, width = size
    scene = Scene(0, kind, place, tuple(things), (), (), (), None, view(width, height), weather)
    ids, depth = np.zeros(size, np.int32), np.zeros(size, np.float32)
    for i in sorted(range(len(things)), key=lambda i: -depths[i]):
        x0, y0, x1, y1 = boxes[i]
        ids[y0:y1, x0:x1], depth[y0:y1, x0:x1] = things[i].id, depths[i]
    return Frame(scene, np.full((*size, 3), 110, np.uint8), depth, ids)


@lru_cache(maxsize=300)
def random_frame(seed):
    """Walls or a road, and things at random places; often several of a class, some only a pixel large."""
    rng = np.random.default_rng(seed)
    indoors = bool(rng.random() < 0.5)
    base = ["floor", "wall"] if indoors else ["road", "grass"]
    pool = list(rng.choice(ROOM if indoors else ROAD, 5))
    names = [*base, *(str(pool[int(rng.integers(5))]) for _ in range(int(rng.integers(2, 12))))]
    colours = list(COLOURS)
    things, boxes, depths = [], [], []
    for i, name in enumerate(names):
        structure = i < 2
        things.append(
            Thing(
                i + 1,
                name,
                colour="" if rng.random() < 0.1 else str(rng.choice(colours)),
                material=str(rng.choice(["wood", "metal", "fabric", "plastic", "glass", "stone", ""])),
                pattern="striped" if rng.random() < 0.1 else "",
                build=str(rng.choice(["", "", "small", "large"])),
                center=(float(rng.uniform(-2, 2)), float(rng.uniform(1, 9)), float(rng.uniform(0, 1))),
                size=(0.0, 0.0, 0.0) if structure else tuple(rng.uniform(0.2, 1.5, 3)),
                on=0 if structure else (1 if rng.random() < 0.7 or i < 4 else int(rng.integers(3, i + 1))),
                mount="structure" if structure else "on",
            )
        )
        if structure:
            boxes.append((0, 60, 160, 120) if i == 0 else (0, 0, 160, 60))
            depths.append(12.0 + i)
        else:
            w, h = (int(rng.integers(1, 4)),) * 2 if rng.random() < 0.1 else rng.integers(8, 45, 2)
            x, y = int(rng.integers(0, 160 - w)), int(rng.integers(0, 120 - h))
            boxes.append((x, y, int(x + w), int(y + h)))
            depths.append(float(rng.uniform(1, 10)))
    place = str(rng.choice(list(words.PLACES)[:12])) if indoors else "village street"
    weather = "" if indoors else str(rng.choice(["sunny", "cloudy", "overcast", "hazy", "evening"]))
    return frame_of(things, boxes, depths, "room" if indoors else "road", place, weather)


def together(groups, a, b):
    return a == b or any(a in group and b in group for group in groups)


def fits(one, meaning: Meaning, generous):
    """Whether a thing has the class and the attributes, read strictly or generously."""
    t = one.thing
    members = words.HYPERNYMS.get(meaning.name, (meaning.name,))
    if generous:
        named = any(together(LOOKALIKE, t.name, member) for member in members)
        coloured = not meaning.colour or not t.colour or together(CONFUSED, t.colour, meaning.colour)
        made = meaning.material in ("", t.material) or not t.material
    else:
        named, coloured, made = (
            t.name in members,
            meaning.colour in ("", t.colour),
            meaning.material in ("", t.material),
        )
    return named and coloured and made and (not meaning.pattern or bool(t.pattern))


def reading(frame, meaning: Meaning):
    """The ids that an expression may mean, computed from the pixels again."""
    seen = {s.thing.id: s for s in visible(frame)}
    fitting = [s for s in seen.values() if fits(s, meaning, generous=True)]
    ys, xs = np.indices(frame.ids.shape)

    def middle(s):
        mask = frame.ids == s.thing.id
        return xs[mask].mean() / frame.ids.shape[1], ys[mask].mean() / frame.ids.shape[0]

    def columns(s):
        return xs[frame.ids == s.thing.id] / frame.ids.shape[1]

    def rows(s):
        return ys[frame.ids == s.thing.id] / frame.ids.shape[0]

    def metres(s):
        return float(np.median(frame.depth[frame.ids == s.thing.id]))

    if meaning.build:
        fitting = [s for s in fitting if s.thing.build == meaning.build]
    if meaning.place in ("left", "right", "middle", "top", "bottom"):
        axis = 1 if meaning.place in ("top", "bottom") else 0
        low, high = {"left": (0, 0.45), "top": (0, 0.45), "middle": (0.35, 0.65)}.get(meaning.place, (0.55, 1))
        fitting = [s for s in fitting if low <= middle(s)[axis] <= high]
    elif meaning.place:
        axis = 1 if meaning.place in ("topmost", "bottommost") else 0
        sign = 1 if meaning.place in ("leftmost", "topmost") else -1
        fitting = sorted(fitting, key=lambda s: sign * middle(s)[axis])[:1]
    if meaning.ordinal:
        row = sorted(fitting, key=lambda s: middle(s)[0], reverse=meaning.start == "right")
        fitting = row[meaning.ordinal - 1 : meaning.ordinal]
    if meaning.extreme in ("nearest", "nearer"):
        fitting = sorted(fitting, key=metres)[:1]
    if meaning.extreme in ("farthest", "farther"):
        fitting = sorted(fitting, key=metres)[-1:]
    if meaning.extreme in ("bigger", "smaller"):
        fitting = sorted(fitting, key=lambda s: np.prod(s.thing.size))[:: 1 if meaning.extreme == "smaller" else -1][:1]
    if meaning.extreme in ("taller", "shorter"):
        fitting = sorted(fitting, key=lambda s: s.thing.size[2])[:: 1 if meaning.extreme == "shorter" else -1][:1]
    if meaning.relation:
        anchors = [s for s in seen.values() if s.thing.name == meaning.anchor]
        fitting = [
            s for s in fitting if any(related(meaning.relation, s, a, middle, metres, columns, rows) for a in anchors)
        ]
    return [s.thing.id for s in fitting]


def related(relation, a, b, middle, metres, columns, rows):
    (ua, va), (ub, vb) = middle(a), middle(b)
    if relation == "on":
        return a.thing.on == b.thing.id
    if relation == "under":
        lower = a.thing.center[2] + a.thing.size[2] / 2 < b.thing.center[2] + b.thing.size[2] / 2
        return lower and all(abs(a.thing.center[i] - b.thing.center[i]) < 0.5 * b.thing.size[i] for i in (0, 1))
    if relation == "next":
        gaps = [max(of(a).min() - of(b).max(), of(b).min() - of(a).max()) for of in (columns, rows)]
        return max(gaps) < 0.18 and 1 / 1.2 < metres(a) / metres(b) < 1.2

    def over(p, q):
        foot, top = p.thing.center[2] - p.thing.size[2] / 2, q.thing.center[2] + q.thing.size[2] / 2
        return p.thing.on == q.thing.id or foot > top - 0.5

    return {
        "left": ua < ub,
        "right": ua > ub,
        "above": over(a, b) and va < vb and columns(b).min() - 0.05 < ua < columns(b).max() + 0.05,
        "below": over(b, a) and va > vb and columns(a).min() - 0.05 < ub < columns(a).max() + 0.05,
        "front": metres(a) < metres(b),
        "behind": metres(a) > metres(b),
    }[relation]


class TestVisible:
    def test_every_pixel_counts(self):
        things = [Thing(1, "wall", mount="structure"), Thing(2, "cup", on=1), Thing(3, "bed", on=1)]
        frame = frame_of(things, [(0, 0, 160, 120), (10, 20, 11, 21), (80, 60, 160, 120)], [4, 1, 2])
        wall, cup, bed = visible(frame)
        assert (wall.thing.name, cup.thing.name, bed.thing.name) == ("wall", "cup", "bed")
        assert cup.pixels == 1
        assert not cup.clear
        assert cup.centroid == pytest.approx((10.5 / 160, 20.5 / 120))
        assert bed.box == (0.5, 0.5, 1.0, 1.0)
        assert bed.truncated
        assert not cup.truncated
        assert bed.depth == 2
        assert wall.area + cup.area + bed.area == pytest.approx(1)

    def test_sky_is_nothing(self):
        frame = frame_of([Thing(1, "road", mount="structure")], [(0, 60, 160, 120)], [9])
        assert [s.thing.id for s in visible(frame)] == [1]

    def test_share_shown_of_a_box(self):
        # 1 m wide and high at 2 m: 50 px; half of it is drawn.
        thing = Thing(1, "box", center=(0.0, 2.5, 1.5), size=(1.0, 1.0, 1.0))
        whole = visible(frame_of([thing], [(55, 35, 105, 85)], [2]))[0]
        half = visible(frame_of([thing], [(55, 35, 80, 85)], [2]))[0]
        assert whole.shown == pytest.approx(1, abs=0.01)
        assert half.shown == pytest.approx(0.5, abs=0.01)

    def test_what_holds_may_be_said(self):
        for seed in range(30):
            seen = [s for s in visible(random_frame(seed)) if s.thing.mount != "structure"]
            for a in seen:
                for b in seen:
                    for relation in RELATIONS:
                        if a is not b and holds(relation, a, b):
                            assert perhaps(relation, a, b) or relation == "under", relation

    def test_relations_do_not_know_the_scale(self):
        frame = random_frame(3)
        twice = replace(frame, depth=2 * frame.depth)
        for a, a2 in zip(visible(frame), visible(twice), strict=True):
            for b, b2 in zip(visible(frame), visible(twice), strict=True):
                for relation in RELATIONS:
                    assert holds(relation, a, b) == holds(relation, a2, b2)


class TestWords:
    @pytest.mark.parametrize(
        ("one", "many"),
        [
            ("bookshelf", "bookshelves"),
            ("shelf", "shelves"),
            ("bench", "benches"),
            ("box", "boxes"),
            ("bus", "buses"),
            ("person", "people"),
            ("lorry", "lorries"),
            ("toy", "toys"),
            ("books", "books"),
            ("grass", "grass"),
            ("chest of drawers", "chests of drawers"),
            ("block of flats", "blocks of flats"),
            ("passer-by", "passers-by"),
            ("night stand", "night stands"),
            ("place to sit", "places to sit"),
            ("couch", "couches"),
            ("gizmo", "gizmos"),
        ],
    )
    def test_plurals(self, one, many):
        assert words.plural(one) == many

    @pytest.mark.parametrize(
        ("text", "article"),
        [
            ("orange box", "an"),
            ("box", "a"),
            ("urban street", "an"),
            ("utility room", "a"),
            ("hourglass", "an"),
            ("ivory", "an"),
        ],
    )
    def test_articles(self, text, article):
        assert words.article(text) == article

    def test_plurals_and_masses_take_no_article(self):
        assert words.indefinite("white", "books") == "some white books"
        assert words.indefinite("green", "grass") == "green grass"
        assert words.indefinite("", "armchair") == "an armchair"

    def test_unknown_words_are_used_as_they_are(self):
        assert words.noun_forms("gizmo") == ("gizmo",)
        assert words.colour_forms("chartreuse") == ("chartreuse",)
        assert words.alike("gizmo") == {"gizmo"}
        assert words.place_forms("igloo") == ("igloo",)

    def test_flip(self):
        text = "the leftmost chair, right of a bright lamp on the left-hand side, upright"
        assert words.flip(text) == "the rightmost chair, left of a bright lamp on the right-hand side, upright"
        assert words.flip(words.flip(text)) == text

    def test_likeness_is_mutual(self):
        for name in words.NOUNS:
            assert name in words.alike(name)
        for colour in words.COLOURS:
            for other in words.COLOURS:
                assert (other in words.near_colours(colour)) == (colour in words.near_colours(other)), (colour, other)

    def test_tables_name_known_classes(self):
        known = set(words.NOUNS)
        assert set(words.PURPOSES) <= known
        assert set(words.HOLDS) <= known
        assert {part for parts in words.HOLDS.values() for part in parts} <= known
        assert {member for members in words.HYPERNYMS.values() for member in members} <= known
        assert set(words.COLOURS) == set(COLOURS)


class TestCaptions:
    @pytest.mark.parametrize("level", [0, 1, 2])
    def test_no_metric_knowledge(self, level):
        for seed in range(150):
            text = caption(random_frame(seed), level, np.random.default_rng(seed))
            assert not METRIC.search(text), text

    @pytest.mark.parametrize("level", [0, 1, 2])
    def test_scale_of_the_depth_changes_nothing(self, level):
        for seed in range(60):
            frame = random_frame(seed)
            texts = {
                caption(replace(frame, depth=scale * frame.depth), level, np.random.default_rng(seed))
                for scale in (1, 2, 8)
            }
            assert len(texts) == 1

    def test_metres_are_true(self):
        told = 0
        for seed in range(300):
            frame = random_frame(seed)
            text = caption(frame, 3, np.random.default_rng(seed))
            depths = [s.depth for s in visible(frame)]
            for number in re.findall(r"(\d+\.\d) (?:m|metres|meters)\b", text):
                told += 1
                assert min(abs(float(number) - d) for d in depths) <= 0.051 + 0.06 * float(number), text
        assert told > 100

    @pytest.mark.parametrize("level", [0, 1, 2, 3])
    def test_fits_the_text_encoder(self, level):
        for seed in range(120):
            text = caption(random_frame(seed), level, np.random.default_rng(seed))
            assert 1 <= len(text.split()) <= WORD_LIMIT
            assert tokens(text) <= 77
            assert "{" not in text
            assert "(" not in text
            assert "  " not in text

    def test_articles_agree(self):
        for seed in range(120):
            for level in range(4):
                text = caption(random_frame(seed), level, np.random.default_rng(seed))
                for article, word in re.findall(r"\b(an?) ([a-z-]+)", text):
                    assert words.article(word) == article, text

    def test_names_only_what_is_seen(self):
        things = [Thing(1, "wall", mount="structure"), Thing(2, "bed", colour="red", on=1)]
        frame = frame_of(things, [(0, 0, 160, 120), (40, 60, 120, 110)], [4, 2])
        for seed in range(100):
            text = caption(frame, 2, np.random.default_rng(seed))
            assert any(noun in text for noun in words.NOUNS["bed"])
            assert not re.search(r"\b(chair|table|lamp|sofa)s?\b", text.replace("bedside table", ""))

    def test_counts_are_those_of_all_that_the_words_mean(self):
        walls = Thing(1, "wall", mount="structure")
        looks = ["black"] * 3 + ["beige"]
        chairs = [Thing(i + 2, "chair", colour=look, material="wood", on=1) for i, look in enumerate(looks)]
        tables = [Thing(i + 6, "desk", colour="red", on=1) for i in range(6)]
        boxes = [(0, 0, 160, 120), *((5 + 38 * i, 20, 28 + 38 * i, 50) for i in range(4))]
        boxes += [(3 + 26 * i, 70, 27 + 26 * i, 110) for i in range(6)]
        frame = frame_of([walls, *chairs, *tables], boxes, [9] + [3] * 10)
        told = 0
        for seed in range(400):
            text = caption(frame, 1 + seed % 3, np.random.default_rng(seed))
            for count, rest in re.findall(r"\b(two|three|four|five|six)\b([^,.;]*)", text):
                if any(words.plural(noun) in rest for noun in words.noun_forms("desk")):
                    assert count == "six", text
                elif any(words.plural(noun) in rest for noun in words.noun_forms("chair")):
                    told += 1
                    black = any(form in rest for form in words.colour_forms("black"))
                    assert count == ("three" if black else "four"), text
        assert told > 20

    def test_nearest_of_all_that_is_seen(self):
        things = [
            Thing(1, "wall", mount="structure"),
            Thing(2, "box", colour="red", on=1),
            Thing(3, "lamp", colour="blue", on=1),
            Thing(4, "bed", colour="white", on=1, center=(0.0, 3.0, 0.0), size=(2.0, 2.0, 2.0)),
        ]
        boxes = [(0, 0, 160, 120), (50, 50, 80, 80), (100, 40, 120, 80), (0, 100, 20, 120)]
        texts = {}
        for bed in (1.2, 4.0):
            frame = frame_of(things, boxes, [9, 2, 3, bed])
            (cut_off,) = [one for one in visible(frame) if one.thing.name == "bed"]
            texts[bed] = " ".join(caption(frame, 3, np.random.default_rng(seed)) for seed in range(100))
            assert not cut_off.clear
        assert re.search(r"(nearest|closest) is the", texts[4.0])
        assert not re.search(r"(nearest|closest) is the", texts[1.2])

    def test_what_begins_before_it_is_no_farther(self):
        things = [
            Thing(1, "wall", mount="structure"),
            Thing(2, "table", colour="brown", on=1),
            Thing(3, "bowl", colour="blue", on=2),
        ]
        boxes = [(0, 0, 160, 120), (40, 60, 120, 110), (70, 50, 90, 70)]
        frame = frame_of(things, boxes, [9, 3, 2])
        texts = []
        for edge in (2.5, 1.0):
            frame.depth[100:110, 40:120] = edge
            texts.append(" ".join(caption(frame, 3, np.random.default_rng(seed)) for seed in range(100)))
        assert re.search(r"(nearest|closest) is the", texts[0])
        assert not re.search(r"(nearest|closest) is the", texts[1])

    def test_relations_are_of_what_a_noun_means_alone(self):
        def told(second: str) -> set[str]:
            things = [Thing(1, "floor", mount="structure")]
            things += [Thing(i, name, on=1) for i, name in enumerate(("rug", "lamp", second), start=2)]
            boxes = [(0, 0, 160, 120), (10, 60, 50, 90), (70, 60, 90, 90), (110, 60, 150, 90)]
            texts = [caption(frame_of(things, boxes, [9, 3, 3, 3]), 2, np.random.default_rng(i)) for i in range(300)]
            return {noun for noun in words.noun_forms("rug") for text in texts if f"the {noun} is" in text}

        assert {"rug", "floor mat"} <= told("box")
        assert told("floor mat")
        assert not told("floor mat") & set(words.noun_forms("floor mat"))

    def test_a_material_is_not_said_twice(self):
        things = [Thing(1, "wall", mount="structure"), Thing(2, "paper", material="paper", on=1)]
        frame = frame_of(things, [(0, 0, 160, 120), (40, 40, 80, 80)], [9, 3])
        rngs = [np.random.default_rng(seed) for seed in range(60)]
        texts = [caption(frame, 2, rng) for rng in rngs] + [e.text for rng in rngs for e in expressions(frame, rng, 8)]
        assert any(" paper" in text for text in texts)
        assert not any("paper paper" in text for text in texts)

    def test_empty_frame(self):
        frame = frame_of([], [], [], "road", "country road")
        for level in range(4):
            assert caption(frame, level, np.random.default_rng(0))
        assert all(e.kind == "negative" for e in expressions(frame, np.random.default_rng(0), 5))

    def test_same_seed_same_text(self):
        frame = random_frame(5)
        assert caption(frame, 2, np.random.default_rng(1)) == caption(frame, 2, np.random.default_rng(1))
        assert len({caption(frame, 2, np.random.default_rng(i)) for i in range(30)}) > 25


class TestExpressions:
    def test_each_means_its_target_alone(self):
        kinds: dict[str, int] = {}
        for seed in range(250):
            frame = random_frame(seed)
            for one in expressions(frame, np.random.default_rng(seed), 10):
                kinds[one.kind] = kinds.get(one.kind, 0) + 1
                read = reading(frame, one.meaning)
                assert read == list(one.target_ids), (seed, one)
        assert min(kinds.get(k, 0) for k in ("ordinal", "size", "comparative", "relation", "pattern", "negative")) > 5
        assert len(kinds) == 12

    def test_targets_are_seen_and_have_the_attributes(self):
        for seed in range(100):
            frame = random_frame(seed)
            seen = {s.thing.id: s for s in visible(frame)}
            for one in expressions(frame, np.random.default_rng(seed), 10):
                assert len(one.target_ids) == (0 if one.kind == "negative" else 1)
                for number in one.target_ids:
                    assert seen[number].area >= 0.003
                    assert fits(seen[number], one.meaning, generous=False)

    def test_one_pixel_makes_it_ambiguous(self):
        things = [
            Thing(1, "wall", mount="structure"),
            Thing(2, "vase", colour="red", on=1),
            Thing(3, "vase", colour="red", on=1),
        ]
        frame = frame_of(things, [(0, 0, 160, 120), (20, 50, 50, 90), (100, 60, 101, 61)], [4, 2, 3])
        said = [e for s in range(30) for e in expressions(frame, np.random.default_rng(s), 10)]
        kinds = {e.kind for e in said if e.target_ids == (2,)}
        assert not kinds & {"class", "colour", "ordinal", "comparative"}
        assert "position" in kinds

    def test_pillows_of_a_bed_count_unless_they_are_things(self):
        bed, wall = Thing(2, "bed", on=1), Thing(1, "wall", mount="structure")
        boxes = [(0, 0, 160, 120), (40, 60, 120, 110), (5, 5, 30, 30)]
        loose = frame_of([wall, bed, Thing(3, "pillow", on=1)], boxes, [4, 2, 3])
        on_bed = frame_of([wall, bed, Thing(3, "pillow", on=2)], boxes, [4, 2, 3])

        def found(frame):
            return any(
                e.kind == "class" and e.target_ids == (3,)
                for seed in range(20)
                for e in expressions(frame, np.random.default_rng(seed), 8)
            )

        assert not found(loose)
        assert found(on_bed)

    def test_text_is_clean(self):
        for seed in range(100):
            for one in expressions(random_frame(seed), np.random.default_rng(seed), 10):
                assert not re.search(r"[{}()|\0]|  |SIDE", one.text)
                assert len(one.text.split()) <= 25
                for article, word in re.findall(r"\b(an?) ([a-z-]+)", one.text):
                    assert words.article(word) == article, one.text

    def test_same_seed_same_expressions(self):
        def say(seed) -> list[Expression]:
            return expressions(random_frame(8), np.random.default_rng(seed), 10)

        assert say(1) == say(1)
        assert say(1) != say(2)
        texts = [e.text for e in say(1)]
        assert len(texts) == len(set(texts))
        assert len(expressions(random_frame(8), np.random.default_rng(1), 3)) <= 3


def test_many_words():
    """At least 1,500 different words occur in some 10,000 texts, and all are in the vocabulary."""
    found: set[str] = set()
    for seed in range(900):
        frame, rng = random_frame(seed), np.random.default_rng(seed)
        seen = visible(frame)
        for level in range(4):
            found |= words.words_of(caption(frame, level, rng, seen))
        for one in expressions(frame, rng, 10, seen):
            found |= words.words_of(one.text)
    assert found <= words.vocabulary(), sorted(found - words.vocabulary())
    assert len(found) >= 1500, len(found)
