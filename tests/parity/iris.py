"""Check Marigold, Lotus and E2E-FT against recorded outputs of the original code: one row per tensor or number.

    python -m tests.parity.iris FOLDER

FOLDER holds cases, ``<name>.json`` with ``<name>.npz``, and manifests of the networks they were recorded with. Exit
code: 0 if everything agrees, 1 if something does not, 2 if the folder has no case or one that cannot be run.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.parity.iris_inference import CHECKS as INFERENCE
from tests.parity.iris_rows import Row
from tests.parity.iris_training import CHECKS as TRAINING

CHECKS = {**INFERENCE, **TRAINING}
# Facts for readers of datasets and recipes; no numbers of a computation.
FACTS = ("dataset_facts", "training_hyperparameters")


def cases(folder: Path) -> list[str]:
    """The cases of a folder.

    Raises:
        ValueError: if there is none, or one that is not known.
    """
    names = [path.stem for path in sorted(folder.glob("*.json")) if not path.name.endswith(".manifest.json")]
    names = [name for name in names if name not in FACTS]
    if not names:
        raise ValueError(f"{folder}: has no case; pass a folder of .json and .npz files")
    unknown = [name for name in names if name not in CHECKS]
    if unknown:
        raise ValueError(f"{folder}: {', '.join(unknown)}: no such case; known are {', '.join(CHECKS)}")
    return names


def main(arguments: list[str]) -> int:
    """Print the rows; the exit code."""
    if len(arguments) != 1:
        print("usage: python -m tests.parity.iris FOLDER", file=sys.stderr)
        return 2
    folder = Path(arguments[0])
    rows: list[Row] = []
    try:
        for name in cases(folder):
            found = CHECKS[name](folder)
            rows += found
            for row in found:
                print(
                    f"{row.case:28} {row.name:60} {row.error:.2e}  {row.limit:.2e}  {'pass' if row.passes else 'FAIL'}"
                )
    except (ValueError, KeyError, OSError, json.JSONDecodeError) as error:
        print(f"{error!r}" if isinstance(error, KeyError) else error, file=sys.stderr)
        return 2
    passed = sum(row.passes for row in rows)
    print(f"{passed} of {len(rows)} pass")
    return 0 if rows and passed == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
