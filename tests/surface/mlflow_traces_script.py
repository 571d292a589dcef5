"""What a user of MLflow's tracing and prompts does; run by the tests with MLflow's own interpreter. argv: URL."""

import asyncio
import contextlib
import json
import sys
import warnings

import mlflow
from mlflow.entities import AssessmentSource, SpanType
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

warnings.simplefilter("ignore")
url = sys.argv[1]
mlflow.set_tracking_uri(url)
client = MlflowClient()
found, errors = {}, {}
experiment = mlflow.set_experiment("tracing").experiment_id


@mlflow.trace(span_type=SpanType.TOOL, attributes={"unit": "°C"})
def weather(city):
    return {"city": city, "degrees": 21.5, "rain": [0, 1, None]}


@mlflow.trace(name="answer")
def answer(question):
    return f"{question}: {weather('Lisbon')['degrees']}"


@mlflow.trace
async def slow(n):
    await asyncio.sleep(0)
    return weather(f"city {n}")


@mlflow.trace(name="fails")
def fails(x):
    with mlflow.start_span("inner") as span:
        span.set_inputs({"x": x})
        raise ValueError("no such thing")


def last(trace_id=None):
    mlflow.flush_trace_async_logging()
    return mlflow.get_trace(trace_id or mlflow.get_last_active_trace_id())


def seen(trace):
    spans = sorted(trace.data.spans, key=lambda span: (span.start_time_ns, span.name))
    names = {span.span_id: span.name for span in spans}
    tags = {key: value for key, value in trace.info.tags.items() if not key.startswith("mlflow.")}
    return {
        "state": trace.info.state.value,
        "request": trace.info.request_preview,
        "response": trace.info.response_preview,
        "experiment": trace.info.experiment_id == experiment,
        "duration": trace.info.execution_duration is not None,
        "name": trace.info.tags.get("mlflow.traceName"),
        "location": trace.info.tags.get("mlflow.trace.spansLocation"),
        "tags": tags,
        "metadata": sorted(trace.info.trace_metadata),
        "spans": [
            {
                "name": span.name,
                "parent": names.get(span.parent_id),
                "type": span.span_type,
                "inputs": span.inputs,
                "outputs": span.outputs,
                "status": [span.status.status_code.value, span.status.description],
                "attributes": {
                    key: value
                    for key, value in span.attributes.items()
                    if key not in ("mlflow.traceRequestId", "mlflow.experimentId", "mlflow.spanStartTimeNs")
                },
                "events": [
                    [event.name, sorted(event.attributes), event.attributes.get("exception.message")]
                    for event in span.events
                ],
                "timed": span.end_time_ns >= span.start_time_ns > 0,
            }
            for span in spans
        ],
    }


def attempt(name, function):
    try:
        function()
        errors[name] = "accepted"
    except MlflowException as error:
        errors[name] = error.error_code


answer("how warm")
first = last()
found["nested"] = seen(first)
asyncio.run(slow(3))
found["async"] = seen(last())
with contextlib.suppress(ValueError):
    fails("y" * 2000)
failed = last()
found["failed"] = seen(failed)

with mlflow.start_run() as run, mlflow.start_span("manual", span_type="CHAIN") as span:
    span.set_inputs({"messages": [{"role": "user", "content": "héllo 東京"}]})
    span.set_attributes({"whole": 3, "part": 0.25, "yes": True, "deep": {"a": [1, {"b": None}]}})
    span.add_event(mlflow.entities.SpanEvent("reached", attributes={"step": 2, "where": "here"}))
    mlflow.update_current_trace(
        tags={"team": "growth"}, metadata={"mlflow.trace.session": "s-1", "mlflow.trace.user": "ann"}
    )
    span.set_outputs("done")
manual = last()
found["manual"] = seen(manual)

ids = {first.info.trace_id: "first", failed.info.trace_id: "failed", manual.info.trace_id: "manual"}
client.set_trace_tag(first.info.trace_id, "stage", "one")
client.set_trace_tag(first.info.trace_id, "stage", "two")
client.set_trace_tag(first.info.trace_id, "gone", "x")
client.delete_trace_tag(first.info.trace_id, "gone")
found["tags"] = seen(last(first.info.trace_id))["tags"]
attempt("tag that is not there", lambda: client.delete_trace_tag(first.info.trace_id, "none"))
attempt("no trace", lambda: client.get_trace("tr-none"))


def searched(filter_string=None, order_by=None, **options):
    traces = mlflow.search_traces(
        locations=[experiment], filter_string=filter_string, order_by=order_by, return_type="list", **options
    )
    return [ids.get(trace.info.trace_id, "other") for trace in traces]


def _plain(text):
    for name, changing in (("RUN", run.info.run_id), ("TRACE", trace_id), ("TIME", str(manual.info.request_time))):
        text = text.replace(changing, name)
    return text


judge = AssessmentSource(source_type="LLM_JUDGE", source_id="judge-1")
person = AssessmentSource(source_type="HUMAN", source_id="ann")
trace_id = first.info.trace_id
feedback = mlflow.log_feedback(
    trace_id=trace_id, name="correct", value=True, source=person, rationale="it is", metadata={"k": "v"}
)
mlflow.log_feedback(trace_id=trace_id, name="score", value=0.75, source=judge)
mlflow.log_feedback(trace_id=trace_id, name="labels", value=["a", {"b": 1}], source=judge)
mlflow.log_feedback(trace_id=trace_id, name="broken", error=RuntimeError("judge is down"), source=judge)
expectation = mlflow.log_expectation(trace_id=trace_id, name="expected", value={"degrees": 21.5}, source=person)
mlflow.log_expectation(trace_id=failed.info.trace_id, name="word", value="yes", source=person)


def said(trace_id):
    listed = [
        [
            item.name,
            type(item).__name__,
            item.value,
            item.source.source_type,
            item.source.source_id,
            item.rationale,
            item.metadata,
            item.valid,
            item.error.error_message if getattr(item, "error", None) else None,
        ]
        for item in mlflow.get_trace(trace_id).info.assessments
    ]
    return sorted(listed, key=json.dumps)


found["assessments"] = said(trace_id)
changed = mlflow.update_assessment(
    trace_id, feedback.assessment_id, mlflow.entities.Feedback(name="correct", value=False, rationale="it is not")
)
found["updated"] = [changed.value, changed.rationale, changed.metadata]
again = mlflow.override_feedback(
    trace_id=trace_id, assessment_id=feedback.assessment_id, value="maybe", source=person, rationale="who knows"
)
found["overridden"] = said(trace_id)
mlflow.delete_assessment(trace_id, again.assessment_id)
mlflow.delete_assessment(trace_id, expectation.assessment_id)
found["restored"] = said(trace_id)
found["got"] = mlflow.get_assessment(trace_id, feedback.assessment_id).value
attempt("no assessment", lambda: mlflow.get_assessment(trace_id, "a-none"))
attempt("feedback on no trace", lambda: mlflow.log_feedback(trace_id="tr-none", name="x", value=1, source=person))

found["searches"] = {
    _plain(text): searched(text)
    for text in (
        "status = 'ERROR'",
        "trace.status = 'OK' AND name = 'answer'",
        "attributes.name LIKE 'ans%'",
        "name ILIKE 'ANS%'",
        "tags.stage = 'two'",
        "tags.`stage` != 'two'",
        "tags.team IS NOT NULL",
        "tags.team IS NULL",
        "metadata.`mlflow.trace.session` = 's-1'",
        "request_metadata.`mlflow.trace.user` = 'ann'",
        f"run_id = '{run.info.run_id}'",
        f"request_id = '{trace_id}'",
        "timestamp_ms > 1600000000000",
        "timestamp < 1600000000000",
        "execution_time_ms >= 0 AND status != 'OK'",
        f"attributes.end_time_ms >= {manual.info.request_time}",
        "span.name = 'weather'",
        "span.type = 'TOOL' AND span.name = 'answer'",
        "span.status = 'ERROR'",
        "trace.text LIKE '%Lisbon%'",
        "span.content ILIKE '%LISBON%'",
        "feedback.correct = 'false'",
        "feedback.score > 0.5",
        "feedback.score IS NULL",
        "expectation.word = 'yes'",
    )
}
found["orders"] = {
    text: searched(None, [text]) for text in ("timestamp_ms ASC", "timestamp DESC", "name ASC", "tags.stage DESC")
}
found["ran in"] = len(searched(run_id=run.info.run_id))
found["spans found"] = [len(t.data.spans) for t in mlflow.search_traces(locations=[experiment], return_type="list")]
found["columns"] = sorted(mlflow.search_traces(locations=[experiment]).columns)
token, pages = None, []
while token or not pages:
    page = client.search_traces(locations=[experiment], max_results=3, page_token=token)
    pages.append([ids.get(trace.info.trace_id, "other") for trace in page])
    token = page.token
found["pages"] = [page for page in pages if page]
attempt("bad filter", lambda: searched("nonsense ="))
attempt("bad key", lambda: searched("colour = 'red'"))
attempt("bad order", lambda: searched(None, ["colour"]))
attempt("metrics of traces", lambda: searched("metrics.auc > 1"))

with mlflow.start_run() as other:
    pass
client.link_traces_to_run([trace_id], other.info.run_id)
client.link_traces_to_run([trace_id], other.info.run_id)
found["linked"] = searched(f"run_id = '{other.info.run_id}'")

# prompts

mlflow.genai.register_prompt("greeting", "Hello {{name}}", commit_message="first", tags={"lang": "en"})
mlflow.genai.register_prompt("greeting", "Hi {{name}} 東京", commit_message="second")
mlflow.genai.register_prompt("chat", [{"role": "user", "content": "Ask {{what}}"}])
client.create_registered_model("plain model")


def prompt(it):
    return [it.name, it.version, it.template, it.commit_message, sorted(it.tags.items()), sorted(it.aliases)]


mlflow.genai.set_prompt_alias("greeting", "live", 1)
found["prompts"] = [
    prompt(mlflow.genai.load_prompt(*arguments))
    for arguments in (
        ("greeting", 1),
        ("greeting",),
        ("prompts:/greeting/2",),
        ("prompts:/greeting@live",),
        ("prompts:/greeting@latest",),
        ("chat", 1),
    )
]
found["filled"] = mlflow.genai.load_prompt("prompts:/greeting@live").format(name="Ann")
mlflow.genai.set_prompt_tag("greeting", "owner", "ann")
mlflow.genai.set_prompt_version_tag("greeting", 1, "good", "yes")
found["prompt tags"] = [
    mlflow.genai.get_prompt_tags("greeting").get("owner"),
    mlflow.genai.load_prompt("greeting", 1).tags.get("good"),
]
found["search"] = [
    sorted(it.name for it in mlflow.genai.search_prompts(text))
    for text in (None, "name = 'greeting'", "name LIKE 'c%'", "tags.owner = 'ann'")
]
found["models"] = [
    sorted(it.name for it in client.search_registered_models()),
    sorted(it.name for it in client.search_registered_models("name = 'greeting'")),
    sorted(it.name for it in client.search_registered_models("tags.`mlflow.prompt.is_prompt` = 'true'")),
    sorted(it.name for it in client.search_registered_models("tags.`mlflow.prompt.is_prompt` != 'true'")),
    sorted(f"{it.name} {it.version}" for it in client.search_model_versions("name = 'greeting'")),
    sorted(it.name for it in client.search_model_versions()),
    sorted(
        f"{it.name} {it.version}"
        for it in client.search_model_versions("tags.`mlflow.prompt.is_prompt` = 'true' AND name = 'greeting'")
    ),
]
attempt("prompt under a model's name", lambda: mlflow.genai.register_prompt("plain model", "x"))
attempt("model under a prompt's name", lambda: client.create_registered_model("greeting"))
attempt("no prompt", lambda: mlflow.genai.load_prompt("nothing", 1))
attempt("no version", lambda: mlflow.genai.load_prompt("greeting", 9))
attempt("no alias", lambda: mlflow.genai.load_prompt("prompts:/greeting@none"))


@mlflow.trace(name="prompted")
def prompted():
    return mlflow.genai.load_prompt("prompts:/greeting/1").format(name="Bob")


prompted()
ids[last().info.trace_id] = "prompted"
found["by prompt"] = searched("prompt = 'greeting/1'")
mlflow.genai.delete_prompt_alias("greeting", "live")
attempt("alias gone", lambda: mlflow.genai.load_prompt("prompts:/greeting@live"))
client.delete_prompt_version("greeting", "1")
attempt("version gone", lambda: mlflow.genai.load_prompt("greeting", 1))
client.delete_prompt_version("greeting", "2")
client.delete_prompt("greeting")
found["left"] = sorted(it.name for it in mlflow.genai.search_prompts())

found["deleted"] = [
    client.delete_traces(experiment, trace_ids=[trace_id, "tr-none"]),
    client.delete_traces(experiment, max_timestamp_millis=failed.info.request_time, max_traces=1),
    client.delete_traces(experiment, max_timestamp_millis=4_000_000_000_000),
    client.delete_traces(experiment, max_timestamp_millis=4_000_000_000_000),
]
attempt("deleted", lambda: client.get_trace(trace_id))
attempt("deleted by nothing", lambda: client.delete_traces(experiment))
found["errors"] = errors
print(json.dumps(found, ensure_ascii=False))
