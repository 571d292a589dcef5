"""Which columns of a table a model takes, by name, and which of the others stay beside its predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from noria.errors import InvalidData, InvalidInput
from noria.optimize.bundle import Bundle
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
    """What is read, and what for. ``inputs`` has the model's inputs that the table holds, with their columns; the rest
    is looked up by ``keys``, or joined as of ``as_of`` when there is one."""

    inputs: Mapping[str, str]
    texts: Sequence[str]
    keys: Sequence[str]
    as_of: str
    kept: Mapping[str, pl.DataType]
    outputs: Mapping[str, pl.DataType]

    @property
    def read(self) -> list[str]:
        """All columns that are read, each once."""
        more = [self.as_of] if self.as_of else []
        return list(dict.fromkeys([*self.inputs.values(), *self.keys, *more, *self.kept]))

    @property
    def numbers(self) -> list[str]:
        """The columns whose values must be numbers."""
        return [column for name, column in self.inputs.items() if name not in self.texts]

    @property
    def looks_up(self) -> bool:
        """Whether features are missing in the table."""
        return bool(self.keys)

    @property
    def written(self) -> Mapping[str, pl.DataType]:
        """The columns of the output."""
        return {**self.kept, **self.outputs}


def match(bundle: Bundle, source: Source, wishes: Wishes, prediction: Any) -> Columns:
    """The columns of a job; ``prediction`` is the type of what the model says.

    Raises InvalidInput that names every input without a column, InvalidData for a column of the wrong kind.
    """
    import polars as pl

    schema = source.schema
    if bundle.tensors:
        raise InvalidInput("a model of tensors takes no table", remedy="Send it tensors over /v2/models/NAME/infer.")
    if unknown := sorted(set(wishes.renamed) - set(bundle.inputs)):
        raise InvalidInput(
            f"the model has no input {', '.join(unknown)}", remedy=f"It takes: {', '.join(bundle.inputs)}."
        )
    columns = {name: wishes.renamed.get(name, name) for name in bundle.inputs}
    asked = set(bundle.request_columns)
    absent = [name for name, column in columns.items() if column not in schema]
    keys = tuple(dict.fromkeys(key for view in bundle.views for key in view.join_keys))
    if computed := [name for one in bundle.computed for name in one.feature_names if columns[name] not in schema]:
        raise InvalidInput(
            f"the model computes {', '.join(computed)} on demand, and a batch job computes nothing",
            remedy="Give the table these columns, as get_historical_features does, or ask a gateway.",
        )
    if absent:
        _check_absent(bundle, schema, absent, keys, wishes.as_of)
    held = {name: column for name, column in columns.items() if not absent or name in asked}
    texts = tuple(name for place, name in enumerate(bundle.inputs) if place in bundle.string_places)
    if source.typed:
        _check_kinds(held, texts, schema)
    else:
        schema = {**schema, **{column: pl.Float64() for name, column in held.items() if name not in texts}}
    if wishes.as_of and wishes.as_of not in schema:
        raise InvalidInput(f"there is no column {wishes.as_of!r}", remedy=f"There are: {', '.join(schema)}.")
    kept = _kept(schema, wishes.keep, set(held.values()))
    outputs = _outputs(bundle, prediction, wishes.with_ids)
    if taken := [name for name in kept if name in outputs]:
        raise InvalidInput(
            f"the table has columns called like those of the output: {', '.join(taken)}",
            remedy="Leave them out: --keep with the names of the others, or --keep none.",
        )
    as_of = wishes.as_of if absent else ""
    return Columns(held, texts, keys if absent else (), as_of, kept, outputs)


def _check_absent(
    bundle: Bundle, schema: Mapping[str, Any], absent: Sequence[str], keys: Sequence[str], as_of: str
) -> None:
    """Raises InvalidInput unless all that is absent can be looked up by keys the table has."""
    kinds = dict.fromkeys(bundle.string_places, "text")
    kind = {name: kinds.get(place, "number") for place, name in enumerate(bundle.inputs)}
    missing = [name for name in absent if name in bundle.request_columns]
    lacking = [key for key in keys if key not in schema]
    if not missing and not lacking:
        return
    found = [f"{name} (a {kind[name]})" for name in (missing if missing and not lacking else absent)]
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
