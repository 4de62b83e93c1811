"""``deixis reproduce``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from deixis.cli.common import OK, OUT, SOME_FAILED, DeviceOption, JsonOption, Settings, emit, fail, put, say
from deixis.errors import DeixisError, UsageError
from deixis.io import check_out, printable


def reproduce(
    name: Annotated[
        str, typer.Argument(metavar="EXPERIMENT", help="evp.table1 …; a wrong one lists them all.", show_default=False)
    ],
    root: Annotated[
        list[str] | None, typer.Option("--root", metavar="DATASET=DIR", help="Where a dataset lies; repeatable.")
    ] = None,
    weight: Annotated[
        list[str] | None,
        typer.Option("--weights", metavar="NAME=DIR", help="Official weights, or a mini of one's own; repeatable."),
    ] = None,
    mini: Annotated[bool, typer.Option("--mini", help="Run it whole, with the minis.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="With --mini: minutes in place of hours.")] = False,
    world: Annotated[
        Path | None, typer.Option("--world", metavar="DIR", help="With --mini: shards.", show_default="rendered")
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the results.")] = OUT / "reproduce",
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> int:
    """A table of the papers: its numbers, official weights re-scored, ours, and what is missing.

    What can be measured with what is given is; the same command goes on where it was interrupted. Without anything
    the paper's numbers are printed, and what is missing.
    """
    check_out(out)
    for option, value in (("--quick", quick), ("--world", world)):
        if value and not mini:
            raise UsageError(option, "goes with --mini", "add --mini")
    from deixis.reproduction.experiments import experiment as find

    experiment = find(name)
    from deixis.devices import choose_device
    from deixis.reproduction.official import Given, check_given, rescored
    from deixis.reproduction.report import stored, write

    roots = {key: Path(value) for key, value in _pairs("--root", root)}
    weights = dict(_pairs("--weights", weight))
    check_given(roots, weights)
    errors: list[DeixisError] = []

    def failed(error: DeixisError) -> None:
        errors.append(error)
        fail(error)

    given = Given(roots, weights, world, out, Settings.command, quick, say, failed, str(choose_device(device)))
    known = stored(out, experiment)
    rows, missing = rescored(experiment, given)
    again = {_key(one) for one in rows}
    official = [one for one in known["official"] if _key(one) not in again]
    official += [{**one, "command": Settings.command} for one in rows]
    ours: dict[str, Any] = known["ours"]
    if mini:
        from deixis.reproduction.minis import run_mini

        result, lacking = run_mini(experiment, given)
        ours[result.pop("scale")] = result
        missing += lacking
    elif not ours:
        does = "scores the shipped ones" if experiment.mini == "scores" else "trains and measures"
        missing.append(f"ours: --mini {does}, about {experiment.hours:g} h on two cores; --mini --quick takes minutes")
    content = {
        "experiment": experiment.name,
        "command": Settings.command,
        **experiment.published,
        "official": official,
        "ours": ours,
        "missing": missing,
    }
    text = write(out, experiment, content)
    if as_json:
        emit(content)
    else:
        put(text)
    say(f"results in {printable(out)}")
    return SOME_FAILED if errors else OK


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    """What tells rows apart."""
    return row["row"], row["benchmark"], row["steps"]


def _pairs(option: str, given: list[str] | None) -> list[tuple[str, str]]:
    found = []
    for one in given or []:
        name, sign, value = one.partition("=")
        if not (name and sign and value):
            raise UsageError(f"{option} {printable(one)}", "is no pair", f"write {option} NAME=DIR")
        found.append((name, value))
    return found
