"""Where a run can be looked at while it goes on: TensorBoard, or Weights & Biases when asked."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deixis.errors import DeixisError, UsageError

BOARDS = ("tensorboard", "wandb", "none")
Board = Callable[[dict[str, float]], None]


def open_board(kind: str, out: Path, rows: list[dict[str, float]], say: Callable[[str], None]) -> Board:
    """What takes the rows of a run's log from now on.

    Args:
        kind: one of :data:`BOARDS`.
        out: folder of the run; its name is that of the run.
        rows: what the log has already. TensorBoard's files are written anew from it: an interrupted run may have
            left less in them, or more.
        say: told once if TensorBoard is not installed.

    Raises:
        UsageError: if Weights & Biases is asked for and not installed.
        DeixisError: if the files cannot be written.
    """
    if kind == "wandb":
        return _wandb(out)
    if kind == "none":
        return lambda row: None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        say("TensorBoard is not installed (pip install 'deixis[train]'): the numbers are in log.jsonl alone")
        return lambda row: None
    folder = out / "tensorboard"
    shutil.rmtree(folder, ignore_errors=True)
    writer: Any = SummaryWriter(str(folder))

    def write(row: dict[str, float]) -> None:
        try:
            for name, value in _named(row).items():
                writer.add_scalar(name, value, int(row["step"]))
            if "loss" not in row:
                writer.flush()
        except OSError as error:
            raise DeixisError(
                folder, f"cannot be written ({error.strerror})", "free space on the disk and start it again"
            ) from error

    for row in rows:
        write(row)
    return write


def _wandb(out: Path) -> Board:
    try:
        import wandb  # type: ignore[import-not-found,unused-ignore]  # only for those who ask for it
    except ImportError as error:
        raise UsageError("log wandb", "is not installed", "pip install wandb, or pass log=tensorboard") from error
    # The same name again goes on with the same run.
    run = wandb.init(project="deixis", dir=str(out), name=out.name, id=out.name, resume="allow")
    return lambda row: run.log(_named(row), step=int(row["step"]))


def _named(row: dict[str, float]) -> dict[str, float]:
    """Numbers under the headings ``train`` and ``val``."""
    return {
        name.replace("val_", "val/", 1) if name.startswith("val_") else f"train/{name}": value
        for name, value in row.items()
        if name != "step"
    }
