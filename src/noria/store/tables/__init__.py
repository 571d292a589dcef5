"""Every SQL table: the only description of the schema outside the migrations.

Instants are integer milliseconds since 1970-01-01T00:00Z; free-form values are JSON text.
"""

from __future__ import annotations

from noria.store.tables.access import api_tokens, role_grants, users
from noria.store.tables.audit import audit_entries, audit_pending
from noria.store.tables.events import webhook_deliveries, webhooks
from noria.store.tables.features import feature_definitions, materializations
from noria.store.tables.registry import (
    alias_moves,
    approvals,
    model_aliases,
    model_versions,
    parity_checks,
    registered_models,
    transitions,
)
from noria.store.tables.schema import metadata
from noria.store.tables.serving import (
    bandit_shares,
    deployments,
    gateway_keys,
    monitor_windows,
    rollout_decisions,
    rollout_looks,
    rollout_steps,
    rollouts,
    route_tables,
    served_models,
    verdicts,
)
from noria.store.tables.tracing import assessments, spans, trace_links, trace_metadata, trace_tags, traces
from noria.store.tables.tracking import (
    dataset_versions,
    experiments,
    latest_metrics,
    logged_model_metrics,
    logged_models,
    pipeline_steps,
    run_inputs,
    run_metrics,
    run_model_inputs,
    run_outputs,
    run_params,
    run_tags,
    runs,
)

__all__ = [
    "alias_moves",
    "api_tokens",
    "approvals",
    "assessments",
    "audit_entries",
    "audit_pending",
    "bandit_shares",
    "dataset_versions",
    "deployments",
    "experiments",
    "feature_definitions",
    "gateway_keys",
    "latest_metrics",
    "logged_model_metrics",
    "logged_models",
    "materializations",
    "metadata",
    "model_aliases",
    "model_versions",
    "monitor_windows",
    "parity_checks",
    "pipeline_steps",
    "registered_models",
    "role_grants",
    "rollout_decisions",
    "rollout_looks",
    "rollout_steps",
    "rollouts",
    "route_tables",
    "run_inputs",
    "run_metrics",
    "run_model_inputs",
    "run_outputs",
    "run_params",
    "run_tags",
    "runs",
    "served_models",
    "spans",
    "trace_links",
    "trace_metadata",
    "trace_tags",
    "traces",
    "transitions",
    "users",
    "verdicts",
    "webhook_deliveries",
    "webhooks",
]
