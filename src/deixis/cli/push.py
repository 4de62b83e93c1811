"""``deixis push``."""

from __future__ import annotations

from typing import Annotated

import typer

from deixis.cli.common import OK, JsonOption, emit, put


def push(
    model: Annotated[str, typer.Argument(metavar="FOLDER", help="Weight folder, or a name of 'deixis models'.")],
    hub_id: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Where to; made if it is not there.")],
    private: Annotated[bool, typer.Option("--private", help="If it is made: for its owner's eyes only.")] = False,
    revision: Annotated[
        str | None, typer.Option("--revision", metavar="BRANCH", help="Branch to write.", show_default="main")
    ] = None,
    token: Annotated[
        str | None, typer.Option("--token", help="Of the hub.", show_default="HF_TOKEN or 'hf auth login'")
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Upload a model with its card to the model hub, in one commit. It must load first; stdout gets its address."""
    from deixis.predict import load

    address = load(model, "cpu").push_to_hub(hub_id, private=private, revision=revision, token=token)
    if as_json:
        emit({"model": hub_id, "revision": revision or "main", "address": address})
    else:
        put(address)
    return OK
