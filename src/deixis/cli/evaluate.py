"""``deixis eval`` and ``deixis compare``."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from deixis.cli.common import (
    LARGEST_SEED,
    OK,
    OUT,
    DeviceOption,
    JsonOption,
    Settings,
    StepsOption,
    emit,
    exit_code,
    put,
    report,
    say,
)
from deixis.errors import UsageError
from deixis.io import check_out, printable, write_json
from deixis.registry import find
from deixis.types import TTA

if TYPE_CHECKING:
    from deixis.evaluation.settings import Task

ASK = "ask"


def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="Name (see 'deixis models') or weight folder; 'ask' joins two.", show_default=False
        ),
    ],
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="world, nyuv2-rooms ….", show_default=False)],
    root: Annotated[Path, typer.Option("--root", metavar="DIR", help="Where the dataset lies.")],
    split: Annotated[
        str | None, typer.Option("--split", metavar="NAME", help="Which part.", show_default="the dataset's first")
    ] = None,
    list_file: Annotated[
        Path | None,
        typer.Option("--list", metavar="FILE", help="The list of samples.", show_default="the published one"),
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only N samples, evenly spread.")] = None,
    protocol: Annotated[
        str | None,
        typer.Option("--protocol", metavar="NAME", help="Another than the first, or a benchmark's name."),
    ] = None,
    text: Annotated[
        str,
        typer.Option("--text", metavar="SOURCE", help="none, or a text of the samples: class, caption …."),
    ] = "none",
    depth_model: Annotated[
        str | None, typer.Option("--depth-model", metavar="NAME|PATH", help="Of 'ask'.", show_default="evp-depth-mini")
    ] = None,
    mask_model: Annotated[
        str | None, typer.Option("--mask-model", metavar="NAME|PATH", help="Of 'ask'.", show_default="evp-refer-mini")
    ] = None,
    tta: Annotated[
        TTA, typer.Option("--tta", help="flip: the mean with the mirrored picture; windows: as in the papers.")
    ] = "none",
    steps: StepsOption = None,
    ensemble: Annotated[int, typer.Option("--ensemble", min=1, help="Maps from as many noises, merged.")] = 1,
    resolution: Annotated[
        int | None,
        typer.Option(
            "--resolution",
            min=0,
            help="Longer side for Marigold, Lotus, E2E-FT; 0: as it is.",
            show_default="their own",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, max=LARGEST_SEED, help="Of systems that draw noise.")] = 0,
    processes: Annotated[int, typer.Option("--processes", min=1, help="Side by side, of one thread each.")] = 1,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Folder for the results.", show_default=f"{OUT}/eval/MODEL-DATASET"),
    ] = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> int:
    """Score a system on a dataset: rows.csv, result.json and report.html in --out.

    The same command goes on where an interrupted run stopped. Numbers do not depend on --processes. Of a copy that is
    not whole what is there is scored, under no benchmark's name; --protocol with such a name (metric-nyuv2,
    affine-diode …) refuses whatever differs from what is published.
    """
    folder = OUT / "eval" / f"{Path(model).name}-{dataset}" if out is None else out
    check_out(folder)
    if model == ASK:
        model, mask_model = depth_model or "evp-depth-mini", mask_model or "evp-refer-mini"
        find(mask_model)
    else:
        for name, value in (("--depth-model", depth_model), ("--mask-model", mask_model)):
            if value is not None:
                raise UsageError(f"{name} {printable(value)}", "goes with the model 'ask'", "leave it out")
    find(model)

    from deixis.evaluation.run import Listener
    from deixis.evaluation.run import evaluate as run
    from deixis.evaluation.scoring import Plan

    task = _task(model, mask_model)
    _check_options(task, model, text, tta, {"--steps": steps, "--ensemble": ensemble, "--resolution": resolution})
    plan = Plan(
        task=task,
        model=model,
        dataset=dataset,
        root=str(root),
        mask_model=mask_model,
        split=split,
        list_file=None if list_file is None else str(list_file),
        protocol=protocol,
        text=text,
        tta=tta,
        steps=steps,
        ensemble=ensemble,
        resolution=resolution,
        seed=seed,
        device=device,
    )
    columns = (TextColumn("eval"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    shown = Progress(
        *columns, console=Console(stderr=True), redirect_stdout=sys.stdout.isatty(), disable=sys.stderr.closed
    )
    bar = shown.add_task("eval", total=None)
    with ExitStack() as stack:

        def start(total: int, done: int) -> None:
            stack.enter_context(shown)  # what is wrong before is told in one line
            shown.update(bar, total=total, completed=done)

        listener = Listener(start, lambda: shown.advance(bar), report)
        result = run(plan, folder, Settings.command, listener, limit=limit, processes=processes)
    if as_json:
        emit(result)
    else:
        published = result["benchmark"] or ("differs" if result["differs"].startswith("not ") else "none")
        text = provenance(result)
        put("\t".join(("metric", "value", "low", "high", "unit", "of", "text", "benchmark")))
        for name, one in result["metrics"].items():
            if one["value"] is not None:
                numbers = [f"{one[key]:.6g}" for key in ("value", "low", "high")]
                put("\t".join([name, *numbers, one["unit"], str(one["samples"]), text, published]))
    for note in result["notes"]:
        say(f"note: {note}")
    counts = f"{result['scored']} scored, {result['skipped']} without anything to score, {result['failed']} failed"
    say(f"{counts}; results in {printable(folder)}")
    return exit_code(result["scored"], result["failed"])


def _task(model: str, mask_model: str | None) -> Task:
    """What a model gives."""
    from deixis.checkpoints.folder import read_manifest
    from deixis.errors import ModelError
    from deixis.registry import SYSTEMS, is_pipeline

    if mask_model is not None:
        return "ask"
    folder = find(model)
    if is_pipeline(folder):
        return "affine"
    name = read_manifest(folder).system
    if name not in SYSTEMS:
        raise ModelError(folder, f"is of the system '{name}'", f"this version knows {', '.join(SYSTEMS)}")
    return "refer" if SYSTEMS[name].task == "refer" else "metric"


def _check_options(task: Task, model: str, text: str, tta: TTA, noisy: dict[str, int | None]) -> None:
    """Refuse options that would do nothing."""
    if task == "refer" and text != "none":
        raise UsageError(f"--text {printable(text)}", f"{model} is told the expressions alone", "leave it out")
    if task in ("affine", "refer") and tta != "none":
        raise UsageError(f"--tta {tta}", f"{model} has no such augmentation", "leave it out")
    for name, value in noisy.items():
        if task != "affine" and value not in (None, 1):
            raise UsageError(f"{name} {value}", f"{model} has no such setting", "leave it out")


def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="Results of 'deixis eval'.", show_default=False)],
    b: Annotated[Path, typer.Argument(metavar="B", help="Others of the same samples.", show_default=False)],
    metric: Annotated[str | None, typer.Option("--metric", metavar="NAME", help="Only this one.")] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Folder for compare.json.")] = None,
    as_json: JsonOption = False,
) -> int:
    """Paired differences of two evaluations, A less B, with 95 % intervals over images."""
    if out is not None:
        check_out(out)
    from deixis.evaluation.compare import compare as pair

    found = pair(a, b, metric)
    if as_json:
        emit(found)
    else:
        texts = [provenance(found[side]) for side in ("a", "b")]
        head = ("metric", "A", "B", "A-B", "low", "high", "A better", "equal", "of", "text A", "text B")
        put("\t".join(head))
        for name, one in found["metrics"].items():
            numbers = [f"{one[key]:.6g}" for key in ("a", "b", "difference", "low", "high")]
            counts = [str(one[key]) for key in ("a_better", "equal", "samples")]
            put("\t".join([name, *numbers, *counts, *texts]))
    if found["text_differs"] is not None:
        say(f"note: {found['text_differs']}")
    if out is not None:
        write_json(out / "compare.json", found)
    return OK


def provenance(result: dict[str, Any]) -> str:
    """What kinds of text a system was told, as a column of a table."""
    return ",".join(result["text_provenance"])
