"""Assessments: feedback on traces, expectations of them, issues they show."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from sqlalchemy import Row, insert, select, update
from sqlalchemy import delete as sql_delete

from noria import audit
from noria.clock import from_millis, to_millis
from noria.errors import AlreadyExists, InvalidInput, NotFound
from noria.store.database import Transaction, from_json, to_json
from noria.store.tables import assessments
from noria.tracking.entities import Assessment

KINDS = ("feedback", "expectation", "issue")
_LONGEST_ID, _LONGEST_NAME = 50, 250


def put(tx: Transaction, assessment: Assessment) -> None:
    """Keep an assessment that comes with its trace; told again it is replaced. Raises AlreadyExists for another's."""
    _check(assessment)
    owner = select(assessments.c.trace_id).where(assessments.c.assessment_id == assessment.assessment_id)
    before = tx.execute(owner).scalar()
    if before not in (None, assessment.trace_id):
        raise AlreadyExists(f"assessment {assessment.assessment_id} is of another trace", remedy="Leave out its id.")
    tx.execute(sql_delete(assessments).where(assessments.c.assessment_id == assessment.assessment_id))
    tx.execute(insert(assessments).values(_row(assessment)))


def create(tx: Transaction, assessment: Assessment) -> Assessment:
    """Keep a new assessment; one that it overrides counts no longer. Raises NotFound or AlreadyExists."""
    _check(assessment)
    taken = select(assessments.c.trace_id).where(assessments.c.assessment_id == assessment.assessment_id)
    if tx.execute(taken).first() is not None:
        raise AlreadyExists(f"assessment {assessment.assessment_id} exists already", remedy="Leave out its id.")
    if assessment.overrides:
        _set_valid(tx, get(tx, assessment.trace_id, assessment.overrides), valid=False)
    tx.execute(insert(assessments).values(_row(assessment)))
    _note(tx, "create", assessment)
    return get(tx, assessment.trace_id, assessment.assessment_id)


def get(tx: Transaction, trace_id: str, assessment_id: str) -> Assessment:
    """The assessment of that id of that trace. Raises NotFound."""
    of_it = (assessments.c.trace_id == trace_id, assessments.c.assessment_id == assessment_id)
    row = tx.execute(select(assessments).where(*of_it)).first()
    if row is None:
        raise NotFound(
            f"Assessment with ID '{assessment_id[:100]}' not found for trace '{trace_id[:100]}'",
            remedy="Get the trace for the ids.",
        )
    return _assessment(row)


def change(tx: Transaction, changed: Assessment) -> Assessment:
    """Keep an assessment as it is now. Raises InvalidInput when it became another kind."""
    before = get(tx, changed.trace_id, changed.assessment_id)
    if before.kind != changed.kind:
        raise InvalidInput(f"this is {before.kind}, not {changed.kind}", remedy="Create another assessment.")
    _check(changed)
    of_it = assessments.c.assessment_id == changed.assessment_id
    tx.execute(update(assessments).where(of_it).values(_row(changed)))
    _note(tx, "update", changed, before)
    return get(tx, changed.trace_id, changed.assessment_id)


def delete(tx: Transaction, trace_id: str, assessment_id: str) -> None:
    """Delete an assessment if it is there; what it had overridden counts again."""
    of_it = (assessments.c.trace_id == trace_id, assessments.c.assessment_id == assessment_id)
    row = tx.execute(select(assessments).where(*of_it)).first()
    if row is None:
        return
    tx.execute(sql_delete(assessments).where(*of_it))
    _note(tx, "delete", _assessment(row))
    overridden = _assessment(row).overrides
    if overridden:
        restored = (assessments.c.trace_id == trace_id, assessments.c.assessment_id == overridden)
        if (found := tx.execute(select(assessments).where(*restored)).first()) is not None:
            _set_valid(tx, _assessment(found), valid=True)


def _note(tx: Transaction, done: str, assessment: Assessment, before: Assessment | None = None) -> None:
    detail = {"assessment_id": assessment.assessment_id, "name": assessment.name, "content": assessment.content}
    told = {} if before is None else {"before": before.content}
    audit.note(tx, f"assessment.{done}", f"trace:{assessment.trace_id}", detail={**detail, **told})


def of_traces(tx: Transaction, trace_ids: Sequence[str]) -> dict[str, list[Assessment]]:
    """The assessments of each trace, oldest first."""
    query = (
        select(assessments)
        .where(assessments.c.trace_id.in_(trace_ids))
        .order_by(assessments.c.created_at, assessments.c.assessment_id)
    )
    found: dict[str, list[Assessment]] = {}
    for row in tx.execute(query):
        found.setdefault(row.trace_id, []).append(_assessment(row))
    return found


def _set_valid(tx: Transaction, assessment: Assessment, *, valid: bool) -> None:
    row = _row(replace(assessment, valid=valid))
    tx.execute(update(assessments).where(assessments.c.assessment_id == assessment.assessment_id).values(row))


def _check(assessment: Assessment) -> None:
    if not 1 <= len(assessment.assessment_id) <= _LONGEST_ID or not 1 <= len(assessment.name) <= _LONGEST_NAME:
        raise InvalidInput(
            f"assessment {assessment.name[:60]!r} has no name or id, or one that is too long",
            remedy=f"Use at most {_LONGEST_NAME} characters for the name and {_LONGEST_ID} for the id.",
        )


def _value(content: Mapping[str, object]) -> object:
    serialized = content.get("serialized_value")
    return serialized.get("value") if isinstance(serialized, Mapping) else content.get("value")


def _row(assessment: Assessment) -> dict[str, Any]:
    value = _value(assessment.content)
    document = {
        "content": assessment.content,
        "source": assessment.source,
        "span_id": assessment.span_id,
        "rationale": assessment.rationale,
        "metadata": assessment.metadata,
        "overrides": assessment.overrides,
    }
    return {
        "assessment_id": assessment.assessment_id,
        "trace_id": assessment.trace_id,
        "name": assessment.name,
        "kind": assessment.kind,
        "value": value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False),
        "number": float(value) if isinstance(value, int | float) else None,
        "valid": int(assessment.valid),
        "document": to_json(document),
        "created_at": to_millis(assessment.created_at),
        "updated_at": to_millis(assessment.updated_at),
    }


def _assessment(row: Row[Any]) -> Assessment:
    document = cast(dict[str, Any], from_json(row.document))
    return Assessment(
        row.assessment_id,
        row.trace_id,
        row.name,
        row.kind,
        valid=bool(row.valid),
        created_at=from_millis(row.created_at),
        updated_at=from_millis(row.updated_at),
        **document,
    )
