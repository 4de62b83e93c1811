"""``deixis latent-std``."""

from __future__ import annotations

from typing import Annotated

import typer

from deixis.cli.common import DeviceOption, JsonOption, MaxPixelsOption, emit, exit_code, fail, progress, put, say
from deixis.io import DEFAULT_MAX_PIXELS, collect_inputs, read_image


def latent_std(
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE|FOLDER", help="Pictures, or folders of pictures.", show_default=False),
    ],
    model: Annotated[
        str,
        typer.Option(
            "--model", metavar="NAME|FOLDER", help="Whose autoencoder: a diffusers or weight folder, or a hub id."
        ),
    ],
    height: Annotated[
        int | None,
        typer.Option(
            "--height", min=8, help="Resize the pictures to this height [pixels].", show_default="as they are"
        ),
    ] = None,
    max_pixels: MaxPixelsOption = DEFAULT_MAX_PIXELS,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> int:
    """Standard deviation of the latents of a dataset's pictures: EVP's switch 'std' (section 3.3)."""
    items = collect_inputs(images)
    encode = spread = None
    if not all(item.error for item in items):
        from deixis.training.latent_std import LatentSpread, picture_latents

        encode, spread = picture_latents(model, device), LatentSpread()
    failures: list[dict[str, str]] = []
    with progress(items, "latent-std", late=True) as bar:
        for item in items:
            try:
                if item.error is not None:
                    raise item.error
                assert encode is not None  # there is an encoder if any item has no error
                assert spread is not None
                spread.add(encode(read_image(item.path, max_pixels=max_pixels), height))
            except Exception as error:
                # Whatever is wrong with one picture is no reason to leave the others out.
                fail(error, item.path)
                failures.append({"input": str(item.path), "problem": str(error)})
            bar.advance()
    if spread is None or not spread.pictures:
        return exit_code(0, len(failures))
    if as_json:
        emit(
            {
                "std": spread.std(),
                "channels": spread.channels(),
                "pictures": spread.pictures,
                "values": spread.values,
                "model": model,
                "height": height,
                "failed": failures,
            }
        )
    else:
        put(f"{spread.std():.6g}")
    say(f"{spread.pictures} pictures, {len(failures)} failed")
    return exit_code(spread.pictures, len(failures))
