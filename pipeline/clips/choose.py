"""Which labels are meant by the names that a user types: labels, names as tables show them, or sports, in any case."""

from collections.abc import Collection, Mapping, Sequence

from postprocess.evaluation.names import FORMS, nfc, suggest
from postprocess.segment import Result, ways_to_say
from support.errors import UsageError

EMBEDDED = "kinetics400"


def labels_meant(asked: str, results: Sequence[Result]) -> set[str]:
    """The labels of these results that names joined by commas mean.

    A name means the labels that are spelled so or that tables show so ("weightlifting: squat"); else those of a sport
    of the embedded model; both first as they are typed, then in any case and any form of Unicode.

    Raises:
        UsageError: no segment has such a label.
    """
    known = {s.label for result in results for s in result.segments}
    said = {(s.label, way) for result in results for s in result.segments for way in ways_to_say(s.label, s.sport)}
    names = [name for part in asked.split(",") if (name := part.strip())]
    if not names:
        raise UsageError("--classes names no class; give names joined by commas, or leave it out.")
    sports: Mapping[str, str] | None = None
    meant: set[str] = set()
    missing = []
    for name in names:
        found = {label for label, way in said if nfc(way) == nfc(name)}
        if not found:
            sports = _sports(results) if sports is None else sports
            found = _alike(name, {(label, sports.get(label, "")) for label in known}) or _alike(name, said)
        if not found:
            missing.append(name)
        meant |= found
    if missing:
        near = suggest(missing[0], {*known, *(sport for label, sport in (sports or {}).items() if label in known)})
        there = f"there are {', '.join(sorted(known)) or 'none'}."
        hint = f"did you mean {near!r}? {there[0].upper()}{there[1:]}" if near else there
        raise UsageError(f"no segment is called {', '.join(missing)}; {hint}")
    return meant


def _alike(name: str, called: Collection[tuple[str, str]]) -> set[str]:
    """The labels of which one of the names equals this one, in the first form in which there are any."""
    found = ({label for label, other in called if form(other) == form(name)} for form in FORMS)
    return next((labels for labels in found if labels), set())


def _sports(results: Sequence[Result]) -> Mapping[str, str]:
    """Label -> sport, if the embedded model made one of the results; {} otherwise."""
    models = (result.provenance.get("model") for result in results)
    if not any(isinstance(model, dict) and model.get("name") == EMBEDDED for model in models):
        return {}
    from model.kinetics import sports_groups  # only here: it loads PyTorch

    return sports_groups()
