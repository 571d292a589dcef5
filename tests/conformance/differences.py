"""Where Noria does not do what MLflow does, on purpose: check → reason. A check that comes to agree must leave."""

from __future__ import annotations

_STRICT = "Noria refuses what MLflow drops, cuts off or misreads without a word"
_FAILS = "MLflow fails with an internal error; Noria says what is wrong"
_MORE = "Noria answers more of the grammar than MLflow does"
_LENIENT = "Noria does without what MLflow insists on, where only one thing can be meant"
_CODE = "Noria names the refusal by the more telling code"
_PRODUCTION = "Governance: what is in Production cannot vanish; archive it first"
_EVIDENCE = "Governance: the runs that versions were registered of are their evidence"
_SHAPE = "Noria tells more in this answer, or keeps one thing for another's name"
_BACKSLASH = "Noria refuses a backslash in a path, whatever it is looked for"
_NEWEST = "A filter asks for the newest value, as the order does; MLflow's takes any value there ever was"
_PAGES = "Noria refuses a page of no results"

DIFFERENCES: dict[str, str] = {
    # governance
    "stage_production_version_deleted": _PRODUCTION,
    "stage_model_deleted_with_a_version_in_production": _PRODUCTION,
    "stage_model_renamed_with_a_version_in_production": _PRODUCTION,
    "stage_production_without_archiving": "Governance: a model has one version in Production",
    "run_of_a_version_deleted": _EVIDENCE,
    "metrics_of_a_version_whose_run_ended": _EVIDENCE,
    "version_of_an_unknown_run": _EVIDENCE,
    "version_of_a_run_that_failed": "Governance: a policy must allow versions of failed runs",
    "version_tags_exact": "Noria gives every version a semantic version, told by a tag",
    "who_a_version_is_of": "Noria says who registered a version, also when nobody told",
    "who_a_run_is_of": "Noria says who started a run, also when nobody told",
    "model_names_with_signs_that_mean_something": "Routes, paths and audit subjects hold names: no @ % or quotes",
    "model_name_of_256_characters": "Names of models have up to 250 characters, in routes and paths too",
    "experiment_with_an_artifact_location": "All artifacts lie below one root, which is backed up and governed",
    "workspace_of_an_experiment": "A Noria server serves one project and has no workspaces",
    # errors
    "experiment_renamed_to_a_name_taken": _CODE,
    "logged_model_param_changed": _CODE,
    "endpoint_unknown": "MLflow answers with a page of HTML, Noria in the protocol's shape",
    "method_not_allowed": "Noria takes a wrong method for an endpoint that it does not serve",
    "experiment_renamed_after_its_deletion": _FAILS,
    "body_that_is_a_list": _FAILS,
    "stage_archived_cannot_archive_others": "MLflow fails; Noria moves the version and archives nothing",
    "logged_model_filter_metrics": _FAILS,
    "logged_model_filter_refused": _FAILS,
    "logged_model_search_page_tokens_that_are_none": _FAILS,
    "model_filter_null": _FAILS,
    "version_filter_null": _FAILS,
    "run_with_tags_that_are_no_list": _STRICT,
    "run_with_a_tag_key_of_251_characters": _STRICT,
    "run_update_to_an_unknown_status": _STRICT,
    "metric_with_a_value_that_is_true": _STRICT,
    "metric_with_a_broken_step": _STRICT,
    "metric_with_a_timestamp_beyond_64_bits": _STRICT,
    "metric_history_of_an_unknown_run": _STRICT,
    "param_value_at_and_over_the_limit": _STRICT,
    "tag_value_at_and_over_the_limit": _STRICT,
    "batch_with_long_values": _STRICT,
    "batch_metric_with_a_value_that_is_no_number": _STRICT,
    "batch_metric_with_a_timestamp_that_is_no_number": _STRICT,
    "inputs_that_are_a_list_of_text": _STRICT,
    "inputs_with_a_dataset_that_is_text": _STRICT,
    "outputs_with_a_step_that_is_no_number": _STRICT,
    "logged_model_finalized_with_a_status_that_is_none": _STRICT,
    "logged_model_deleted": _STRICT,
    "run_filter_ending_in_and": _STRICT,
    "run_filter_without_a_key": _STRICT,
    "version_filter_number": _STRICT,
    "logged_model_filter_params": _STRICT,
    "span_filter_rlike_that_is_none": _STRICT,
    "artifact_deleted_that_is_not_there": _STRICT,
    "artifact_below_a_file": _STRICT,
    "artifact_paths_that_climb": _BACKSLASH,
    "run_artifact_paths_that_climb": _BACKSLASH,
    "artifact_in_place_of_a_folder": _FAILS,
    # more, or less strict
    "run_without_a_start_time": "A run has started: now, when the client does not say when",
    "run_finished_without_an_end_time": "A run that is finished has ended: now, when the client does not say when",
    "run_finished_and_running_again": "A run that runs has no end",
    "run_without_an_experiment_goes_to_the_default": _LENIENT,
    "experiment_search_without_a_limit": _LENIENT,
    "logged_model_search_of_experiments_as_text": _LENIENT,
    "run_search_with_arguments_of_other_types": _LENIENT,
    "run_filter_blank": _LENIENT,
    "model_filter_blank": _LENIENT,
    "experiment_filter_prefixed_in_the_plural": _MORE,
    "model_filter_name_prefixed_in_the_plural": _MORE,
    "experiment_filter_in": _MORE,
    "model_filter_in": _MORE,
    "version_filter_in": _MORE,
    "version_filter_number_more": _MORE,
    "run_filter_param_compared": _MORE,
    "run_filter_attribute_in_other_kinds": _MORE,
    "run_filter_not": _MORE,
    "span_filter_attributes_equal": _MORE,
    "span_filter_attributes_unequal": "Spans that have it with another value; at MLflow all spans are unlike",
    "logged_model_filter_status": _MORE,
    "logged_model_order_by_params_and_tags": _MORE,
    "logged_model_filter_by_metrics_that_changed": _NEWEST,
    "logged_model_search_of_a_dataset_in_any_version": "A dataset without a digest is any version of it; "
    "MLflow's server then looks for measurements on datasets that have no digest, and there are none",
    "logged_model_search_limits_below_one": _PAGES,
    "model_search_limits_below_one": _PAGES,
    "alias_set_and_moved": _SHAPE,
    "version_of_a_logged_model": _SHAPE,
    "version_of_a_logged_model_by_its_files": _SHAPE,
    "metric_history_of_several_runs_thinned": "Both thin evenly, but not to the very same steps",
}
