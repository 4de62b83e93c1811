"""Check Marigold, Lotus and E2E-FT against recorded outputs of the original code: one row per tensor or number.

    python -m tests.parity.iris FOLDER

FOLDER holds cases, ``<name>.json`` with ``<name>.npz``, and manifests of the networks they were recorded with. A case
that cannot be run is a row that fails; the others go on. Exit code: 0 if everything agrees, 1 if something does not,
2 if the folder has no case.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.parity.iris_inference import CHECKS as INFERENCE
from tests.parity.iris_rows import Row, failure
from tests.parity.iris_training import CHECKS as TRAINING

CHECKS = {**INFERENCE, **TRAINING}
# Facts for readers of datasets and recipes; no numbers of a computation.
FACTS = ("dataset_facts", "training_hyperparameters")


def cases(folder: Path) -> list[str]:
    """The cases of a folder, known or not."""
    names = [path.stem for path in sorted(folder.glob("*.json")) if not path.name.endswith(".manifest.json")]
    return [name for name in names if name not in FACTS]


def check(folder: Path, name: str) -> list[Row]:
    """The rows of a case, or one that says why it has none."""
    if name not in CHECKS:
        return [failure(name, "the case", f"not known; known are {', '.join(CHECKS)}")]
    try:
        return CHECKS[name](folder)
    except Exception as error:  # whatever an incomplete or damaged recording makes the libraries raise
        why = " ".join(str(error).split())[:300]
        said = why if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: {why}"
        return [failure(name, "the case", f"cannot be run: {said}")]


def main(arguments: list[str]) -> int:
    """Print the rows; the exit code."""
    if len(arguments) != 1:
        print("usage: python -m tests.parity.iris FOLDER", file=sys.stderr)
        return 2
    folder = Path(arguments[0])
    names = cases(folder)
    if not names:
        what = "has no case" if folder.is_dir() else "is not a folder"
        print(f"{folder}: {what}; pass a folder of .json and .npz files", file=sys.stderr)
        return 2
    rows: list[Row] = []
    for name in names:
        found = check(folder, name)
        rows += found
        for row in found:
            verdict = "pass" if row.passes else "FAIL"
            print(f"{row.case:28} {row.name:60} {row.error:.2e}  {row.limit:.2e}  {verdict}", flush=True)
    passed = sum(row.passes for row in rows)
    print(f"{passed} of {len(rows)} pass")
    return 0 if passed == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
