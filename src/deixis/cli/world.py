"""``deixis world``."""

from __future__ import annotations

import re
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from deixis.cli.common import LARGEST_SEED, JsonOption, emit, exit_code, field, put, report, say
from deixis.errors import UsageError
from deixis.io import printable

if TYPE_CHECKING:
    from deixis.data.world import Kind
    from deixis.world.generate import Failure

app = typer.Typer(rich_markup_mode=None, help="The synthetic world: rooms and roads from seeds.")


@app.callback()
def world() -> None:
    """The synthetic world: rooms and roads from seeds."""


@app.command("render", short_help="Draw and describe frames.")
def render(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the frames; made if missing.")],
    frames: Annotated[int, typer.Option("--frames", min=1, help="How many of each kind.")],
    kind: Annotated[Literal["rooms", "roads", "both"], typer.Option("--kind", help="What to draw.")] = "both",
    seed: Annotated[
        int, typer.Option("--seed", min=0, max=LARGEST_SEED, help="Of the first frame; the others follow.")
    ] = 0,
    size: Annotated[str, typer.Option("--size", metavar="WxH", help="Width and height [pixels].")] = "176x132",
    samples: Annotated[int, typer.Option("--samples", min=1, help="Rays per pixel; more is cleaner.")] = 4,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Processes that draw.", show_default="one per core")
    ] = None,
    files: Annotated[bool, typer.Option("--files", help="Pictures and JSON for people instead of shards.")] = False,
    meshes: Annotated[bool, typer.Option("--meshes", help="With --files: the geometry as glTF too.")] = False,
    as_json: JsonOption = False,
) -> int:
    """Draw frames of the synthetic world. Rendering to shards, the same command goes on after a stop."""
    if meshes and not files:
        raise UsageError("--meshes", "writes files", "add --files")
    if seed + frames - 1 > LARGEST_SEED:
        raise UsageError(f"--seed {seed}", f"leaves no seeds for {frames} frames", "begin with a smaller one")
    width, height = _size(size)
    from deixis.processes import cores
    from deixis.world.generate import Settings, render_files, render_shards

    settings = Settings(width, height, samples)
    kinds: tuple[Kind, ...] = ("rooms", "roads") if kind == "both" else (kind,)
    failures: list[Failure] = []

    def fail(failure: Failure) -> None:
        failures.append(failure)
        report(f"{failure.kind} {failure.seed}: could not be made ({failure.problem}); report it")

    columns = (TextColumn("render"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    shown = Progress(
        *columns, console=Console(stderr=True), redirect_stdout=sys.stdout.isatty(), disable=sys.stderr.closed
    )
    bar = shown.add_task("render", total=len(kinds) * frames)
    with ExitStack() as stack:

        def advance(count: int) -> None:
            if not shown.live.is_started:  # with the first frame: what is wrong before is told in one line
                stack.enter_context(shown)
            shown.advance(bar, count)

        number = workers or cores()
        if files:
            written = render_files(
                out, kinds, seed, frames, settings, meshes=meshes, workers=number, advance=advance, fail=fail
            )
        else:
            written = render_shards(out, kinds, seed, frames, settings, workers=number, advance=advance, fail=fail)
    done = len(kinds) * frames - len(failures)
    if as_json:
        failed = [{"kind": failure.kind, "seed": failure.seed, "problem": failure.problem} for failure in failures]
        emit({"folder": str(out), "files": [str(path) for path in written], "frames": done, "failed": failed})
    elif done:
        put(field(out))
    say(f"{done} done, {len(failures)} failed; {len(written)} files in {printable(out)}")
    return exit_code(done, len(failures))


@app.command("export", short_help="Frames as a small dataset in a published layout.")
def export(
    shards: Annotated[Path, typer.Argument(metavar="SHARDS", help="Folder that 'deixis world render' wrote.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the dataset; made if missing, and empty.")],
    layout: Annotated[
        str, typer.Option("--as", metavar="LAYOUT", help="nyuv2, nyuv2-mat, kitti …; a wrong one lists them all.")
    ],
    frames: Annotated[int | None, typer.Option("--frames", min=1, help="How many at most.", show_default="all")] = None,
    as_json: JsonOption = False,
) -> int:
    """Write frames as a small dataset with exactly the names and encodings of a published one."""
    from deixis.world.export import LIST, write_layout

    count = write_layout(shards, out, layout, frames)
    if as_json:
        emit({"folder": str(out), "layout": layout, "samples": count})
    else:
        put(field(out))
    listed = f"; pass {printable(out / LIST)} as --list" if (out / LIST).is_file() else ""
    say(f"{count} samples as {layout} in {printable(out)}{listed}")
    return exit_code(count, 0)


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if found is None:
        raise UsageError(f"--size {printable(text)}", "is no size", "give width and height, for example 176x132")
    return int(found[1]), int(found[2])
