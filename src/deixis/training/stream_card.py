"""The card of what was trained from sets on disk: what, from what, how, and what it reached while it was trained.

Numbers of the papers' protocols are for ``deixis eval``; those here are on the samples that a run was looked at by.
"""

from __future__ import annotations

from pathlib import Path

from deixis.checkpoints.layout import CARD
from deixis.io import write_text
from deixis.registry import RELATIVE, SYSTEMS
from deixis.sharing import metadata, with_metadata
from deixis.training.comparison import table
from deixis.training.licences import licence_of
from deixis.training.log import RunLog
from deixis.training.recipe import DiskSet, Recipe


def write_stream_card(recipe: Recipe, weights: Path, seconds: float) -> None:
    """Write the README.md of weights.

    Args:
        recipe: what they were trained by.
        weights: the folder, in its run folder.
        seconds: training time.

    Raises:
        DeixisError: if the card cannot be written.
    """
    opt, data = recipe.optimisation, recipe.data
    licence = licence_of(recipe)
    rows = RunLog(weights.parent / "log.jsonl", lambda row: None).rows()
    last = next((row for row in reversed(rows) if any(name.startswith("val_") for name in row)), {})
    skipped = weights.parent / "skipped.jsonl"
    lost = len(skipped.read_text(encoding="utf-8").splitlines()) if skipped.is_file() else 0
    total = sum(one.share for one in data.sets.values())
    sets = [[label, _which(one), f"{100 * one.share / total:.0f} %"] for label, one in data.sets.items() if one.share]
    lines = [
        f"# {Path(recipe.out).name}",
        "",
        f"System `{recipe.system}`, fine-tuned from `{Path(str(recipe.init)).name}`.",
        "",
        *table(("set", "samples", "share of the batches"), sets),
        f"* **Text**: {_text(recipe)}",
        f"* **Training**: {opt.steps} steps of {opt.batch_size}, {seconds / 3600:.1f} hours on {recipe.device};"
        f" `recipe.yaml` in the run folder says all of it.",
        *([f"* {lost} samples could not be read and were left out."] if lost else []),
        f"* **One run, seed {opt.seed}**.",
        f"* **Licence**: {licence}.",
        "",
    ]
    if data.validation and last:
        names = ", ".join(f"{label} ({_which(one)})" for label, one in data.validation.items())
        values = [[name.removeprefix("val_"), f"{value:.4g}"] for name, value in last.items() if name[:4] == "val_"]
        lines += [
            "## Validation",
            "",
            f"At most {data.validated} samples of each: {names}. The papers' numbers are for `deixis eval`.",
            "",
            *table(("metric", f"after {last['step']:.0f} steps"), values),
        ]
    learned = list(dict.fromkeys(one.dataset for one in data.sets.values() if one.share))
    text = with_metadata("\n".join([*lines, ""]), metadata(recipe.system, licence, learned))
    write_text(weights / CARD, text)


def _which(one: DiskSet) -> str:
    return f"{one.dataset}{f', {one.split}' if one.split else ''}{', a list of its own' if one.list else ''}"


def _text(recipe: Recipe) -> str:
    if recipe.system in SYSTEMS and SYSTEMS[recipe.system].task == "refer":
        return "the datasets' expressions."
    captions = sorted({Path(one.captions).name for one in recipe.data.sets.values() if one.captions})
    source = f"captions ({', '.join(captions)})" if captions else "what the datasets say of themselves"
    if recipe.system in RELATIVE:
        return f"{source}, {recipe.text_rate:.0%} of the time." if recipe.text_rate else "none."
    own, mean, none = (share / sum(recipe.text_shares) for share in recipe.text_shares)
    return f"{source}, {own:.0%} of the time; their mean, {mean:.0%}; none, {none:.0%}."
