"""HDF5 files, which the extra ``data`` reads."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from deixis.errors import UsageError


def hdf5() -> Any:  # noqa: ANN401 - h5py has no types
    """The module h5py.

    Raises:
        UsageError: if it is not installed.
    """
    try:
        return import_module("h5py")
    except ImportError as error:
        raise UsageError("h5py", "is not installed", "run pip install 'deixis[data]'") from error
