"""What a user asks of a batch job, made ready: source, target, columns, manifest, engine."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from noria.errors import InvalidInput, NotFound
from noria.serving.batch.columns import Wishes, match
from noria.serving.batch.csv_rows import CsvRows
from noria.serving.batch.files import WRITTEN, Format, find_files, format_of, is_tab_separated, named_format
from noria.serving.batch.json_rows import JsonRows
from noria.serving.batch.manifest import Manifest, check_unchanged
from noria.serving.batch.overlap import check_apart
from noria.serving.batch.packed import packing_named
from noria.serving.batch.parts import Done, Part, Source
from noria.serving.batch.processes import Engine, Here, Processes
from noria.serving.batch.run import Outcome, Progress, failed_error, work
from noria.serving.batch.scoring import Join, prediction_type, sample_answers
from noria.serving.batch.table_target import TableTarget
from noria.serving.batch.tables import SCHEMES, TableRows, absolute
from noria.serving.batch.targets import FileTarget, Target
from noria.serving.batch.typed_rows import TypedRows
from noria.serving.batch.worker import ModelFiles, Task
from noria.serving.served import Served
from noria.store.foreign import without_password

if TYPE_CHECKING:
    import polars as pl

_SAMPLE_ROWS = 20
_SAMPLES = 50
"""How many samples are looked at for one with a row that the model takes."""
Told = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Inputs:
    """Where rows come from: files, or a database with ``#table`` behind its URL or a ``query``. ``key`` cuts SQL,
    ``texts`` are columns of CSV and JSON lines that are texts whatever they look like."""

    address: str
    format: str = ""
    query: str = ""
    key: str = ""
    texts: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Options:
    """How a job is done."""

    inputs: Inputs
    output: str
    wishes: Wishes
    format: str = ""
    part_rows: int = 1_000_000
    batch_rows: int = 65_536
    parallelism: int = 1
    max_retries: int = 3
    skip: bool = False
    restart: bool = False
    engine: str = "processes"


@dataclass(frozen=True, slots=True)
class Summary:
    """What a job came to. ``rows`` and ``skipped`` are those of the whole output, the rest is of this run."""

    job_id: str
    model: str
    output: str
    rows: int
    skipped: int
    parts: int
    parts_done_before: int
    seconds: float
    rows_per_second: float
    retries: int


def run_job(
    model: ModelFiles, options: Options, online_store: str, join: Join | None = None, told: Told = lambda _: None
) -> Summary:
    """Do a job, or what an earlier run of it left to do.

    Raises InvalidInput, InvalidData, NotFound before anything is written or removed; Conflict when the output is
    another's;
    PartsFailed at the end, when some parts could not be done, and Conflict when files that were read changed meanwhile.
    """
    source, target = source_of(options.inputs), target_of(options.output, options.format)
    check_apart(source, target)
    _check_texts(source, options.inputs.texts)
    served = model.load()
    columns = match(served.bundle, source, options.wishes, _prediction_type(served, source, options))
    listing = list(source.listing())
    # Without rows there is one part without any: the output has its columns all the same.
    parts = source.parts(options.part_rows) or [Part(0, listing[0].name, (None, None), 0)]
    manifest = Manifest(_work(model, options), listing, round(time.time() * 1000), len(parts))
    try:
        manifest, before = target.begin(manifest, columns.written, restart=options.restart)
        task = Task(
            model, source, columns, target, manifest, online_store,
            join if columns.as_of else None, options.batch_rows, options.skip, options.parallelism,
        )  # fmt: skip
        return _run(task, served, parts, before, options, told)
    finally:
        target.close()


def source_of(inputs: Inputs) -> Source:
    """The rows that ``inputs`` name. Raises NotFound, InvalidInput."""
    url, _, table = inputs.address.partition("#")
    if url.partition("://")[0] in SCHEMES:
        if bool(table) == bool(inputs.query):
            fault = "has both a table and a query" if table else "needs a table or a query"
            raise InvalidInput(
                f"the input's database {fault}",
                remedy="Write --input URL#TABLE, or --input URL --query SELECT...",
            )
        url = absolute(url)
        if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).is_file():
            raise NotFound(f"there is no database at {url}", remedy="Check the path; a relative one starts here.")
        return TableRows(url, table, inputs.query, inputs.key)
    if inputs.query or inputs.key:
        raise InvalidInput(
            f"{'--query' if inputs.query else '--key'} is for databases, and {inputs.address} is none",
            remedy="Leave it out, or name a database as --input.",
        )
    files, format_ = find_files(inputs.address, inputs.format)
    if format_ not in ("csv", "jsonl"):
        return TypedRows(files, format_)
    texts = tuple(inputs.texts)
    return CsvRows(files, texts) if format_ == "csv" else JsonRows(files, texts)


def _check_texts(source: Source, texts: Sequence[str]) -> None:
    """Raises InvalidInput where what is to be a text is no column, or has a type of its own."""
    unknown = [name for name in texts if name not in source.schema]
    if unknown:
        raise InvalidInput(
            f"there is no column {', '.join(unknown)} to be a text", remedy=f"There are: {', '.join(source.schema)}."
        )
    if texts and source.typed:
        raise InvalidInput(
            "--text is for CSV and JSON lines, and the columns of this input have types", remedy="Leave it out."
        )


def target_of(output: str, wanted: str) -> Target:
    """Where the output goes: a folder, one file when its name ends in a format, or a table. Raises InvalidInput."""
    url, _, table = output.partition("#")
    if url.partition("://")[0] in SCHEMES:
        if not table:
            raise InvalidInput("the output's database needs a table", remedy="Write --output URL#TABLE.")
        return TableTarget(absolute(url), table)
    ending = format_of(output)
    single = ending is not None and not output.endswith("/")
    named = named_format(wanted or ending or "parquet")
    if named not in WRITTEN:
        raise InvalidInput(f"format {wanted or ending!r} is not written", remedy="Use parquet, csv or jsonl.")
    if single and is_tab_separated(output):
        raise InvalidInput("tables with tabs are read, not written", remedy="Name the --output .csv.")
    if single and packing_named(output):
        raise InvalidInput(
            f"output is not compressed as {packing_named(output)}",
            remedy="Use Parquet, which is compressed, or a folder.",
        )
    if single and "://" in output:
        raise InvalidInput("in an object store the output is a folder", remedy=f"Write --output {output}/.")
    return FileTarget(output, cast(Format, named), single)


def _run(
    task: Task, served: Served, parts: Sequence[Part], before: Sequence[Done], options: Options, told: Told
) -> Summary:
    known = {done.number for done in before}
    left = [part for part in parts if part.number not in known]
    sizes = [part.rows for part in left]
    total = None if None in sizes else sum(size for size in sizes if size is not None)
    progress = Progress(len(left), total)
    told(progress)
    outcome = _done(_engine(task, served, options, len(left)), left, options, progress, told)
    if outcome.failed:
        raise failed_error(outcome, parts, task.source)
    if not isinstance(task.source, TableRows):  # whose rows come and go: each part is read in one transaction
        check_unchanged(task.manifest, source_of(options.inputs).listing())
    task.target.finish(task.manifest)
    every = [*before, *outcome.done]
    variant, seconds = task.model.variant, progress.seconds
    return Summary(
        task.manifest.job_id,
        f"{variant.model}@{variant.version}",
        without_password(options.output),
        sum(done.rows for done in every),
        sum(done.skipped for done in every),
        len(parts),
        len(before),
        round(seconds, 3),
        round(progress.rows / seconds, 1) if seconds else 0.0,
        progress.retries,
    )


def _done(engine: Engine, left: Sequence[Part], options: Options, progress: Progress, told: Told) -> Outcome:
    try:
        return work(engine, left, options.max_retries, progress, told)
    finally:
        engine.close()


def _engine(task: Task, served: Served, options: Options, parts: int) -> Engine:
    """What does the parts; where there is one at a time, this process does it with the model it has loaded."""
    if options.engine == "processes":
        return Processes(task, options.parallelism) if min(parts, options.parallelism) > 1 else Here(task, served)
    if options.engine == "ray":
        from noria.serving.batch.ray_tasks import RayTasks

        return RayTasks(task, options.parallelism)
    raise InvalidInput(f"there is no engine {options.engine!r}", remedy="Use processes or ray.")


def _work(model: ModelFiles, options: Options) -> dict[str, Any]:
    """All that decides about the output, but for what the inputs hold. How fast it is made does not, nor a password."""
    inputs, wishes = options.inputs, options.wishes
    return {
        "model": f"{model.variant.model}@{model.variant.version}",
        "digest": model.variant.digest,
        "input": without_password(inputs.address),
        "query": inputs.query,
        "key": inputs.key,
        "texts": list(inputs.texts),
        "input_format": inputs.format,
        "output": without_password(options.output),
        "format": options.format,
        "columns": dict(wishes.renamed),
        "keep": wishes.keep,
        "as_of": wishes.as_of,
        "ids": wishes.with_ids,
        "part_rows": options.part_rows,
        "on_error": "skip" if options.skip else "fail",
    }


def _prediction_type(served: Served, source: Source, options: Options) -> pl.DataType:
    """The type of the predictions; a model that may answer anything is asked about the first rows it takes."""

    def sample() -> Sequence[Any]:
        import polars as pl

        columns = match(served.bundle, source, options.wishes, pl.String())
        first = source.parts(options.part_rows)[:1]
        if columns.lacking or not first:
            return ()
        batches = source.batches(first[0], columns.read, columns.numbers, _SAMPLE_ROWS)
        answers = (sample_answers(served, columns, batch) for batch in itertools.islice(batches, _SAMPLES))
        return next(filter(None, answers), ())

    found: pl.DataType = prediction_type(served.bundle, sample)
    return found
