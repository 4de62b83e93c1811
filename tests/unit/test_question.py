"""What a user may type, and what it is taken to ask."""

from __future__ import annotations

import contextlib
import time

import pytest

from deixis.errors import UsageError
from deixis.question import MAX_LENGTH, Question, parse_question

ONE_THING = {
    # bare phrases
    "the red chair": "the red chair",
    "red chair": "red chair",
    "chair": "chair",
    "The Red Chair.": "The Red Chair",
    "a lamp?": "a lamp",
    "  the \t red\n chair  ": "the red chair",
    "'the red chair'": "the red chair",
    "the black and white cat": "the black and white cat",
    "salt and pepper": "salt and pepper",
    "the bed between the window and the door": "the bed between the window and the door",
    "the chair next to the window": "the chair next to the window",
    "man on the left, blue shirt": "man on the left, blue shirt",
    "the bowl with the apple and the spoon": "the bowl with the apple and the spoon",
    "second chair from the left": "second chair from the left",
    "the chair on the right": "the chair on the right",
    "the chair further away": "the chair further away",
    "the chair which is closer": "the chair which is closer",
    "the table smaller than the bed": "the table smaller than the bed",
    "the nearest chair": "the nearest chair",
    "the space between the bed and the wall": "the space between the bed and the wall",
    "the lamp near the sofa": "the lamp near the sofa",
    "the wall opposite to us": "the wall opposite to us",
    "well in the garden": "well in the garden",
    "can on the table": "can on the table",
    "May's bike": "May's bike",
    "the chair (red)": "the chair (red)",
    "42": "42",
    "the 2.5 m table": "the 2.5 m table",
    "the red chair, please": "the red chair",
    "find the red chair": "the red chair",
    "show me the lamp": "the lamp",
    "what about the lamp?": "the lamp",
    "and the lamp?": "the lamp",
    # how far
    "how far is the red chair?": "the red chair",
    "How far away is the lamp": "the lamp",
    "HOW FAR IS THE DOOR???": "THE DOOR",
    "how far is the door ?": "the door",
    "how far's the door": "the door",
    "how far’s the door": "the door",
    "how far off is the lamp": "the lamp",
    "how far are the chairs": "the chairs",
    "how far is the red chair away": "the red chair",
    "how far is it to the door": "the door",
    "how far to the door": "the door",
    "how far is the door from here": "the door",
    "how far am i standing from the door": "the door",
    'how far is the "red" chair?': "the red chair",
    "how far is the “red chair”?": "the red chair",
    "how far is the door from the camera?": "the door",
    "how far away from me is the lamp": "the lamp",
    "how far is the lamp away from me": "the lamp",
    "how far is the lamp to me": "the lamp",
    "how far is the lamp from where I'm standing": "the lamp",
    "how far am I from the bed": "the bed",
    "how far away am I from the bed": "the bed",
    "how far are we from the bookshelf": "the bookshelf",
    "how far is it from the bed": "the bed",
    "how far is the camera from the bed": "the bed",
    "how far is it from me to the bed": "the bed",
    "how far is the camera": "the camera",
    "how close is the table": "the table",
    "how close is the table to the camera": "the table",
    "how close am I to the table": "the table",
    "how near is the wall": "the wall",
    "how distant is the mountain": "the mountain",
    "how far is the chair next to the window?": "the chair next to the window",
    "how far is the second chair from the left?": "the second chair from the left",
    "how far is the second chair from the left from me?": "the second chair from the left",
    "how far is the black and white cat?": "the black and white cat",
    "how far is the black or brown dog?": "the black or brown dog",
    "how far is the bed between the window and the door?": "the bed between the window and the door",
    "how far is the chair that is closer than the lamp?": "the chair that is closer than the lamp",
    "how far is the man that's sitting?": "the man that's sitting",
    "how far is the man that is sitting?": "the man that is sitting",
    "how far away is the man who is standing next to the door?": "the man who is standing next to the door",
    "how far is the chair closest to the window?": "the chair closest to the window",
    "how far is the door to the kitchen?": "the door to the kitchen",
    "how far is the gap between the bed and the wall?": "the gap between the bed and the wall",
    "how far is the person closest to the camera": "the person closest to the camera",
    "how far is the rock and roll poster": "the rock and roll poster",
    "how far do I have to walk to the door?": "the door",
    "(how far is the chair?)": "the chair",
    "Distance: the red chair": "the red chair",
    "how far is the nearest chair": "the nearest chair",
    'how far is "the red chair"?': "the red chair",
    "how far the red chair": "the red chair",
    "how far exactly is the lamp": "the lamp",
    "how far would you say the lamp is?": "the lamp",
    "how far do you think the lamp is from us": "the lamp",
    "roughly how far is the lamp": "the lamp",
    "how far is the lamp in this picture?": "the lamp",
    "how far is the man in the picture?": "the man in the picture",
    "the red chair: how far?": "the red chair",
    "there is a red chair, how far is it?": "a red chair",
    "The red chair. How far away is it?": "The red chair",
    # requests
    "can you tell me how far the chair on the left is": "the chair on the left",
    "Could you please tell me how far away the lamp is from me?": "the lamp",
    "tell me how far the lamp is": "the lamp",
    "Please tell me the distance to the lamp.": "the lamp",
    "do you know how far the lamp is?": "the lamp",
    "I want to know how far I am from the bed": "the bed",
    "I'd like to know how far away the bed is": "the bed",
    "Hi, how far is the lamp? Thanks!": "the lamp",
    "Hello! How far is the lamp?": "the lamp",
    "so how far is the lamp": "the lamp",
    "measure the distance to the lamp": "the lamp",
    "estimate how far away the lamp is": "the lamp",
    "tell me where the sink is": "the sink",
    # distance, in any unit
    "what is the distance to the door?": "the door",
    "what's the distance to the door?": "the door",
    "Whats the distance to the door": "the door",
    "what’s the distance to the door": "the door",
    "distance of the door from the camera": "the door",
    "the distance to the door": "the door",
    "distance from the door": "the door",
    "distance from me to the door": "the door",
    "distance to the door from here": "the door",
    "what is the distance between me and the door": "the door",
    "distance between the camera and the door": "the door",
    "what is the depth of the sink": "the sink",
    "the red chair's distance": "the red chair",
    "what is the lamp's distance from the camera?": "the lamp",
    "at what distance is the lamp": "the lamp",
    "at which distance is the lamp": "the lamp",
    "what distance is the lamp from us": "the lamp",
    "what the distance to the lamp is": "the lamp",
    "how big is the distance to the lamp": "the lamp",
    "how many metres to the sofa": "the sofa",
    "how many meters to the sofa": "the sofa",
    "how many feet away is the sofa?": "the sofa",
    "how many metres is the sofa from me": "the sofa",
    "how many metres am I from the sofa": "the sofa",
    "how many feet is it to the sofa": "the sofa",
    "how many meters are there to the sofa": "the sofa",
    "what is the distance to the door in feet?": "the door",
    "what is the distance (in metres) to the door?": "the door",
    "in metres, how far is the door?": "the door",
    # where; near or far
    "where is the sink": "the sink",
    "Where's the sink?": "the sink",
    "is the lamp far away?": "the lamp",
    "is the lamp close to me?": "the lamp",
    # other languages: the phrase as it stands
    "der rote Stuhl": "der rote Stuhl",
    "красный стул": "красный стул",
    "赤い椅子": "赤い椅子",
    "红色的椅子？": "红色的椅子",  # noqa: RUF001
    "빨간 의자": "빨간 의자",
    "الكرسي الأحمر؟": "الكرسي الأحمر",
    "लाल कुर्सी": "लाल कुर्सी",
    "¿la silla roja?": "la silla roja",
    "how far is the café table": "the café table",
    "how far is 赤い椅子?": "赤い椅子",
}

TWO_THINGS = {
    # which is nearer
    "which is nearer, the lamp or the sofa?": ("nearer", "the lamp", "the sofa"),
    "which one is closer: the lamp or the sofa": ("nearer", "the lamp", "the sofa"),
    "Which is closer the lamp or the sofa": ("nearer", "the lamp", "the sofa"),
    "which's nearer, lamp or sofa?": ("nearer", "lamp", "sofa"),
    "which is nearer - the lamp or the sofa": ("nearer", "the lamp", "the sofa"),
    "what is farther away, the bed or the desk": ("farther", "the bed", "the desk"),
    "what's further from the camera, the bed or the desk?": ("farther", "the bed", "the desk"),
    "who is closer to us, the man or the woman?": ("nearer", "the man", "the woman"),
    "which is the nearest, the lamp or the sofa?": ("nearer", "the lamp", "the sofa"),
    "which of the lamp and the sofa is nearer?": ("nearer", "the lamp", "the sofa"),
    "which of them is nearer, the lamp or the sofa?": ("nearer", "the lamp", "the sofa"),
    "which object is more distant, the lamp or the sofa?": ("farther", "the lamp", "the sofa"),
    "which chair is nearer, the red one or the blue one?": ("nearer", "the red chair", "the blue chair"),
    "the lamp or the sofa, which is closer": ("nearer", "the lamp", "the sofa"),
    "The lamp or the sofa? Which one is closer?": ("nearer", "The lamp", "the sofa"),
    "between the lamp and the sofa, which is nearer?": ("nearer", "the lamp", "the sofa"),
    "of the lamp and the sofa, which is further away?": ("farther", "the lamp", "the sofa"),
    "tell me which is nearer, the lamp or the sofa": ("nearer", "the lamp", "the sofa"),
    "which is nearer, the black and white cat or the dog?": ("nearer", "the black and white cat", "the dog"),
    "which is nearer, the black or brown dog or the sofa?": ("nearer", "the black or brown dog", "the sofa"),
    "which is nearer, the bed between the window and the door or the lamp": (
        "nearer",
        "the bed between the window and the door",
        "the lamp",
    ),
    "which is nearer, the man with the hat and the bag or the woman": (
        "nearer",
        "the man with the hat and the bag",
        "the woman",
    ),
    "which is nearer, the cup bigger than the plate or the fork": (
        "nearer",
        "the cup bigger than the plate",
        "the fork",
    ),
    "closer: the lamp or the sofa?": ("nearer", "the lamp", "the sofa"),
    # is A nearer than B
    "is the lamp nearer than the sofa?": ("nearer", "the lamp", "the sofa"),
    "Is the lamp closer to me than the sofa?": ("nearer", "the lamp", "the sofa"),
    "is the lamp further away from us than the sofa": ("farther", "the lamp", "the sofa"),
    "is the lamp nearer or farther than the sofa?": ("nearer", "the lamp", "the sofa"),
    "is the chair or the table further": ("farther", "the chair", "the table"),
    "is the chair closer or the table?": ("nearer", "the chair", "the table"),
    "are the chairs farther than the table?": ("farther", "the chairs", "the table"),
    "is the cup smaller than the plate nearer than the fork?": (
        "nearer",
        "the cup smaller than the plate",
        "the fork",
    ),
    "is the lamp nearer than the chair that is closer than the bed?": (
        "nearer",
        "the lamp",
        "the chair that is closer than the bed",
    ),
    "tell me whether the lamp is nearer than the sofa": ("nearer", "the lamp", "the sofa"),
    "the lamp is nearer than the sofa, right?": ("nearer", "the lamp", "the sofa"),
    "is it the lamp or the sofa that is closer?": ("nearer", "the lamp", "the sofa"),
    "the lamp or the sofa, which one's closer?": ("nearer", "the lamp", "the sofa"),
    # both, and the gap
    "how much further is the door than the bed": ("gap", "the door", "the bed"),
    "how much closer the door is than the bed": ("gap", "the door", "the bed"),
    "by how much is the door closer than the bed?": ("gap", "the door", "the bed"),
    "how far apart in depth are the chair and the table": ("gap", "the chair", "the table"),
    "how far apart are chair and table?": ("gap", "chair", "table"),
    "how close together are the chair and the table": ("gap", "the chair", "the table"),
    "how far are the chair and the table apart": ("gap", "the chair", "the table"),
    "how far are the chair and the table from each other": ("gap", "the chair", "the table"),
    "how far are the chair and the table?": ("gap", "the chair", "the table"),
    "how far is the chair and how far is the table?": ("gap", "the chair", "the table"),
    "the lamp and the sofa": ("gap", "the lamp", "the sofa"),
    "distance between the bed and the window": ("gap", "the bed", "the window"),
    "what's the distance between the bed and the window?": ("gap", "the bed", "the window"),
    "What is the gap between the bed and the window?": ("gap", "the bed", "the window"),
    "distance between the black and white cat and the door": ("gap", "the black and white cat", "the door"),
    "distance between the bed between the window and the door and the lamp": (
        "gap",
        "the bed between the window and the door",
        "the lamp",
    ),
    "distance between the lamp and the bed between the window and the door": (
        "gap",
        "the lamp",
        "the bed between the window and the door",
    ),
    "distance from the chair next to the bed to the door": ("gap", "the chair next to the bed", "the door"),
    "distance from the bed to the window": ("gap", "the bed", "the window"),
    "how many metres between the bed and the window": ("gap", "the bed", "the window"),
    "how many feet are there between the bed and the window": ("gap", "the bed", "the window"),
    "how far is it from the bed to the window": ("gap", "the bed", "the window"),
    "how far is the chair from the window": ("gap", "the chair", "the window"),
    "how far is the lamp from the back of the room": ("gap", "the lamp", "the back of the room"),
    "how far is the second chair from the left from the door": (
        "gap",
        "the second chair from the left",
        "the door",
    ),
    "how far from the sofa is the lamp": ("gap", "the sofa", "the lamp"),
    "how far behind the sofa is the lamp": ("gap", "the sofa", "the lamp"),
    "how close is the chair to the table": ("gap", "the chair", "the table"),
    "how close is the chair next to the bed to the door": ("gap", "the chair next to the bed", "the door"),
    "tell me how far the lamp is from the sofa": ("gap", "the lamp", "the sofa"),
    "is the lamp close to the sofa?": ("gap", "the lamp", "the sofa"),
    "chair vs table": ("gap", "chair", "table"),
    "the bed & the lamp": ("gap", "the bed", "the lamp"),
    "difference in depth between the chair and the table": ("gap", "the chair", "the table"),
    "compare the lamp and the sofa": ("gap", "the lamp", "the sofa"),
}

NOT_A_DISTANCE = {
    "": "is not a question",
    "   ": "is not a question",
    "???": "is not a question",
    "—…": "is not a question",
    "hello?": "names no object",
    "yes": "names no object",
    "what colour is the sky?": "is not understood as a question about distance",
    "is there a chair?": "is not understood as a question about distance",
    "is the chair red?": "is not understood as a question about distance",
    "how many chairs are there?": "is not understood as a question about distance",
    "how many metres wide is the bed?": "is not understood as a question about distance",
    "how tall is the lamp": "is not understood as a question about distance",
    "who is the man on the left?": "is not understood as a question about distance",
    "can you fly?": "is not understood as a question about distance",
    "tell me a joke": "is not understood as a question about distance",
    "I like chairs": "is not understood as a question about distance",
    "how far?": "is not understood as a question about distance",
    "how far is it?": "names no object",
    "how far is the": "names no object",
    "where am I?": "names no object",
    "what is the distance?": "is not understood as a question about distance",
    "distance": "is not understood as a question about distance",
    "distance camera chair": "is not understood as a question about distance",
    "howfar is the chair": "is not understood as a question about distance",
    "describe the picture": "is not understood as a question about distance",
    "is the lamp nearer to the sofa than the bed?": "is not understood as a question about distance",
    "how far are the two chairs apart": "compares, but names only 'the two chairs'",
    "the": "names no object",
    "which is nearer?": "is not understood as a question about distance",
    "which is nearer, the lamp?": "compares, but names only 'the lamp'",
    "is the lamp nearer?": "compares, but names only 'the lamp'",
    "which of the two chairs is nearer?": "compares, but names only 'the two chairs'",
    "distance between the bed": "compares, but names only 'the bed'",
    "which is nearer, the lamp, the sofa or the bed?": "names 3 things",
    "is the lamp nearer than the sofa or the bed?": "names 3 things",
    "how far are the lamp, the sofa and the bed?": "names 3 things",
    "the lamp and the sofa and the bed": "names 3 things",
    "which is nearer, the lamp or The Lamp?": "names 'the lamp' twice",
    "how far is the lamp? I mean the red one": "asks several things",
    "how far is the chair, how far is the table?": "asks several things",
}


@pytest.mark.parametrize(("text", "referent"), ONE_THING.items())
def test_one_thing(text: str, referent: str) -> None:
    assert parse_question(text) == Question(text, "distance", (referent,))


@pytest.mark.parametrize(("text", "expected"), TWO_THINGS.items())
def test_two_things(text: str, expected: tuple[str, str, str]) -> None:
    question = parse_question(text)
    assert (question.kind, *question.referents) == expected


@pytest.mark.parametrize(("text", "problem"), NOT_A_DISTANCE.items())
def test_not_a_distance(text: str, problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_question(text)
    line = str(caught.value)
    assert problem in line
    assert line.startswith("'")  # the input, then the problem, then the remedy, on one line
    assert ";" in line
    assert "\n" not in line


def test_a_long_text_is_refused_quickly() -> None:
    with pytest.raises(UsageError, match=f"the limit is {MAX_LENGTH}"):
        parse_question("how far is " * 10_000)


@pytest.mark.parametrize("piece", ["is the a ", "from to ", "between and ", "or the ", "how far is ", "a, "])
def test_no_text_takes_long_to_read(piece: str) -> None:
    text = "how far is the " + piece * (MAX_LENGTH // len(piece) - 4)
    start = time.perf_counter()
    with contextlib.suppress(UsageError):
        parse_question(text)
    assert time.perf_counter() - start < 2.0
