"""``deixis bench``."""

from __future__ import annotations

from typing import Annotated

import typer

from deixis.cli.common import OK, DeviceOption, JsonOption, emit, put, say
from deixis.errors import UsageError


def bench(
    resolution: Annotated[int, typer.Option("--resolution", min=64, help="Longer side of the picture [px].")] = 768,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Denoising steps of Marigold.")] = 1,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Times that all are measured, in turns.")] = 1,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Pictures after the first; the fastest counts.")] = 2,
    threads: Annotated[int, typer.Option("--threads", min=1, help="CPU threads.")] = 2,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> int:
    """Time and memory of Marigold, Lotus and E2E-FT at full size, beside diffusers' Marigold, on this machine.

    Needs 6 GB of disk in the temporary folder and 6 GB of memory, more for larger pictures. A line each: name,
    seconds per picture, of the first, until loaded, peak MB (of the GPU's memory, where it runs on one): of several
    rounds the shortest times and the median peak.
    """
    if resolution % 32:
        raise UsageError(f"--resolution {resolution}", "is no multiple of 32", f"choose {resolution // 32 * 32}")
    from deixis.bench import Row, merged
    from deixis.bench import bench as measure
    from deixis.devices import choose_device

    def line(row: Row) -> str:
        numbers = (f"{row.seconds:.2f}", f"{row.first_seconds:.2f}", f"{row.load_seconds:.2f}", f"{row.peak_mb:.0f}")
        return "\t".join((row.name, *numbers))

    found = []
    # A row takes minutes, and a later one may fail: each is shown at once, on stdout if it is the result already.
    show = say if as_json or rounds > 1 else put
    where = str(choose_device(device))
    for row in measure(
        resolution=resolution, steps=steps, rounds=rounds, repeats=repeats, threads=threads, device=where
    ):
        found.append(row)
        show(line(row))
    if as_json:
        emit([row.to_dict() for row in merged(found)])
    elif rounds > 1:
        for row in merged(found):
            put(line(row))
    return OK
