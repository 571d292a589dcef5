"""Which columns of a table a model takes, by name, and which of the others stay beside its predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from noria.errors import InvalidData, InvalidInput
from noria.features import ViewSpec
from noria.optimize.bundle import TEXTS, Bundle
from noria.serving.batch.parts import Source

if TYPE_CHECKING:
    import polars as pl

OUTPUTS = ("prediction_id", "prediction", "probability", "score", "model_version")


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a user says of columns: input → its column where that has another name, which others are kept (``all``,
    ``none``, names, or empty: all that are no inputs), and which one holds the time to join features as of."""

    renamed: Mapping[str, str]
    keep: str = ""
    as_of: str = ""
    with_ids: bool = False


@dataclass(frozen=True, slots=True)
class Columns:
    """What is read, and what for. ``inputs`` has the model's inputs that the table holds, with their columns.

    When ``lacking``, the others come from ``views``: looked up by ``keys``, or joined as of the time in ``as_of`` where
    that is a column. When ``computing``, on-demand features are made of these and of the columns held, of which
    ``beside`` are those that the model itself does not take. ``texts`` are the names of all that are no numbers.
    """

    inputs: Mapping[str, str]
    beside: Mapping[str, str]
    texts: Sequence[str]
    lacking: bool
    computing: bool
    views: Sequence[ViewSpec]
    as_of: str
    kept: Mapping[str, pl.DataType]
    outputs: Mapping[str, pl.DataType]

    @property
    def keys(self) -> list[str]:
        """The columns by which features are looked up or joined."""
        return list(dict.fromkeys(key for view in self.views for key in view.join_keys))

    @property
    def read(self) -> list[str]:
        """All columns that are read, each once."""
        more = [self.as_of] if self.as_of else []
        return list(dict.fromkeys([*self.sent.values(), *self.keys, *more, *self.kept]))

    @property
    def sent(self) -> Mapping[str, str]:
        """All that the table holds for the model, with the columns."""
        return {**self.inputs, **self.beside}

    @property
    def numbers(self) -> list[str]:
        """The columns whose values must be numbers."""
        return [column for name, column in self.sent.items() if name not in self.texts]

    @property
    def written(self) -> Mapping[str, pl.DataType]:
        """The columns of the output."""
        return {**self.kept, **self.outputs}


def match(bundle: Bundle, source: Source, wishes: Wishes, prediction: Any) -> Columns:
    """The columns of a job; ``prediction`` is the type of what the model says.

    Raises InvalidInput that names every input without a column, InvalidData for a column of the wrong kind.
    """
    schema = source.schema
    if bundle.tensors:
        raise InvalidInput("a model of tensors takes no table", remedy="Send it tensors over /v2/models/NAME/infer.")
    names = [*bundle.inputs, *bundle.sent_beside]
    if unknown := sorted(set(wishes.renamed) - set(names)):
        raise InvalidInput(f"the model has no input {', '.join(unknown)}", remedy=f"It takes: {', '.join(names)}.")
    columns = {name: wishes.renamed.get(name, name) for name in names}
    absent = [name for name in bundle.inputs if columns[name] not in schema]
    made = {name for one in bundle.computed for name in one.feature_names}
    computing = not made.isdisjoint(absent)
    views = () if not absent else bundle.looked_up if computing else bundle.views
    there = {*bundle.request_columns, *(() if computing else made)} if absent else set(bundle.inputs)
    inputs = {name: columns[name] for name in bundle.inputs if name in there}
    beside = {name: columns[name] for name in bundle.sent_beside} if computing else {}
    texts = [bundle.inputs[place] for place in bundle.string_places]
    texts += [name for name in bundle.sent_beside if bundle.kinds.get(name) in TEXTS]
    held = {**inputs, **beside}
    _check_there(held, views, texts, schema, wishes.as_of)
    if source.typed:
        _check_kinds(held, texts, schema)
    numbers = [column for name, column in held.items() if name not in texts]
    schema = {**schema, **{column: source.number_type(column) for column in numbers}}
    if wishes.as_of and wishes.as_of not in schema:
        raise InvalidInput(f"there is no column {wishes.as_of!r}", remedy=f"There are: {', '.join(schema)}.")
    kept = _kept(schema, wishes.keep, set(inputs.values()))
    outputs = _outputs(bundle, prediction, wishes.with_ids)
    if taken := [name for name in kept if name in outputs]:
        raise InvalidInput(
            f"the table has columns called like those of the output: {', '.join(taken)}",
            remedy="Leave them out: --keep with the names of the others, or --keep none.",
        )
    return Columns(
        inputs, beside, texts, bool(absent), computing, views, wishes.as_of if views else "", kept, outputs
    )  # fmt: skip


def _check_there(
    held: Mapping[str, str],
    views: Sequence[ViewSpec],
    texts: Sequence[str],
    schema: Mapping[str, Any],
    as_of: str,
) -> None:
    """Raises InvalidInput unless the table has the columns ``held``, and the keys by which views are looked up."""
    missing = [name for name, column in held.items() if column not in schema]
    lacking = [key for key in dict.fromkeys(key for view in views for key in view.join_keys) if key not in schema]
    if not missing and not lacking:
        return
    if lacking:
        missing += [name for view in views for name in view.feature_names if name not in schema]
    found = [f"{name} (a {'text' if name in texts else 'number'})" for name in missing]
    details = [f"or the key {key}, by which features are {'joined' if as_of else 'looked up'}" for key in lacking]
    raise InvalidInput(
        f"the table lacks inputs of the model: {', '.join(found)}",
        details=details,
        remedy=f"It has: {', '.join(schema)}. Columns of other names are given as --columns INPUT=COLUMN.",
    )


def _check_kinds(held: Mapping[str, str], texts: Sequence[str], schema: Mapping[str, Any]) -> None:
    import polars as pl

    for name, column in held.items():
        kind = schema[column]
        is_text = kind in (pl.String, pl.Categorical, pl.Enum) or kind.is_temporal()
        is_number = kind.is_numeric() or kind == pl.Boolean
        if kind != pl.Null and not (is_text if name in texts else is_number):
            wanted = "a text" if name in texts else "a number"
            raise InvalidData(
                f"column {column!r} is {kind}, and the model's input {name!r} is {wanted}",
                remedy="Change the table, or name another column with --columns INPUT=COLUMN.",
            )


def _kept(schema: Mapping[str, Any], keep: str, inputs: set[str]) -> dict[str, Any]:
    if keep == "all":
        return dict(schema)
    if keep == "none":
        return {}
    if not keep:
        return {name: kind for name, kind in schema.items() if name not in inputs}
    names = [name.strip() for name in keep.split(",")]
    if unknown := [name for name in names if name not in schema]:
        raise InvalidInput(
            f"there is no column {', '.join(unknown)} to keep", remedy=f"There are: {', '.join(schema)}."
        )
    return {name: schema[name] for name in names}


def _outputs(bundle: Bundle, prediction: Any, with_ids: bool) -> dict[str, Any]:
    import polars as pl

    found: dict[str, Any] = {"prediction_id": pl.String()} if with_ids else {}
    found["prediction"] = prediction
    if bundle.task == "classification":
        found["probability"] = pl.Float64()
        if len(bundle.classes) == 2:
            found["score"] = pl.Float64()
    return found | {"model_version": pl.String()}
