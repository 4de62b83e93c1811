"""Start-up of the commands that answer about a picture: most of their time would go into imports."""

from __future__ import annotations

import gc
import sys

# diffusers and transformers import these where they find them, for parts that no command using this needs.
UNUSED = ("peft", "scipy")


def import_networks() -> None:
    """Import the networks, without collecting garbage and without :data:`UNUSED`: a fifth of the time less.

    It holds for the whole process: diffusers does not look again for what it did not find. So training does not call
    it, and nothing happens where diffusers is already there.
    """
    if "diffusers" in sys.modules:
        return
    hidden = [name for name in UNUSED if name not in sys.modules]
    # As Python's import system reads None: there is no such module. The type of sys.modules does not know that.
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    gc.disable()
    try:
        import deixis.backbones.stable_diffusion  # noqa: F401 - it imports all that the commands need
    finally:
        gc.freeze()  # what was imported stays; nobody need look through it again
        gc.enable()
        for name in hidden:
            del sys.modules[name]
