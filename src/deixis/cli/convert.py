"""``deixis convert``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from deixis.cli.common import OK, JsonOption, emit, field, put
from deixis.errors import CheckpointError


def convert(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="Official checkpoint; a weight folder with --to official.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write; a file with --to official.")],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            help="evp-depth-nyu, evp-depth-kitti, evp-refer, vpd-depth, vpd-refer; or official, the way back.",
        ),
    ],
    embedding: Annotated[
        Path | None,
        typer.Option("--embedding", help="EVP's aggregated text embedding, where the checkpoint lacks it."),
    ] = None,
    clip: Annotated[
        Path | None,
        typer.Option("--clip", help="Folder with tokenizer/ (and text_encoder/) of CLIP ViT-L/14."),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Convert an official EVP or VPD checkpoint to a folder that --model takes, or back; every key accounted for."""
    for path in (checkpoint, embedding, clip):
        if path is not None and not os.path.exists(path):  # noqa: PTH110 - the other raises where a name is too long
            raise CheckpointError(path, "does not exist", "check the path")
    # What is wrong with the call is found before the seconds that these take to import.
    from deixis.checkpoints.convert import convert as convert_file
    from deixis.checkpoints.convert import revert

    if to == "official":
        count = revert(checkpoint, out)
        if as_json:
            emit({"written": str(out), "tensors": count})
        else:
            put(f"{count} tensors under their official keys\t{field(out)}")
        return OK
    report = convert_file(checkpoint, out, to, embedding, clip)
    if as_json:
        emit({"written": str(out), **report.to_dict()})
    else:
        put("\n".join(report.lines()))
        put(f"{report.system}\t{field(out)}")
    return OK
