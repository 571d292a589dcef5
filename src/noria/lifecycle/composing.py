"""Composing: versions made of others, governed like any: chains with a transformer, ensembles, models elsewhere."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import msgspec

from noria.clock import Clock
from noria.errors import Conflict, InvalidData, InvalidInput, Unavailable
from noria.lifecycle.composed_features import Features, features_of
from noria.lifecycle.deploying import parse_address, version_of
from noria.lifecycle.served_forms import make_servable, variant_of
from noria.optimize.bundle import Bundle, Kind, TensorSpec, read_bundle, write_bundle
from noria.registry import ModelVersion, NewVersion, Policies, Signature, register_version
from noria.rollout import Variant
from noria.serving.runtimes.chain import MEMBER, TRANSFORMER_FILE, Described, Transformer
from noria.serving.runtimes.ensemble import HOW, MEAN, MEDIAN, VOTE
from noria.serving.runtimes.remote import PROMPT, PROTOCOLS, V2, Upstream
from noria.serving.served import load_served
from noria.store.blobs import folder_digest
from noria.store.workspace import Workspace, artifact_uri

_FOLDER = "composed"


@dataclass(frozen=True, slots=True)
class Composer:
    """Who composes, where, and under which policies."""

    workspace: Workspace
    policies: Policies
    clock: Clock
    actor: str

    def chain(
        self, name: str, address: str, transformer: Path, *, beside: Sequence[Path] = (), requirements: Sequence[str]
    ) -> ModelVersion:
        """Register a model behind or before a transformer, or between its two functions.

        The file may define ``preprocess(columns)``, which is given and returns lists by column name, and
        ``postprocess(answers, columns)``, which is given an object a row and returns anything a row; ``columns`` names
        what requests have to send where that is not what the model takes, ``example`` a row to try it with. Files
        ``beside`` it can be imported. Raises InvalidData for a file that has neither function.
        """
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "model"
            member = self._member(address, folder / MEMBER)
            for source, target in [(transformer, TRANSFORMER_FILE), *((path, path.name) for path in beside)]:
                shutil.copyfile(source, folder / target)
            described = _described(folder / TRANSFORMER_FILE, requirements)
            bundle = _chained(folder, described, requirements)
            return self._register(name, folder, bundle, "chain", [member])

    def ensemble(
        self, name: str, addresses: Sequence[str], *, combine: str = MEAN, weights: Sequence[float] = ()
    ) -> ModelVersion:
        """Register several models as one. Raises InvalidInput where they do not predict the same thing."""
        if combine not in HOW:
            raise InvalidInput(f"{combine!r} is no way to combine models", remedy=f"Use {', '.join(HOW)}.")
        weighable = all(w > 0 for w in weights) and math.isfinite(sum(weights))
        if len(addresses) < 2 or (weights and len(weights) != len(addresses)) or not weighable:
            raise InvalidInput(
                f"{len(addresses)} models with {len(weights)} weights make no ensemble",
                remedy="Name at least two models and, for weights, a positive and finite one for each.",
            )
        if weights and combine == MEDIAN:
            raise InvalidInput("a median has no weights", remedy=f"Leave them out, or combine by {MEAN} or {VOTE}.")
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "model"
            names = [str(place) for place in range(len(addresses))]
            members = [self._member(a, folder / n) for a, n in zip(addresses, names, strict=True)]
            options = {"members": names, "combine": combine, "weights": list(weights or [1.0] * len(names))}
            return self._register(name, folder, _together(folder, members, options), "ensemble", members)

    def remote(
        self, name: str, url: str, model: str, *, protocol: str = V2, seconds: float = 30.0, key_variable: str = ""
    ) -> ModelVersion:
        """Register a model that another server runs; of v2, its tensors are those that server tells now.

        Raises Unavailable when the server cannot be reached, InvalidInput for a protocol that is not known.
        """
        if protocol not in PROTOCOLS:
            raise InvalidInput(f"{protocol!r} is no known protocol", remedy=f"Use {' or '.join(PROTOCOLS)}.")
        upstream = Upstream(url, seconds, key_variable)
        options = {"url": url, "model": model, "seconds": seconds, "key_variable": key_variable}
        if protocol == V2:
            told = upstream.ask(f"/v2/models/{model}")
            bundle = Bundle(
                "generic",
                tensors=_specs(told, "inputs"),
                outputs=_specs(told, "outputs"),
                runtime="remote",
                options=options,
            )
        else:
            bundle = Bundle("generic", (PROMPT,), kinds={PROMPT: "string"}, runtime="remote", options=options)
        upstream.close()
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "model"
            folder.mkdir()
            return self._register(name, folder, bundle, f"remote {protocol}", [])

    def _member(self, address: str, folder: Path) -> ModelVersion:
        """Copy the served form of what ``address`` names into ``folder``."""
        with self.workspace.database.read() as tx:
            version = version_of(tx, parse_address(address))
        make_servable(self.workspace, version, at=self.clock.now(), actor=self.actor)
        with self.workspace.database.read() as tx:
            variant = variant_of(tx, version, "member", 100)
        shutil.copytree(self.workspace.artifacts.fetch(variant.source), folder)
        return version

    def _register(
        self, name: str, folder: Path, bundle: Bundle, kind: str, members: Sequence[ModelVersion]
    ) -> ModelVersion:
        """Keep the folder, load it as a gateway would, and register it."""
        write_bundle(folder, bundle)
        digest = folder_digest(folder)
        key = f"{_FOLDER}/{name}/{digest[:16]}"
        self.workspace.artifacts.put_folder(key, folder)
        load_served(self.workspace.artifacts, Variant("tried", name, 0, key, digest, 100)).runtime.unload()
        kinds = bundle.kinds
        new = NewVersion(
            name,
            artifact_uri(key),
            digest=digest,
            signature=Signature(tuple((column, kinds.get(column, "double")) for column in bundle.sent), bundle.task),
            algorithm=kind,
            tags={"noria.composition": kind, "noria.members": ", ".join(member.label for member in members)},
        )
        with self.workspace.database.write() as tx:
            return register_version(tx, new, policies=self.policies, at=self.clock.now(), actor=self.actor)


def _described(file: Path, requirements: Sequence[str]) -> Described:
    transformer = Transformer(file, requirements)
    try:
        described = transformer.describe()
    finally:
        transformer.stop()
    if not described.verbs:
        raise InvalidData(
            f"{file.name} transforms nothing",
            remedy="Define preprocess(columns), postprocess(answers, columns) or both.",
        )
    return described


def _chained(folder: Path, described: Described, requirements: Sequence[str]) -> Bundle:
    """The chain's bundle: the transformer's columns where it names some, else the model's own.

    Features are looked up and computed before the transformer is asked, as without it.
    """
    member = read_bundle(folder / MEMBER)
    if member.tensors:
        raise InvalidInput("a model of tensors cannot be chained", remedy="Log it with a signature of columns.")
    columns = {name: member.kinds.get(name, "double") for name in member.request_columns}
    optional = member.optional
    example = member.example or (() if member.string_places else (0.0,) * len(columns))
    if described.columns is not None:
        named = (
            described.columns if isinstance(described.columns, Mapping) else dict.fromkeys(described.columns, "double")
        )
        columns = {name: cast(Kind, kind) for name, kind in named.items()}
        example = optional = ()
    if described.example is not None:
        example = tuple(described.example.get(name) for name in columns)
    answers = "postprocess" in described.verbs
    features = features_of(folder, {MEMBER: member}, columns)
    return _with_features(
        features,
        columns,
        Bundle(
            "generic" if answers else member.task,
            decision_threshold=member.decision_threshold,
            classes=member.classes,
            runtime="chain",
            options={"verbs": list(described.verbs), "requirements": list(requirements)},
            example=example if len(example) == len(columns) else (),
            optional=optional,
        ),
    )


def _together(folder: Path, members: Sequence[ModelVersion], options: Mapping[str, Any]) -> Bundle:
    """The ensemble's bundle: every column, view and computed feature that some member takes, each once."""
    named = {place: read_bundle(folder / place) for place in options["members"]}
    bundles = list(named.values())
    first = bundles[0]
    for bundle, version in zip(bundles, members, strict=True):
        if bundle.tensors or bundle.task == "generic":
            raise InvalidInput(
                f"{version.label} is no classifier and predicts no value", remedy="Chain it with a transformer first."
            )
        if (bundle.task, bundle.classes) != (first.task, first.classes):
            raise InvalidInput(
                f"{version.label} predicts {_meaning(bundle)}, {members[0].label} {_meaning(first)}",
                remedy="Members of an ensemble predict the same thing.",
            )
    if options["combine"] == VOTE and first.task != "classification":
        raise InvalidInput("values cannot be voted on", remedy="Use mean or median.")
    columns: dict[str, Kind] = {n: b.kinds.get(n, "double") for b in bundles for n in b.request_columns}
    if clashing := sorted({n for b in bundles for n in b.request_columns if b.kinds.get(n, "double") != columns[n]}):
        raise _in_different_forms(clashing)
    examples = {n: v for b in bundles if b.example for n, v in zip(b.inputs, b.example, strict=True)}
    needed = {n for b in bundles for n in b.request_columns if n not in b.optional}
    mean = sum(w * b.decision_threshold for w, b in zip(options["weights"], bundles, strict=True))
    return _with_features(
        features_of(folder, named, columns),
        columns,
        Bundle(
            first.task,
            decision_threshold=0.5 if options["combine"] == VOTE else mean / sum(options["weights"]),
            classes=first.classes,
            runtime="ensemble",
            options=options,
            example=tuple(examples[name] for name in columns) if set(columns) <= set(examples) else (),
            optional=tuple(name for name in columns if name not in needed),
        ),
    )


def _with_features(features: Features, columns: Mapping[str, Kind], bundle: Bundle) -> Bundle:
    """The bundle with what it takes: the columns sent, and features. Without an example where it takes any of these."""
    kinds = {**features.kinds, **columns}
    if clashing := [name for name, kind in features.kinds.items() if kinds[name] != kind]:
        raise _in_different_forms(clashing)
    return msgspec.structs.replace(
        bundle,
        request_columns=tuple(columns),
        views=features.views,
        kinds={name: kind for name, kind in kinds.items() if kind != "double"},
        sent_beside=features.sent_beside,
        views_beside=features.views_beside,
        computed=features.computed,
        example=() if features.views or features.computed else bundle.example,
    )


def _in_different_forms(names: Sequence[str]) -> Conflict:
    return Conflict(
        f"{', '.join(names)} would be taken in different forms",
        remedy="Name the columns in the kinds the models were trained with, or convert one in a transformer's chain.",
    )


def _meaning(bundle: Bundle) -> str:
    return "a value" if bundle.task == "regression" else f"one of {', '.join(map(str, bundle.classes))}"


def _specs(told: Any, part: str) -> tuple[TensorSpec, ...]:
    try:
        return tuple(TensorSpec(one["name"], one["datatype"], tuple(one["shape"])) for one in told[part])
    except (KeyError, TypeError) as error:
        raise Unavailable(
            f"the other server does not tell the model's {part}: {type(error).__name__} {error}",
            remedy="Check that it speaks the Open Inference Protocol.",
        ) from None
