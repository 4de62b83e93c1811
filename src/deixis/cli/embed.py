"""``deixis embed``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deixis.cli.common import OK, DeviceOption, JsonOption, emit, field, progress, put, say
from deixis.errors import UsageError
from deixis.io import check_out, printable


def embed(
    captions: Annotated[
        Path, typer.Argument(metavar="CAPTIONS", help="File of 'deixis caption', or folder of world shards.")
    ],
    clip: Annotated[
        str,
        typer.Option(
            "--clip",
            metavar="NAME|FOLDER",
            help="Text tower and vocabulary: a diffusers or weight folder, one of CLIP, or a hub id, for example "
            "openai/clip-vit-large-patch14.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE.safetensors", help="File of the embeddings.")] = Path(
        "embeddings.safetensors"
    ),
    kind: Annotated[
        list[str] | None,
        typer.Option(
            "--kind",
            metavar="v|d|vd|i",
            help="i: the vectors of each caption; v: one vector of each; d: mean of i; vd: mean of v. Repeatable.",
            show_default="all",
        ),
    ] = None,
    tokens: Annotated[int, typer.Option("--tokens", min=2, help="Tokens of a caption, cut and padded.")] = 40,
    level: Annotated[
        int, typer.Option("--level", min=0, max=3, help="World: captions from a few words, 0, to distances, 3.")
    ] = 2,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Captions at once.")] = 64,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> int:
    """CLIP embeddings of captions, single and averaged over the dataset (EVP section 3.4), as safetensors."""
    check_out(out.absolute().parent)
    if out.is_dir():
        raise UsageError(f"--out {printable(out)}", "is a folder", "name a file, for example embeddings.safetensors")
    from deixis.data.captions import count_captions

    count = count_captions(captions)
    # What is wrong with the call is found before the seconds that these take to import.
    from deixis.conditioning.embed import KINDS, check_kinds, embed_captions

    kinds = KINDS if kind is None else check_kinds(kind)
    with progress(range(count), "embed", late=True) as bar:

        def advance(count: int) -> None:
            for _ in range(count):
                bar.advance()

        about = embed_captions(
            captions,
            clip,
            out,
            kinds=kinds,
            tokens=tokens,
            level=level,
            batch=batch,
            device=device,
            advance=advance,
        )
    if as_json:
        emit({"file": str(out), **about, "count": int(about["count"]), "tokens": tokens})
    else:
        put(field(out))
    say(f"{about['count']} captions embedded; in {printable(out)}")
    return OK
