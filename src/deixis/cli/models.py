"""``deixis models``."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from deixis.cli.common import OK, JsonOption, emit


def models(as_json: JsonOption = False) -> int:
    """Every set of weights: what it gives, its licence and size, where it lies or comes from."""
    from deixis.registry import weights

    found = weights()
    if as_json:
        emit([weight.to_dict() for weight in found])
        return OK
    table = Table(box=None, pad_edge=False)
    for column in ("name", "task", "kind", "licence", "MB", "where"):
        table.add_column(column, overflow="fold")
    for weight in found:
        size = "" if weight.size_mb is None else f"{weight.size_mb:.1f}"
        where = "here" if weight.available else f"not here: {weight.source}"
        table.add_row(weight.name, weight.task, weight.kind or "mask", weight.licence, size, where)
    Console(soft_wrap=False).print(table)
    return OK
