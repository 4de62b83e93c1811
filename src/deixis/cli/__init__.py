"""The command line. Progress and errors go to stderr, results to stdout."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from deixis import __version__
from deixis.cli import (
    ask,
    bench,
    caption,
    convert,
    data,
    demo,
    depth,
    embed,
    evaluate,
    latent_std,
    models,
    push,
    refine,
    reproduce,
    segment,
    train,
    world,
)
from deixis.cli.common import INTERRUPTED, NO_READER, OK, USAGE, Settings, drop, fail, put, report
from deixis.errors import DeixisError

app = typer.Typer(
    name="deixis",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain: "rich" takes units in brackets for markup, and cuts words in narrow windows
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("depth", short_help="Depth of pictures, in metres.")(depth.depth)
app.command("segment", short_help="The pixels an expression refers to.")(segment.segment)
app.command("ask", short_help="How far something is.")(ask.ask)
app.command("refine", short_help="What ever more words do to depth.")(refine.refine)
app.command("models", short_help="The weights there are.")(models.models)
app.command("convert", short_help="An official checkpoint to a folder for --model.")(convert.convert)
app.command("push", short_help="A model to the model hub.")(push.push)
app.command("eval", short_help="Score a system on a dataset.")(evaluate.evaluate)
app.command("compare", short_help="Two evaluations, pair by pair.")(evaluate.compare)
app.command("reproduce", short_help="A table of the papers beside ours.")(reproduce.reproduce)
app.command("train", short_help="Train a recipe, or go on with it.")(train.train)
app.command("caption", short_help="Captions of pictures, to train with.")(caption.caption)
app.command("embed", short_help="CLIP embeddings of captions.")(embed.embed)
app.command("latent-std", short_help="Standard deviation of pictures' latents.")(latent_std.latent_std)
app.command("bench", short_help="Time and memory at full size.")(bench.bench)
app.command("demo", short_help="Depth, masks and answers for a real photo.")(demo.demo)
app.add_typer(data.app, name="data", short_help="Whether a copy of a dataset is whole; lists of samples.")
app.add_typer(world.app, name="world", short_help="Rooms and roads to learn from, drawn and described.")


def _print_version(wanted: bool) -> None:
    if wanted:
        put(f"deixis {__version__}")
        raise typer.Exit


@app.callback()
def deixis(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of errors; anywhere on the line.")] = False,
) -> None:
    """One photo and a sentence in; metric depth, a mask or a distance out."""
    del version, debug  # both have done their work when this is called


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point: 0 all done, 1 some inputs failed, 2 wrong usage or no usable input.

    Args:
        arguments: what stands after the program's name; the process's own by default.
    """
    _open_standard_streams()
    given = list(sys.argv[1:] if arguments is None else arguments)
    Settings.debug = "--debug" in given
    Settings.command = shlex.join(["deixis", *given])
    code = _run([argument for argument in given if argument != "--debug"])
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        drop(sys.stdout)
        code = NO_READER
    except OSError as error:
        drop(sys.stdout)
        fail(error)
        code = USAGE
    sys.exit(code)


def _run(arguments: list[str]) -> int:
    """The exit code of a command; whatever it raises is reported."""
    try:
        code = app(arguments or ["--help"], prog_name="deixis", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except Exception as error:
        # Usage errors of the parser, whose classes depend on typer's version, know how to show themselves.
        if not hasattr(error, "format_message"):
            fail(error)
            return error.code if isinstance(error, DeixisError) else USAGE
        _report_usage(error)
        return USAGE
    if not arguments:
        return USAGE
    if code == INTERRUPTED:
        report("interrupted; what is written is whole")
    return code if isinstance(code, int) else OK


def _report_usage(error: Exception) -> None:
    """One line for a command line that the parser does not understand."""
    message: str = error.format_message()  # type: ignore[attr-defined]  # a usage error of the parser, whose class moves
    context = getattr(error, "ctx", None)
    path = "deixis" if context is None else context.command_path
    message = " ".join(message.replace("Value error, ", "").split()).rstrip(".")
    report(f"{message[:1].lower()}{message[1:]}; see '{path} --help'")


def _open_standard_streams() -> None:
    """Streams that the caller closed lead nowhere; otherwise the next file opened would stand in for them."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))
