"""An evaluation as tables: the averages of the protocol, the classes, and the kinds of false positives."""

from collections.abc import Mapping
from dataclasses import dataclass

from postprocess.evaluation.diagnose import Diagnosis
from postprocess.evaluation.evaluate import Evaluation
from postprocess.evaluation.protocols import tiou_name


@dataclass(frozen=True)
class TableData:
    """A table for people. The first column is a name; the others are numbers."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables(evaluation: Evaluation) -> list[TableData]:
    """The tables that the command line shows, in order."""
    overall = evaluation.overall
    rows = {"all classes": overall} | {f"conjoint, {name}": value for name, value in evaluation.conjoint.items()}
    at, of = tuple(overall.mean_ap), tuple(overall.average)
    title = f"protocol {evaluation.protocol}, subset {evaluation.subset or 'all'}, {evaluation.unit}: mAP (%) at tIoU"
    shown = [
        TableData(title, ("", *at), tuple((name, *map(_percent, v.mean_ap.values())) for name, v in rows.items())),
        TableData(
            "average mAP (%)",
            ("", "videos", "instances", *of),
            tuple(
                (name, str(v.videos), str(v.instances), *map(_percent, v.average.values())) for name, v in rows.items()
            ),
        ),
        TableData(
            "AP (%) of each class",
            ("class", "inst.", "pred.", *at, "mean"),
            tuple(
                (c.label, str(c.instances), str(c.predictions), *map(_percent, (*c.ap.values(), c.average)))
                for c in evaluation.per_class
            )
            + tuple((label, "0", str(n), *["–"] * (len(at) + 1)) for label, n in evaluation.unannotated.items()),
        ),
    ]
    if evaluation.classification is not None:
        body = (("all classes", _percent(evaluation.classification)),)
        shown.append(TableData("classification of whole videos", ("", "mAP (%)"), body))
    if evaluation.diagnosis is not None:
        shown += _diagnosis_tables(evaluation.diagnosis, evaluation.unit)
    return shown


def _diagnosis_tables(diagnosis: Diagnosis, unit: str) -> list[TableData]:
    gains = {kind: _percent(100 * gain) for kind, gain in diagnosis.gains.items()}
    kinds = tuple(
        (kind, str(count), share, gains.get(kind, ""))
        for (kind, count), share in zip(diagnosis.counts.items(), _shares(diagnosis.counts), strict=True)
    )
    bands = tuple((f"{band.multiple}G", *_shares(band.counts)) for band in diagnosis.bands)
    lengths = tuple(
        (
            b.name,
            f"{b.shortest:.1f}–{b.longest:.1f}",
            str(b.instances),
            _percent(100 * b.recall),
            _percent(100 * b.ap_n),
        )
        for b in diagnosis.lengths
    )
    at = f"at tIoU {tiou_name(diagnosis.tiou)}"
    return [
        TableData(f"kinds of predictions {at}", ("kind", "count", "%", "mAP gained without"), kinds),
        TableData("kinds down the ranking (%), G instances a class", ("rank", *diagnosis.counts), bands),
        TableData(f"by length {at}", ("length", unit, "instances", "recall %", "mAP_N %"), lengths),
    ]


def _shares(counts: Mapping[str, int]) -> list[str]:
    total = max(sum(counts.values()), 1)
    return [_percent(100 * count / total) for count in counts.values()]


def _percent(value: float) -> str:
    return f"{value:.1f}"
