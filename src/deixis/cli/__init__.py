"""The command line. Progress and errors go to stderr, results to stdout."""

from __future__ import annotations

import sys

import typer

from deixis.cli import ask, convert, demo, depth, models, segment, train
from deixis.cli.common import OK, USAGE, report
from deixis.errors import DeixisError

app = typer.Typer(
    name="deixis",
    help="One photo and a sentence in; metric depth, a mask or a distance out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("depth")(depth.depth)
app.command("segment")(segment.segment)
app.command("ask")(ask.ask)
app.command("models")(models.models)
app.command("convert")(convert.convert)
app.command("train")(train.train)
app.command("demo")(demo.demo)


def main() -> None:
    """Entry point: 0 all done, 1 some inputs failed, 2 wrong usage or no usable input."""
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        code = app(arguments, standalone_mode=False)
        sys.exit(code if isinstance(code, int) else OK)
    except typer.Abort:
        sys.exit(130)
    except DeixisError as error:
        if debug:
            raise
        report(str(error))
        sys.exit(USAGE)
    except KeyboardInterrupt:
        if debug:
            raise
        report("interrupted; what is written is whole")
        sys.exit(130)
    except Exception as error:
        # click's own usage errors know how to show themselves.
        show = getattr(error, "show", None)
        if show is None or debug:
            raise
        show()
        sys.exit(getattr(error, "exit_code", USAGE))
