"""One photo and a sentence in; depth, a mask or a distance out; diffusion backbones inside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deixis.errors import DeixisError
from deixis.types import Answer, Depth, Mask

if TYPE_CHECKING:
    from deixis.asking import ask
    from deixis.calibration import Known, calibrate
    from deixis.predict import load

__version__ = "0.1.0"
__all__ = ["Answer", "DeixisError", "Depth", "Known", "Mask", "ask", "calibrate", "load"]


def __getattr__(name: str) -> object:
    """Import the networks only when they are asked for: ``import deixis`` stays light."""
    if name == "load":
        from deixis.predict import load

        return load
    if name == "ask":
        from deixis.asking import ask

        return ask
    if name in ("calibrate", "Known"):
        from deixis import calibration

        return getattr(calibration, name)
    raise AttributeError(f"module 'deixis' has no attribute '{name}'")
