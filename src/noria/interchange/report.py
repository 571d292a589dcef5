"""The proof of a move: both ends counted and hashed by the same code, and every difference named."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from noria.clock import to_millis
from noria.errors import Unavailable
from noria.interchange.side import Side, own_tags
from noria.registry import ModelVersion, RegisteredModel
from noria.store.database import to_json
from noria.tracking.entities import Experiment, LoggedModel, Metric, Run
from noria.tracking.metrics import LARGEST

_SHOWN = 20
_IS_PROMPT = "mlflow.prompt.is_prompt"

Hash = tuple[str, int, str]
"""A file: path below its root, size in bytes, SHA-256."""

Facts = Mapping[str, tuple[int, str]]
"""What one run, logged model or version is made of: part → (how many, SHA-256 of all of them)."""


class Progress(Protocol):
    """Told what is being done, how many of its kind are done, and of how many."""

    def __call__(self, text: str, done: int, of: int) -> None: ...


@dataclass(frozen=True, slots=True)
class View:
    """One end, and how to recognise there what belongs to the move.

    The three functions give the name that both ends know a thing by, or None for what is not part of the move;
    ``hashes`` gives the files below a root, whose name at both ends comes first.
    """

    side: Side
    run: Callable[[Run], str | None]
    logged_model: Callable[[LoggedModel], str | None]
    version: Callable[[ModelVersion], bool]
    hashes: Callable[[str, str], Sequence[Hash]]


@dataclass(frozen=True, slots=True)
class Comparison:
    """An experiment or a registered model at both ends: counts, one hash over all of it, and what differs."""

    name: str
    source: Mapping[str, int]
    target: Mapping[str, int]
    source_sha256: str
    target_sha256: str
    differences: Sequence[str]


@dataclass(slots=True)
class Report:
    """What a move did and how the ends compare after it."""

    source: str
    target: str
    copied: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    not_copied: list[str] = field(default_factory=list)
    experiments: list[Comparison] = field(default_factory=list)
    models: list[Comparison] = field(default_factory=list)

    def count(self, what: str, number: int = 1, *, new: bool) -> None:
        """Add to what was copied, or to what was there already."""
        counts = self.copied if new else self.skipped
        counts[what] = counts.get(what, 0) + number

    @property
    def same(self) -> bool:
        """Whether the target has all of the source, unchanged."""
        differ = any(item.differences for item in (*self.experiments, *self.models))
        return not (differ or self.refused or self.not_copied)


@dataclass(slots=True)
class _Survey:
    """One end while it is read: what roots and ids mean at both ends."""

    view: View
    unreachable: list[str] = field(default_factory=list)
    run_names: dict[str, str] = field(default_factory=dict)
    model_names: dict[str, str] = field(default_factory=dict)
    roots: dict[str, str] = field(default_factory=dict)

    def files(self, name: str, uri: str) -> Sequence[Hash]:
        """The files below a root; none, and a note, when they are out of reach."""
        try:
            return self.view.hashes(name, uri)
        except Unavailable as error:
            self.unreachable.append(f"artifacts of {name}: {error.message}. {error.remedy}")
            return []

    def place(self, uri: str) -> str | None:
        """What ``uri`` means at both ends: a path below a run or logged model; None when it is below neither."""
        root, path = uri.rstrip("/"), ""
        while "/" in root:
            if root in self.roots:
                return f"{self.roots[root]}/{path}"
            root, _, last = root.rpartition("/")
            path = f"{last}/{path}".rstrip("/")
        return None


def compare(report: Report, source: View, target: View, progress: Progress) -> None:
    """Read both ends and add to ``report`` how they compare."""
    ends = _Survey(source), _Survey(target)
    there = {experiment.name: experiment for experiment in target.side.experiments()}
    experiments = source.side.experiments()
    for number, experiment in enumerate(experiments):
        progress(f"comparing experiment {experiment.name}", number, len(experiments))
        report.experiments.append(_compare_experiment(*ends, experiment, there.get(experiment.name)))
    models, known = source.side.models(), {model.name: model for model in target.side.models()}
    for number, model in enumerate(models):
        progress(f"comparing model {model.name}", number, len(models))
        report.models.append(_compare_model(*ends, model, known.get(model.name)))
    report.not_copied += ends[0].unreachable


def _compare_experiment(
    source: _Survey, target: _Survey, experiment: Experiment, there: Experiment | None
) -> Comparison:
    ours = dict(_runs_and_models(source, experiment))
    theirs = {} if there is None else dict(_runs_and_models(target, there))
    differences = [f"the experiment is missing at {target.view.side.name}"] if there is None else []
    if there is not None:
        if there.lifecycle_stage != experiment.lifecycle_stage:
            differences.append(f"lifecycle stage: {experiment.lifecycle_stage} → {there.lifecycle_stage}")
        tags = own_tags(experiment.tags)
        differences += [f"tag {key!r} differs" for key, value in tags.items() if there.tags.get(key) != value]
    return _comparison(experiment.name, ours, theirs, differences)


def _compare_model(
    source: _Survey, target: _Survey, model: RegisteredModel, there: RegisteredModel | None
) -> Comparison:
    ours = dict(_versions(source, model))
    theirs = {} if there is None else dict(_versions(target, there))
    differences = [f"the model is missing at {target.view.side.name}"] if there is None else []
    return _comparison(model.name, ours, theirs, differences)


def _comparison(
    name: str, ours: Mapping[str, Facts], theirs: Mapping[str, Facts], differences: list[str]
) -> Comparison:
    for item in sorted({*ours, *theirs}):
        if item not in theirs or item not in ours:
            differences.append(f"{item} is only at the {'source' if item in ours else 'target'}")
            continue
        for part in sorted({*ours[item], *theirs[item]}):
            mine, other = ours[item].get(part, (0, "")), theirs[item].get(part, (0, ""))
            if mine != other:
                differences.append(f"{item}: {part} differ ({mine[0]} at the source, {other[0]} at the target)")
    if len(differences) > _SHOWN:
        differences = [*differences[:_SHOWN], f"and {len(differences) - _SHOWN} more"]
    return Comparison(name, _counts(ours), _counts(theirs), _digest(ours), _digest(theirs), differences)


def _counts(found: Mapping[str, Facts]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for name, facts in found.items():
        total[f"{name.partition(' ')[0]}s"] += 1
        for part, (count, _) in facts.items():
            if part != "record":
                total[part] += count
    return dict(total)


def _digest(found: Mapping[str, Facts]) -> str:
    return _sha256({name: {part: list(fact) for part, fact in facts.items()} for name, facts in found.items()})


def _runs_and_models(survey: _Survey, experiment: Experiment) -> Iterator[tuple[str, Facts]]:
    view = survey.view
    models = [(name, m) for m in view.side.logged_models(experiment) if (name := view.logged_model(m)) is not None]
    survey.model_names |= {model.model_id: name for name, model in models}
    for run in view.side.runs(experiment):
        if (name := view.run(run)) is not None:
            survey.run_names[run.run_id] = name
            survey.roots[run.artifact_uri.rstrip("/")] = f"run {name}"
            yield f"run {name}", _run_facts(survey, name, run)
    for name, model in models:
        survey.roots[model.artifact_uri.rstrip("/")] = f"model {name}"
        yield f"logged_model {name}", _logged_model_facts(survey, name, model)


def _run_facts(survey: _Survey, name: str, run: Run) -> Facts:
    outputs = sorted([survey.model_names.get(model, model), step] for model, step in run.model_outputs)
    ended = None if run.ended_at is None else to_millis(run.ended_at)
    record = [run.name, run.user, run.status, run.lifecycle_stage, to_millis(run.started_at), ended, outputs]
    points = sorted(set(map(_point, survey.view.side.history(run))))
    return {
        "record": (1, _sha256(record)),
        "params": _of_pairs(run.params),
        "tags": _of_pairs(own_tags(run.tags)),
        "metric_points": (len(points), _sha256(points)),
        "datasets": _of_datasets(run.datasets),
        **_of_files(survey.files(f"run {name}", run.artifact_uri)),
    }


def _logged_model_facts(survey: _Survey, name: str, model: LoggedModel) -> Facts:
    run = survey.run_names.get(model.source_run_id or "", model.source_run_id)
    return {
        "record": (1, _sha256([model.name, run, model.status, model.model_type])),
        "params": _of_pairs(model.params),
        "tags": _of_pairs(own_tags(model.tags)),
        **_of_files(survey.files(f"model {name}", model.artifact_uri)),
    }


def _versions(survey: _Survey, model: RegisteredModel) -> Iterator[tuple[str, Facts]]:
    versions = [version for version in survey.view.side.versions(model.name) if survey.view.version(version)]
    aliases = {alias: str(number) for alias, number in survey.view.side.aliases(model.name).items()}
    facts = {
        "record": (1, _sha256(model.description)),
        "tags": _of_pairs(own_tags(model.tags)),
        "aliases": _of_pairs(aliases),
    }
    yield f"model {model.name}", facts
    for version in versions:
        yield f"version {version.version}", _version_facts(survey, version)


def _version_facts(survey: _Survey, version: ModelVersion) -> Facts:
    place = survey.place(version.source)
    run = survey.run_names.get(version.run_id or "", version.run_id)
    facts = {
        "record": (1, _sha256([version.description, version.status, run, place])),
        "tags": _of_pairs(own_tags(version.tags)),
        f"in {version.stage}": (1, _sha256(version.stage.value)),
    }
    if place is None and _IS_PROMPT not in version.tags and version.source:
        facts |= _of_files(survey.files(f"version {version.label}", version.source))
    return facts


def _of_pairs(pairs: Mapping[str, str]) -> tuple[int, str]:
    return len(pairs), _sha256(dict(pairs))


def _of_datasets(datasets: Sequence[Mapping[str, object]]) -> tuple[int, str]:
    plain = sorted(to_json([entry["name"], entry["digest"], _dataset(entry)]) for entry in datasets)
    return len(plain), _sha256(plain)


def _dataset(entry: Mapping[str, object]) -> list[object]:
    dataset, tags = entry.get("dataset"), entry.get("tags")
    known = {key: value for key, value in dataset.items() if value} if isinstance(dataset, dict) else {}
    return [known, sorted([tag["key"], tag.get("value", "")] for tag in tags) if isinstance(tags, list) else []]


def _of_files(files: Sequence[Hash]) -> dict[str, tuple[int, str]]:
    digest = _sha256(sorted(files))
    return {"files": (len(files), digest), "bytes": (sum(size for _, size, _ in files), digest)}


def _point(metric: Metric) -> tuple[str, int, int, str]:
    value = metric.value if metric.value != metric.value else max(min(metric.value, LARGEST), -LARGEST)
    return metric.key, metric.step, metric.timestamp_millis, repr(value)


def _sha256(value: object) -> str:
    return hashlib.sha256(to_json([value]).encode()).hexdigest()
