"""Where a run can be looked at while it goes on: TensorBoard, or Weights & Biases when asked."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from deixis.errors import DeixisError, UsageError
from deixis.training.log import Board, pictures_in

BOARDS = ("tensorboard", "wandb", "none")
# What the sheets of validation pictures are called.
PICTURES = "val/pictures"


def open_board(kind: str, out: Path, rows: list[dict[str, float]], say: Callable[[str], None]) -> Board:
    """What takes the rows of a run's log from now on.

    Args:
        kind: one of :data:`BOARDS`.
        out: folder of the run; its name is that of the run.
        rows: what the log has already. TensorBoard's files are written anew from it, and from the pictures in
            ``out``: an interrupted run may have left less in them, or more.
        say: told once if TensorBoard is not installed.

    Raises:
        UsageError: if Weights & Biases is asked for and not installed.
        DeixisError: if the files cannot be written.
    """
    if kind == "wandb":
        return _Wandb(out)
    if kind == "none":
        return _Nothing()
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        say("TensorBoard is not installed (pip install 'deixis[train]'): the numbers are in log.jsonl alone")
        return _Nothing()
    folder = out / "tensorboard"
    shutil.rmtree(folder, ignore_errors=True)
    board = _TensorBoard(folder, SummaryWriter(str(folder)))
    for row in rows:
        board(row)
    for step, path in pictures_in(out):
        with Image.open(path) as picture:
            board.picture(step, picture)
    return board


class _Nothing:
    def __call__(self, row: dict[str, float]) -> None:
        pass

    def picture(self, step: int, picture: Image.Image) -> None:
        pass


class _TensorBoard:
    def __init__(self, folder: Path, writer: Any) -> None:  # noqa: ANN401 - imported where it is installed
        self.folder, self.writer = folder, writer

    def __call__(self, row: dict[str, float]) -> None:
        try:
            for name, value in _named(row).items():
                self.writer.add_scalar(name, value, int(row["step"]))
            if "loss" not in row:
                self.writer.flush()
        except OSError as error:
            raise self._full(error) from error

    def picture(self, step: int, picture: Image.Image) -> None:
        try:
            self.writer.add_image(PICTURES, np.asarray(picture.convert("RGB")), step, dataformats="HWC")
            self.writer.flush()
        except OSError as error:
            raise self._full(error) from error

    def _full(self, error: OSError) -> DeixisError:
        return DeixisError(
            self.folder, f"cannot be written ({error.strerror})", "free space on the disk and start it again"
        )


class _Wandb:
    def __init__(self, out: Path) -> None:
        try:
            import wandb  # type: ignore[import-not-found,unused-ignore]  # only for those who ask for it
        except ImportError as error:
            raise UsageError("log wandb", "is not installed", "pip install wandb, or pass log=tensorboard") from error
        self.wandb: Any = wandb
        # The same name again goes on with the same run.
        self.run = self.wandb.init(project="deixis", dir=str(out), name=out.name, id=out.name, resume="allow")

    def __call__(self, row: dict[str, float]) -> None:
        self.run.log(_named(row), step=int(row["step"]))

    def picture(self, step: int, picture: Image.Image) -> None:
        self.run.log({PICTURES: self.wandb.Image(picture)}, step=step)


def _named(row: dict[str, float]) -> dict[str, float]:
    """Numbers under the headings ``train`` and ``val``."""
    return {
        name.replace("val_", "val/", 1) if name.startswith("val_") else f"train/{name}": value
        for name, value in row.items()
        if name != "step"
    }
