"""An evaluation as one HTML file that needs nothing else: it can be mailed, and opens offline."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from deixis import viz
from deixis.evaluation.scoring import Scorer
from deixis.io import write_text
from deixis.protocols.summary import NOMINAL, Row, column

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = 3
"""Pictures that are shown of each end."""

_LONG_SIDE = 640
_BLUE, _ORANGE, _GREY = "#2459a8", "#d9742b", "#9a9aa2"
# The number by which samples are best or worst, and whether lower is better.
_ORDER = {"metric": ("abs_rel", True), "affine": ("abs_rel", True), "refer": ("iou", False), "ask": ("off", True)}
_NAMES = {
    "abs_rel": "AbsRel",
    "sq_rel": "SqRel",
    "rmse": "RMSE",
    "rmse_log": "RMSE log",
    "log10": "log10",
    "silog": "SIlog",
    "d1": "δ1",
    "d2": "δ2",
    "d3": "δ3",
    "i_rmse": "iRMSE",
    "silog_rmse": "SIlog RMSE",
    "oiou": "oIoU",
    "miou": "mIoU",
    "giou": "gIoU",
    "ciou": "cIoU",
    "mae": "mean absolute error",
    "t_acc": "found, of what is there (T-acc)",
    "n_acc": "called absent, of what is not there (N-acc)",
    "coverage": "truth within p10 to p90",
}
_ARROWS = {"lower": "↓ lower is better", "higher": "↑ higher is better", "nominal": f"nominal {NOMINAL:.0f} %"}
_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; background: #f5f5f3; color: #1c1c1e; font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto,
  "Helvetica Neue", Arial, sans-serif; }
main { max-width: 72rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.2rem; margin: 0 0 .9rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .5rem; }
p { margin: .3rem 0 .8rem; max-width: 60rem; }
.soft { color: #6b6b70; }
section { background: #fff; border: 1px solid #e3e3df; border-radius: 12px; padding: 1.4rem 1.5rem;
  margin-top: 1.3rem; }
.facts { display: flex; flex-wrap: wrap; gap: .6rem; margin-top: 1rem; }
.facts div { background: #fff; border: 1px solid #e3e3df; border-radius: 10px; padding: .5rem .9rem; }
.facts b { display: block; font-size: 1.15rem; }
.mark { background: #fff3e6; border-left: 4px solid #d9742b; padding: .6rem .9rem; border-radius: 6px;
  overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .4rem .8rem .4rem 0; border-bottom: 1px solid #ecece8; white-space: nowrap; }
th { font-weight: 600; color: #6b6b70; font-size: .85rem; }
.about td { white-space: normal; overflow-wrap: anywhere; }
.about td:first-child { width: 14rem; }
td.n { text-align: right; padding-right: 1.6rem; }
th.n { text-align: right; padding-right: 1.6rem; }
.case { border-top: 1px solid #ecece8; padding-top: .9rem; margin-top: .9rem; }
.case h4 { margin: 0 0 .5rem; font-size: .95rem; font-weight: 600; overflow-wrap: anywhere; }
.shots { display: grid; grid-template-columns: repeat(4, 1fr); gap: .7rem; }
@media (max-width: 46rem) { .shots { grid-template-columns: repeat(2, 1fr); } }
.wide .shots { grid-template-columns: repeat(2, 1fr); }
figure { margin: 0; }
figure img { width: 100%; display: block; border-radius: 6px; background: #3c3c40; }
figcaption { font-size: .8rem; color: #55555a; margin-top: .25rem; overflow-wrap: anywhere; }
img.plot { width: 100%; max-width: 46rem; display: block; }
img.bar { width: 100%; max-width: 20rem; display: block; margin-top: .8rem; }
pre { background: #f5f5f3; border-radius: 8px; padding: .8rem 1rem; overflow-x: auto; font-size: .85rem;
  margin: .3rem 0 1rem; }
li { overflow-wrap: anywhere; }
"""


def write_report(path: Path, result: dict[str, Any], rows: Sequence[Row], scorer: Scorer) -> None:
    """Write the report of a finished evaluation.

    Args:
        path: the file.
        result: what ``result.json`` holds.
        rows: of all samples.
        scorer: draws the pictures, by predicting them once more.

    Raises:
        DeixisError: if the disk does not take it.
    """
    system = result["model"] if "mask_model" not in result else f"{result['mask_model']} + {result['model']}"
    title = f"{Path(system).name if 'mask_model' not in result else system} on {result['dataset']}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="soft">Split {escape(result["split"])}; {escape(result["protocol"]["words"])}.</p>',
        _facts(result),
        *(f'<section class="mark">{escape(note[0].upper() + note[1:])}.</section>' for note in result["notes"]),
        _oracle(result),
        _section("Summary", _summary(result) + _spread(result["task"], rows)),
        _ranges(result, scorer),
        _answers(result, rows),
        *_cases(result, rows, scorer),
        _failures(result),
        _provenance(result),
    ]
    write_text(
        path,
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in parts if part)
        + "\n</main>\n</body>\n</html>\n",
    )


def _section(title: str, body: str) -> str:
    return f"<section>\n<h2>{escape(title)}</h2>\n{body}\n</section>"


def _facts(result: dict[str, Any]) -> str:
    shown = [
        (f"{result['scored']} of {result['count']}", "pictures scored"),
        (result["skipped"], "without anything to score"),
        (result["failed"], "could not be scored"),
        (", ".join(result["text_provenance"]), "text"),
        (result["benchmark"] or "none", "published setting"),
    ]
    if result["task"] in ("refer", "ask"):
        shown.insert(1, (result["rows"], "expressions"))
    facts = "".join(f"<div><b>{escape(str(value))}</b>{escape(name)}</div>" for value, name in shown)
    return f'<div class="facts">{facts}</div>'


def _oracle(result: dict[str, Any]) -> str:
    if not result["oracle"]:
        return ""
    return (
        '<section class="mark">The system was told <b>oracle</b> text: it comes from file names, labels or ground'
        " truth. These numbers are not comparable with those of runs without text or with predicted text.</section>"
    )


def _table(head: Sequence[str], lines: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """A table; the columns ``numbers`` are aligned right."""

    def cells(tag: str, line: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{' class=n' if i in numbers else ''}>{escape(cell)}</{tag}>" for i, cell in enumerate(line)
        )

    body = "\n".join(f"<tr>{cells('td', line)}</tr>" for line in lines)
    return f'<div class="scroll"><table>\n<tr>{cells("th", head)}</tr>\n{body}\n</table></div>'


def _summary(result: dict[str, Any]) -> str:
    lines = []
    for name, one in result["metrics"].items():
        if one["value"] is None:
            continue
        digits = 1 if one["unit"] == "%" else 3
        value, low, high = (f"{one[key]:.{digits}f}" for key in ("value", "low", "high"))
        unit = f" {one['unit']}" if one["unit"] else ""
        about = (_ARROWS[one["better"]], str(one["samples"]), ", ".join(result["text_provenance"]))
        lines.append([label(name), f"{value}{unit}", f"{low} to {high}", *about])
    counted = "images" if result["task"] in ("metric", "affine") else "expressions"
    return (
        _table(("metric", "value", "95 % interval", "", counted, "text"), lines, numbers=(1, 2, 4))
        + '<p class="soft">Intervals: percentile bootstrap over images, 2000 resamples, seed 0.</p>'
    )


def label(name: str) -> str:
    """How people call a metric."""
    return _NAMES.get(name, name.upper() if name.startswith("p@") else name)


# ------------------------------------------------------------------------------------------------ plots


def _spread(task: str, rows: Sequence[Row]) -> str:
    """How the main number is spread over samples."""
    name, lower = _ORDER[task]
    values = _rated(task, rows)
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return ""
    called = {"iou": "IoU", "off": "relative error of the distance"}.get(name, label(name))
    figure, axes = _figure(2.6)
    top = float(np.percentile(values, 98)) if lower else 1.0
    # Few samples make few bars; all that is off the scale is in the last.
    bins = np.linspace(0, top or 1.0, min(41, 6 + len(values) // 4))
    axes.hist(np.clip(values, 0, bins[-1]), bins=bins.tolist(), color=_BLUE, edgecolor="white", linewidth=0.6)
    axes.axvline(float(np.median(values)), color=_ORANGE, linewidth=2, label=f"median {np.median(values):.3f}")
    axes.set_xlabel(called)
    axes.set_ylabel("images" if task in ("metric", "affine") else "expressions")
    axes.legend(frameon=False)
    return f"<h3>{escape(called)} of each</h3>{_plot(figure, f'histogram of {called}')}"


def _ranges(result: dict[str, Any], scorer: Scorer) -> str:
    table = result.get("by_range")
    if not table:
        return ""
    figure, axes = _figure(3.4)
    last = scorer.setting.ranges[-1]
    names = [f"{one['from_m']:g}\N{EN DASH}{one['to_m']:g}" if one["to_m"] else f"{last:g}+" for one in table]
    place = np.arange(len(table))
    axes.bar(place, [one["abs_rel"] for one in table], width=0.62, color=_BLUE, label="AbsRel (left)")
    axes.set_xticks(place, names)
    axes.set_xlabel("true depth [m]")
    axes.set_ylabel("AbsRel")
    other = axes.twinx()
    other.plot(place, [one["mae"] for one in table], "o-", color=_ORANGE, label="absolute error (right)")
    other.set_ylabel("mean absolute error [m]")
    other.set_ylim(bottom=0)
    other.spines["top"].set_visible(False)
    handles = [*axes.get_legend_handles_labels()[0], *other.get_legend_handles_labels()[0]]
    named = [str(one.get_label()) for one in handles]
    axes.legend(handles, named, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    pixels = sum(one["pixels"] for one in table)
    lines = [
        [name, f"{one['abs_rel']:.3f}", f"{one['mae']:.3f}", f"{100 * one['pixels'] / pixels:.1f} %"]
        for name, one in zip(names, table, strict=True)
    ]
    head = ("true depth [m]", "AbsRel", "absolute error [m]", "share of pixels")
    plot = _plot(figure, "error against the range of true depth")
    return _section("Error against depth range", plot + _table(head, lines, numbers=(1, 2, 3)))


def _answers(result: dict[str, Any], rows: Sequence[Row]) -> str:
    """Calibration of intervals, and abstention."""
    if result["task"] != "ask":
        return ""
    body = ""
    if result["calibration"]:
        figure, axes = _figure(4.2, width=5.2)
        nominal, actual = ([one[key] for one in result["calibration"]] for key in ("nominal", "actual"))
        axes.plot([0, 100], [0, 100], color=_GREY, linestyle="--", label="perfect")
        axes.plot(nominal, actual, "o-", color=_BLUE, label="intervals of depths in the mask")
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 100)
        axes.set_xlabel("nominal coverage [%]")
        axes.set_ylabel("truths inside [%]")
        axes.legend(frameon=False, loc="upper left")
        answered = result["metrics"]["coverage"]["samples"]
        body += (
            f"<h3>Calibration of the interval</h3><p>Central intervals of the depths that an answer is measured on,"
            f" for {answered} answers: how many truths they should hold, and how many they do.</p>"
            + _plot(figure, "calibration of the interval")
        )
    there, found, score = column(rows, "there") > 0, column(rows, "found") > 0, column(rows, "score")
    lines = [
        [what, str(int(which.sum())), str(int((found & which).sum())), str(int((~found & which).sum()))]
        for what, which in (("something that is there", there), ("something that is not there", ~there))
    ]
    body += "<h3>Abstention</h3>" + _table(("asked for", "questions", "answered", "no such object"), lines, (1, 2, 3))
    if there.any() and (~there).any():
        levels = np.unique(score)
        figure, axes = _figure(3.2, width=5.2)
        kept = [100 * np.mean(score[there] >= level) for level in levels]
        refused = [100 * np.mean(score[~there] < level) for level in levels]
        axes.plot(levels, kept, color=_BLUE, label="found, of what is there")
        axes.plot(levels, refused, color=_ORANGE, label="refused, of what is not")
        axes.set_xlabel("score below which nothing is found")
        axes.set_ylabel("share [%]")
        axes.set_ylim(0, 105)
        axes.legend(frameon=False)
        body += _plot(figure, "abstention against the score")
    return _section("Answers", body)


def _figure(height: float, width: float = 7.6) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _plot(figure: Figure, alt: str) -> str:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=130, metadata={"Software": None})
    width = figure.get_size_inches()[0] / 7.6 * 46
    return f'<img class="plot" style="max-width:{width:.0f}rem" alt="{escape(alt)}" src="{_uri(stream, "png")}">'


# --------------------------------------------------------------------------------------------- pictures


def _rated(task: str, rows: Sequence[Row]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """What rows are put in order by [N], NaN for those that are not shown."""
    if task == "ask":
        truth = column(rows, "truth_m")
        off: np.ndarray[tuple[int], np.dtype[np.float64]] = np.abs(column(rows, "median_m") - truth) / truth
        return off
    if task == "refer":
        return np.where(column(rows, "there") > 0, column(rows, "iou"), np.nan)
    return column(rows, "abs_rel")


def _cases(result: dict[str, Any], rows: Sequence[Row], scorer: Scorer) -> list[str]:
    """The worst and the best rows with their pictures, worst first and no image twice."""
    task = result["task"]
    values = _rated(task, rows)
    order = [int(i) for i in np.argsort(values, kind="stable") if np.isfinite(values[i])]
    if not _ORDER[task][1]:
        order.reverse()  # best first
    half = max(1, min(SHOWN, len({rows[i]["sample"] for i in order}) // 2))
    parts = []
    used: set[object] = set()
    for title, ends in (("Worst", order[::-1]), ("Best", order)):
        chosen: list[int] = []
        for i in ends:
            if rows[i]["sample"] not in used and len(chosen) < half:
                used.add(rows[i]["sample"])
                chosen.append(i)
        cases = [_case(rows[i], float(values[i]), task, scorer) for i in chosen]
        if cases:
            legend = _legend(task, scorer) if title == "Worst" else ""
            parts.append(
                _section(
                    f"{title} {'images' if task in ('metric', 'affine') else 'expressions'}", legend + "".join(cases)
                )
            )
    return parts


def _case(row: Row, value: float, task: str, scorer: Scorer) -> str:
    index = row["index"]
    assert isinstance(index, int)
    pictures = scorer.show(scorer.dataset[index], row)
    wide = pictures[0][0].width > 2 * pictures[0][0].height
    shots = "".join(
        f'<figure><img alt="{said}" src="{_photo(picture)}"><figcaption>{said}</figcaption></figure>'
        for picture, said in ((picture, escape(caption)) for picture, caption in pictures)
    )
    name = {"iou": "IoU", "off": "relative error"}.get(_ORDER[task][0], "AbsRel")
    title = f"{row['sample']}: {name} {value:.3f}"
    return f'<div class="case{" wide" if wide else ""}"><h4>{escape(title)}</h4><div class="shots">{shots}</div></div>'


def _legend(task: str, scorer: Scorer) -> str:
    """What the colours of error maps mean."""
    if task not in ("metric", "affine"):
        return ""
    limit = scorer.setting.error_max_m
    bar = viz.error_legend(limit, 480)
    return (
        f"<p>Absolute error on one scale for all pictures, 0 to {limit:g} m; grey where nothing is scored.</p>"
        f'<img class="bar" alt="colour scale of the error, 0 to {limit:g} m" src="{_photo(bar)}">'
    )


def _photo(picture: Image.Image) -> str:
    """A picture as a data URI, no larger than it is shown; small ones are enlarged without blur."""
    scale = _LONG_SIDE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    stream = io.BytesIO()
    picture.convert("RGB").resize(size, how).save(stream, "JPEG", quality=88)
    return _uri(stream, "jpeg")


def _uri(stream: io.BytesIO, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"


# ------------------------------------------------------------------------------------------- provenance


def _failures(result: dict[str, Any]) -> str:
    if not result["failures"]:
        return ""
    lines = "".join(f"<li>{escape(line)}</li>" for line in result["failures"])
    return _section("Could not be scored", f"<ul>{lines}</ul>")


def _provenance(result: dict[str, Any]) -> str:
    lines = [
        ["system", result["model"]],
        ["SHA-256 of its folder", result["weights_sha256"]],
        *([["referring system", result["mask_model"]]] if "mask_model" in result else []),
        *([["SHA-256 of its folder", result["mask_weights_sha256"]]] if "mask_model" in result else []),
        ["dataset", f"{result['dataset']}, split {result['split']}, {result['samples']} samples"],
        ["of which were asked for", _limited(result)],
        ["SHA-256 of their names", result["samples_sha256"]],
        ["protocol", result["protocol"]["name"]],
        ["text", f"{result['text_source']}: {', '.join(f'{n} x {p}' for p, n in result['text_provenance'].items())}"],
        ["oracle text", "yes" if result["oracle"] else "no"],
        ["test-time augmentation", result["tta"]],
        ["published setting", result["benchmark"] or f"none: {result['differs']}"],
        [
            "steps, maps, resolution",
            f"{result['steps'] or 'its own'}, {result['ensemble']}, {result['resolution'] or 'its own'}",
        ],
        ["seed", str(result["seed"])],
        ["libraries", ", ".join(f"{name} {number}" for name, number in result["libraries"].items())],
    ]
    settings = json.dumps(result["protocol"], indent=2, ensure_ascii=False)
    command, table = f"<pre>{escape(result['command'])}</pre>", _table(("", ""), lines)
    about = f'{command}<div class="about">{table}</div><h3>Protocol</h3><pre>{escape(settings)}</pre>'
    return _section("How this was made", about)


def _limited(result: dict[str, Any]) -> str:
    return "all" if result["count"] == result["samples"] else f"{result['count']}, evenly spread"
