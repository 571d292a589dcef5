"""`noria predict`: predictions for rows, for tables and for streams of messages."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from noria.clock import SystemClock
from noria.errors import InvalidInput
from noria.surface.cli.context import (
    STORE_VARIABLE,
    JsonOption,
    ProjectOption,
    actor,
    bars,
    clear_errors,
    find_project,
    open_governed,
    out,
    show,
)

if TYPE_CHECKING:
    from noria.serving.batch import Progress, Summary
    from noria.serving.batch.job_file import JobSpec

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Predictions for rows, tables and streams.")

ModelOption = Annotated[str, typer.Option(help="models:/NAME/3, models:/NAME/Production, models:/NAME@alias.")]
DeploymentOption = Annotated[str, typer.Option(help="Name of a deployment, in place of --model.")]


@app.command()
@clear_errors
def batch(
    model: ModelOption = "",
    deployment: DeploymentOption = "",
    input_: Annotated[
        str, typer.Option("--input", help="File, folder, pattern, s3:// URL, or DATABASE_URL#TABLE.")
    ] = "",
    output: Annotated[
        str, typer.Option(help="Folder, file (.parquet, .csv, .jsonl), s3:// URL or DATABASE_URL#TABLE.")
    ] = "",
    job: Annotated[Path | None, typer.Option(help="YAML file of kind BatchJob, in place of all of these.")] = None,
    input_format: Annotated[str, typer.Option(help="parquet, arrow, orc, avro, csv, jsonl; by names by default.")] = "",
    format_: Annotated[str, typer.Option("--format", help="Of the output: parquet (default), csv, jsonl.")] = "",
    query: Annotated[str, typer.Option(help="SELECT whose rows are scored, of the database --input names.")] = "",
    key: Annotated[
        str, typer.Option(help="Unique column that cuts a table into parts; its primary key by default.")
    ] = "",
    columns: Annotated[list[str] | None, typer.Option(help="INPUT=COLUMN, where a column has another name.")] = None,
    text: Annotated[list[str] | None, typer.Option(help="Column of CSV or JSON lines that is a text.")] = None,
    keep: Annotated[str, typer.Option(help="all, none or names; all columns that are no inputs by default.")] = "",
    ids: Annotated[bool, typer.Option("--ids", help="Give every row a prediction_id, the same in every run.")] = False,
    as_of: Annotated[str, typer.Option(help="Column with the time as of which features are joined.")] = "",
    on_error: Annotated[str, typer.Option(help="fail, or skip: refused rows go beside the output.")] = "fail",
    parallelism: Annotated[int | None, typer.Option(min=1, help="Processes at once; 1 by default.")] = None,
    max_retries: Annotated[
        int | None, typer.Option(min=0, help="Further tries of a failed part; 3 by default.")
    ] = None,
    part_rows: Annotated[int, typer.Option(min=1, help="Rows a part, about.")] = 1_000_000,
    batch_rows: Annotated[int, typer.Option(min=1, help="Rows in memory at once, in each process.")] = 65_536,
    engine: Annotated[str, typer.Option(help="processes, or ray.")] = "processes",
    restart: Annotated[bool, typer.Option("--restart", help="Remove what an earlier job wrote there.")] = False,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score a table in parts; what was stopped goes on where it was, and every row is there once."""
    from noria.lifecycle.batch import model_or_deployment, predict_batch
    from noria.serving.batch import Inputs, Options, Wishes

    settings, workspace = open_governed(project)
    if job is not None:
        spec = _job(job, model, deployment, input_, output)
        input_, output = spec.inputs.source, spec.outputs.destination
        input_format, format_ = input_format or spec.inputs.format, format_ or spec.outputs.format
        parallelism = parallelism or spec.parallelism
        max_retries = spec.max_retry_count if max_retries is None else max_retries
        named = model_or_deployment(workspace, spec.model.name)
        model, deployment = named.get("model", ""), named.get("deployment", "")
    if not input_ or not output:
        raise InvalidInput("a job needs --input and --output", remedy="Give both, or a file with --job.")
    if on_error not in ("fail", "skip"):
        raise InvalidInput(f"--on-error {on_error!r} is not known", remedy="Use fail or skip.")
    options = Options(
        Inputs(input_, input_format, query, key, tuple(text or ())),
        output,
        Wishes(_renamed(columns or []), keep, as_of, ids),
        format_,
        part_rows,
        batch_rows,
        parallelism or 1,
        3 if max_retries is None else max_retries,
        on_error == "skip",
        restart,
        engine,
    )
    with _bar() as (told, say):
        summary = predict_batch(
            _folder(project), settings, workspace, SystemClock(), options,
            model=model, deployment=deployment, actor=actor(), progress=say, told=told,
        )  # fmt: skip
    _tell(summary, as_json=as_json)


@app.command()
@clear_errors
def stream(
    source: Annotated[
        str, typer.Option(help="kafka://HOST:9092#TOPIC, redis://HOST:6379/0#STREAM, nats://HOST#SUBJECT.")
    ],
    sink: Annotated[str, typer.Option(help="Where answers go, written like --source.")],
    dead_letter: Annotated[
        str, typer.Option(help="Where messages without an answer go; by default into the log.")
    ] = "",
    deployment: DeploymentOption = "",
    model: ModelOption = "",
    group: Annotated[str, typer.Option(help="Consumer group; noria- and the deployment's name by default.")] = "",
    batch_: Annotated[int, typer.Option("--batch", min=1, help="Messages in flight at once.")] = 256,
    metrics_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port for Prometheus; 0 takes a free one.")
    ] = None,
    project: ProjectOption = None,
    announce: Annotated[bool, typer.Option("--announce", hidden=True, help="Say as JSON when ready.")] = False,
) -> None:
    """Answer the messages of a stream, at least once and in order, until SIGTERM; rollouts and the log apply."""
    from noria.surface.cli.stream import StreamJob, pump_stream

    if bool(model) == bool(deployment):
        raise InvalidInput("either a model or a deployment answers", remedy="Give --model or --deployment.")
    settings, workspace = open_governed(project)
    job = StreamJob(source, sink, dead_letter, group, batch_, deployment, model, metrics_port, announce)
    pump_stream(job, settings, workspace)


@app.command()
@clear_errors
def rows(
    row: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ROW...]", help="Features as JSON, or a whole body; by default JSON lines on stdin."),
    ] = None,
    url: Annotated[str, typer.Option(help="The gateway: http://, https:// or unix:///PATH.")] = "http://127.0.0.1:8000",
    deployment: Annotated[str, typer.Option(help="Name of the deployment, where several are served.")] = "",
    key: Annotated[str, typer.Option(help="API key, where the deployment wants one.", envvar="NORIA_API_KEY")] = "",
    entity: Annotated[list[str] | None, typer.Option(help="KEY=VALUE of what is looked up, for every row.")] = None,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds to wait for the answer.")] = 10.0,
    as_json: JsonOption = False,
) -> None:
    """Ask a running gateway about a few rows."""
    from noria.client import PredictionClient

    sent = row or [line for line in sys.stdin if line.strip()]
    entities = _entities(entity or [])
    asked = [_asked(number, text, entities) for number, text in enumerate(sent, start=1)]
    if not asked:
        raise InvalidInput("there is no row", remedy="""Write one: noria predict rows '{"hour": 12}'.""")
    with PredictionClient(url, deployment=deployment, key=key, timeout_seconds=timeout) as client:
        answers = client.predict_many(asked) if len(asked) > 1 else [client.predict(**asked[0])]
    shown = ("prediction", "probability", "confidence", "model", "model_version", "variant", "prediction_id")
    found = [{name: getattr(answer, name) for name in shown} for answer in answers]
    used = [name for name in shown if any(one[name] is not None for one in found)]
    show([{name: one[name] for name in used} for one in found], as_json=as_json, title="Predictions")


_WHOLE = frozenset(("features", "entities", "prediction_id", "unit_id", "event_time"))


def _asked(number: int, text: str, entities: Mapping[str, str]) -> dict[str, Any]:
    """What the client is called with: a text holds the features alone, or the whole row."""
    try:
        row = json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"row {number} is no JSON: {error}", remedy="Write an object or a list.") from None
    if not isinstance(row, dict | list):
        raise InvalidInput(f"row {number} is neither an object nor a list", remedy="""Write {"hour": 12}.""")
    if not (isinstance(row, dict) and "features" in row and _WHOLE.issuperset(row)):
        row = {"features": row}
    return row | {"entities": {**entities, **row.get("entities", {})}}


def _entities(pairs: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in map(_pair, pairs):
        if name in found:
            raise InvalidInput(
                f"--entity {name} is given twice", remedy="Give it once; other rows can have entities of their own."
            )
        found[name] = value
    return found


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise InvalidInput(f"--entity {text!r} is no pair", remedy="Write --entity KEY=VALUE.")
    return name, value


def _job(path: Path, *others: str) -> JobSpec:
    from noria.serving.batch.job_file import read_job_file

    if any(others):
        raise InvalidInput(
            "--job stands beside --model, --deployment, --input or --output",
            remedy="The file names them: give it alone, with other options where they are to differ.",
        )
    return read_job_file(path)


def _folder(project: Path | None) -> Path:
    """Where the project's definitions of features are; here when there is only a database."""
    return Path.cwd() if project is None and os.environ.get(STORE_VARIABLE) else find_project(project)


def _renamed(columns: Sequence[str]) -> dict[str, str]:
    pairs = [pair.partition("=") for one in columns for pair in one.split(",")]
    if bad := [name for name, equals, column in pairs if not (name and equals and column)]:
        raise InvalidInput(f"--columns {bad[0]!r} is no pair", remedy="Write --columns INPUT=COLUMN.")
    found: dict[str, str] = {}
    for name, _, column in pairs:
        if found.setdefault(name.strip(), column.strip()) != column.strip():
            raise InvalidInput(f"--columns gives input {name.strip()} two columns", remedy="Give each one.")
    return found


@contextmanager
def _bar() -> Iterator[tuple[Callable[[Progress], None], Callable[[str], None]]]:
    """A progress bar on stderr, when that is a terminal; what a step says stands before it."""
    from rich import progress as rich

    text = rich.TextColumn("{task.fields[rows]:,} rows  {task.fields[speed]:,.0f} rows/s  {task.fields[parts]}")
    shown = (rich.TextColumn("{task.description}"), rich.BarColumn(), text)
    times = (rich.TimeElapsedColumn(), rich.TimeRemainingColumn())
    with bars(*shown, *times) as bar:
        task = bar.add_task("planning", total=None, rows=0, speed=0.0, parts="")

        def told(now: Progress) -> None:
            total, completed = (now.parts, now.done) if now.total is None else (now.total, now.rows)
            speed = now.rows / now.seconds if now.seconds else 0.0
            parts = f"{now.done}/{now.parts} parts" + (f", {now.retries} retries" if now.retries else "")
            bar.update(
                task, description="scoring", total=total, completed=completed, rows=now.rows, speed=speed, parts=parts
            )

        yield told, lambda step: bar.update(task, description=step)


def _tell(summary: Summary, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(summary)))
        return
    skipped = f", {summary.skipped:,} skipped" if summary.skipped else ""
    counted = f"{summary.rows:,} row{'s' * (summary.rows != 1)}{skipped} in {summary.parts} part"
    out.print(f"{summary.model}: {counted}{'s' * (summary.parts != 1)}", highlight=False)
    out.print(f"{summary.output}  job {summary.job_id}", highlight=False, markup=False)
    if summary.parts_done_before:
        before = summary.parts_done_before
        out.print(f"{before} {'part was' if before == 1 else 'parts were'} there already", highlight=False)
    if summary.seconds:
        out.print(f"{summary.seconds:,.1f} s, {summary.rows_per_second:,.0f} rows/s", highlight=False)
