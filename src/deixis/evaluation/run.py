"""From a plan to a folder of results, through as many interruptions as there may be.

``run.json`` says what the folder is for; ``rows.jsonl`` grows by a line a picture. Once all are there, ``rows.csv``,
``rows.parquet`` (with pyarrow), ``report.html`` and, last, ``result.json`` are made from these lines alone.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import platform
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from deixis import __version__
from deixis.checkpoints.folder import fingerprint, read_manifest
from deixis.data.dataset import Dataset, spread
from deixis.data.world import parquet
from deixis.devices import one_thread
from deixis.errors import DeixisError, InputError, UsageError
from deixis.evaluation.journal import Entry, Journal
from deixis.evaluation.report import write_report
from deixis.evaluation.scoring import NO_TEXT, Plan, Scorer, check_text, load_scorer
from deixis.evaluation.settings import Setting, Task
from deixis.io import printable, write_bytes, write_json, write_text
from deixis.processes import in_order
from deixis.protocols.benchmarks import benchmark
from deixis.protocols.depth import DepthProtocol
from deixis.protocols.ranges import range_means
from deixis.protocols.summary import Ratio, Row, ask_ratios, calibration, depth_ratios, refer_ratios
from deixis.registry import find

RUN, ROWS, RESULT, REPORT = "run.json", "rows.jsonl", "result.json", "report.html"
FORMAT = 3
NOTHING_PUBLISHED = "no published setting"
LIBRARIES = ("torch", "diffusers", "transformers", "numpy", "pillow")
RATIOS: dict[Task, Callable[[Sequence[Row]], list[Ratio]]] = {
    "metric": depth_ratios,
    "affine": depth_ratios,
    "refer": refer_ratios,
    "ask": ask_ratios,
}


@dataclass(frozen=True)
class Listener:
    """Whom a run tells how it gets on.

    Attributes:
        start: how many samples there are, and how many are done already.
        done: one more is.
        fail: a sample could not be read, and why.
    """

    start: Callable[[int, int], None]
    done: Callable[[], None]
    fail: Callable[[str], None]


def evaluate(
    plan: Plan, out: Path, command: str, listener: Listener, *, limit: int | None = None, processes: int = 1
) -> dict[str, Any]:
    """Score a system, or go on with it, and write what came of it.

    Every process computes with one thread on a CPU, because rounding depends on their number: the results are the
    same bits for any number of processes and of interruptions.

    Args:
        plan: what is evaluated on what.
        out: folder for the results; made if missing.
        command: how the run was asked for; results quote it.
        listener: is told how it gets on.
        limit: only so many samples, evenly spread.
        processes: that score side by side, each with its own copy of the system.

    Returns:
        what ``result.json`` holds.

    Raises:
        DeixisError: if a model, dataset or setting is wrong, the folder belongs to another run, no sample could be
            scored, a published setting is claimed that this is not, or the disk does not take the results. What is
            scored stays, and the same call goes on.
    """
    setting = plan.setting()
    dataset = plan.open()
    chosen = spread(len(dataset), limit)
    count = len(chosen)
    _check_claim(plan, dataset, None if plan.task == "refer" else count, len(dataset) - count)
    about = identity(plan, setting, dataset)
    journal = open_run(out, about)
    todo = [i for i in chosen if not _is_scored(i, dataset, journal)]
    if not todo and (out / RESULT).is_file():
        stored = read_json(out / RESULT)
        same = (stored.get("count"), stored.get("own_list")) == (count, dataset.own_list)
        if same and (plan.claimed is None or stored.get("benchmark") == plan.protocol):
            listener.start(count, count)
            return stored
    said = {
        "command": command,
        "limit": limit,
        "own_list": dataset.own_list,
        "libraries": {"python": platform.python_version(), "deixis": __version__, **{n: version(n) for n in LIBRARIES}},
    }
    check_text(dataset, plan.text, todo)
    with one_thread():
        scorer: Scorer | None = None
        if processes < 2 and todo:
            scorer = load_scorer(plan, dataset)
        listener.start(count, count - len(todo))
        try:
            for entry in _scored(plan, scorer, todo, processes):
                _check_leak(plan, entry, journal)
                journal.append(entry)
                if entry.failed is not None:
                    listener.fail(entry.failed)
                listener.done()
        finally:
            journal.close()
        entries = [journal.entries[i] for i in chosen]
        result = {**about, **said, **summary(plan.task, setting, entries)}
        scored = result["rows"] if plan.task == "refer" else result["scored"]
        missed = len(dataset) - result["scored"] - result["skipped"]
        _check_claim(plan, dataset, scored, missed)
        result |= _published(plan, setting, dataset, scored, missed)
        result["notes"] = notes(plan, setting, result["differs"])
        if result["differs"] == NOTHING_PUBLISHED and result["own_list"] is not None:
            result["notes"].append(f"samples are those of {result['own_list']}, which is not the published list")
        if not result["scored"]:
            lost = f"{result['failed']} failed, {result['skipped']} without anything to score"
            remedy = "see what is said of each" if result["failed"] else "check the root"
            raise InputError(printable(plan.root), f"has no sample that can be scored ({lost})", remedy)
        rows = [row for entry in entries for row in entry.rows]
        write_text(out / "rows.csv", as_csv(rows))
        if find_spec("pyarrow") is not None:
            write_bytes(out / "rows.parquet", as_parquet(rows))
        write_report(out / REPORT, result, rows, scorer or load_scorer(plan, dataset))
    write_json(out / RESULT, result)
    return result


def identity(plan: Plan, setting: Setting, dataset: Dataset) -> dict[str, Any]:
    """All that decides the numbers of a run, JSON-ready: what two runs must share to be one."""
    names = "\n".join(dataset.names).encode("utf-8", "surrogateescape")
    models = {"model": plan.model, "weights_sha256": fingerprint(find(plan.model))}
    if plan.mask_model is not None:
        models |= {"mask_model": plan.mask_model, "mask_weights_sha256": fingerprint(find(plan.mask_model))}
    return {
        "format": FORMAT,
        "task": plan.task,
        **models,
        "dataset": dataset.name,
        "split": dataset.split,
        "layout": dataset.layout,
        "samples": len(dataset),
        "samples_sha256": hashlib.sha256(names).hexdigest(),
        "protocol": {"name": setting.name, "words": setting.words, **_finite(asdict(setting))["protocol"]},
        "text_source": plan.text,
        "tta": plan.tta,
        "steps": plan.steps,
        "ensemble": plan.ensemble,
        "resolution": plan.resolution,
        "seed": plan.seed,
    }


def _is_scored(index: int, dataset: Dataset, journal: Journal) -> bool:
    """Whether a sample need not be scored: what could not be read is tried again, and what has changed since is new."""
    entry = journal.entries.get(index)
    return entry is not None and entry.failed is None and entry.stamp == dataset.stamp(index)


def open_run(out: Path, about: dict[str, Any]) -> Journal:
    """The journal of a folder that is empty, was begun by the same run, or by one that ended before it scored anything.

    Raises:
        DeixisError: if it was begun by another run, or is damaged.
    """
    path = out / RUN
    begun = read_json(path) if path.is_file() else None
    if begun is not None and (begun.keys() != about.keys() or (out / ROWS).is_file()):
        for key in about:
            if begun.get(key) != json.loads(json.dumps(about[key])):
                raise UsageError(
                    printable(out),
                    f"was begun with {key} {_short(begun.get(key))}, not {_short(about[key])}",
                    "choose another --out, or remove it",
                )
    elif begun is None and out.is_dir() and any(not one.name.startswith(".") for one in out.iterdir()):
        raise UsageError(printable(out), "holds other files", "choose another --out")
    else:
        write_json(path, about)
    return Journal(out / ROWS)


def read_json(path: Path) -> dict[str, Any]:
    """A file that a run wrote.

    Raises:
        InputError: if it is missing or damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        why = "is not there" if isinstance(error, FileNotFoundError) else "is damaged"
        raise InputError(printable(path), why, "run 'deixis eval' again") from error
    if not isinstance(content, dict):
        raise InputError(printable(path), "is damaged", "run 'deixis eval' again")
    return content


def summary(task: Task, setting: Setting, entries: Sequence[Entry]) -> dict[str, Any]:
    """Counts, provenance and metrics with their intervals, JSON-ready."""
    rows = [row for entry in entries for row in entry.rows]
    provenance = Counter(str(row["text_provenance"]) for row in rows)
    found: dict[str, Any] = {
        "count": len(entries),
        "scored": sum(bool(entry.rows) for entry in entries),
        "skipped": sum(not entry.rows and entry.failed is None for entry in entries),
        "failed": sum(entry.failed is not None for entry in entries),
        "failures": [entry.failed for entry in entries if entry.failed is not None],
        "rows": len(rows),
        "text_provenance": dict(sorted(provenance.items())),
        "oracle": "oracle" in provenance,
        "metrics": {},
    }
    if rows:
        found["metrics"] = {ratio.name: _measured(ratio) for ratio in RATIOS[task](rows)}
    ranges = [entry.ranges for entry in entries if entry.ranges is not None]
    if ranges:
        found["by_range"] = range_means(ranges, setting.ranges)
    if task == "ask":
        found["calibration"] = calibration(rows)
    return found


def _check_claim(plan: Plan, dataset: Dataset, scored: int | None, missed: int) -> None:
    """Refuse to call a result by a published name that it does not deserve; None while nobody knows the count."""
    if plan.claimed is not None:
        plan.claimed.check(scored=scored, missed=missed, tta=plan.tta, own_list=dataset.own_list)


def _published(plan: Plan, setting: Setting, dataset: Dataset, scored: int, missed: int) -> dict[str, str | None]:
    """``benchmark``, the published setting whose number this is, or None; and then ``differs``, why it is none."""
    published = benchmark(dataset.name, dataset.split, setting.protocol)
    if published is None:
        return {"benchmark": None, "differs": NOTHING_PUBLISHED}
    why = published.differs(scored=scored, missed=missed, tta=plan.tta, own_list=dataset.own_list)
    if why is None:
        return {"benchmark": published.name, "differs": None}
    return {"benchmark": None, "differs": f"not {published.name}: {why}"}


def notes(plan: Plan, setting: Setting, differs: str | None = None) -> list[str]:
    """What must be known beside the numbers: that they are none of a benchmark, that a model cannot see as far.

    Args:
        plan: what is evaluated on what.
        setting: how.
        differs: why it is no published number.
    """
    found = [] if differs in (None, NOTHING_PUBLISHED) else [f"this is {differs}"]
    if plan.task == "metric" and isinstance(setting.protocol, DepthProtocol):
        reach, wanted = float(read_manifest(find(plan.model)).config["max_depth"]), setting.protocol.max_depth
        if reach < wanted:
            found.append(f"{plan.model} gives depth up to {reach:g} m, and {plan.dataset} is scored up to {wanted:g} m")
    return found


def _measured(ratio: Ratio) -> dict[str, Any]:
    low, high = ratio.interval() or (None, None)
    return {
        "value": ratio.value(),
        "low": low,
        "high": high,
        "unit": ratio.unit,
        "better": ratio.better,
        "samples": int(ratio.counts.sum()),
    }


def as_csv(rows: Sequence[Row]) -> str:
    """Rows as a table with a head; numbers as exact as they are."""
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def as_parquet(rows: Sequence[Row]) -> bytes:
    """The same rows as a Parquet file; undecodable bytes of file names are escaped as in the other files."""
    stream = io.BytesIO()
    table = [{name: _encodable(value) for name, value in row.items()} for row in rows]
    parquet().write_table(parquet("pyarrow").Table.from_pylist(table), stream)
    return stream.getvalue()


def _encodable(value: float | str | None) -> float | str | None:
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _scored(plan: Plan, scorer: Scorer | None, todo: Sequence[int], processes: int) -> Iterator[Entry]:
    """Entries as they are done: one after another, or by several processes."""
    if scorer is not None:
        yield from map(scorer, todo)
        return

    def died(index: int) -> DeixisError:
        del index
        return DeixisError(
            plan.model, "a scoring process died", "free memory or lower --processes, and run it again to go on"
        )

    yield from in_order(partial(_score, plan), todo, processes, died, preload=__name__)


@cache
def _own_scorer(plan: Plan) -> Scorer:
    """Of a worker process, loaded with its first sample."""
    torch.set_num_threads(1)
    return load_scorer(plan, plan.open())


def _score(plan: Plan, index: int) -> Entry:
    return _own_scorer(plan)(index)


def _check_leak(plan: Plan, entry: Entry, journal: Journal) -> None:
    """Refuse to count what was told the truth together with what was not."""
    if plan.text == NO_TEXT or not entry.rows:
        return
    oracle = entry.rows[0]["text_provenance"] == "oracle"
    for other in journal.entries.values():
        if other.rows:
            if (other.rows[0]["text_provenance"] == "oracle") != oracle:
                raise UsageError(
                    f"--text {plan.text}",
                    f"is oracle for one of {other.name} and {entry.name}, and not for the other",
                    "choose a source of one provenance",
                )
            return


def _finite(values: Any) -> Any:  # noqa: ANN401 - JSON is anything
    """Values with infinity in words: strict JSON has none."""
    if isinstance(values, dict):
        return {key: _finite(value) for key, value in values.items()}
    return str(values) if isinstance(values, float) and math.isinf(values) else values


def _short(value: object) -> str:
    if isinstance(value, dict) and "name" in value:
        return f"'{value['name']}'"
    return repr(value)
