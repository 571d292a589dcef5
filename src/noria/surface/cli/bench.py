"""`noria bench serve`: what a gateway takes, and how long its answers take."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from noria.errors import InvalidInput
from noria.surface.cli.context import JsonOption, bars, clear_errors, out

if TYPE_CHECKING:
    from collections.abc import Callable

    from noria.client.load import Load, Measured

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Measure servers under load.")

_PERCENTS = (50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 100.0)
_GENERATED = 64


@app.callback()
def bench() -> None:
    """Measure servers under load."""


@app.command()
@clear_errors
def serve(
    url: Annotated[str, typer.Argument(help="http://HOST:PORT, https://, or unix:///PATH of a socket.", metavar="URL")],
    deployment: Annotated[str, typer.Option(help="Name of the deployment, where several are served.")] = "",
    key: Annotated[str, typer.Option(help="API key, where the deployment wants one.", envvar="NORIA_API_KEY")] = "",
    connections: Annotated[int, typer.Option(min=1, help="Connections open at once.")] = 64,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long is measured.")] = 10.0,
    warmup: Annotated[float, typer.Option(min=0, help="Seconds before that.")] = 1.0,
    rate: Annotated[float, typer.Option(min=0, help="Requests due a second; as many as are answered by default.")] = 0,
    rows: Annotated[int, typer.Option(min=1, help="Rows a request.")] = 1,
    body: Annotated[
        Path | None, typer.Option(help="JSON-lines file of bodies, sent in turn; made up by default.")
    ] = None,
    path: Annotated[str, typer.Option(help="Path they are sent to; by default the deployment's /predict.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Put load on a gateway and print throughput and percentiles; exit 1 when a request failed."""
    from noria.client import PredictionClient
    from noria.client.address import Address
    from noria.client.load import Load, measure
    from noria.client.predictions import key_header

    usual = f"/models/{quote(deployment, safe='')}" * bool(deployment) + "/predict" + "/batch" * (rows > 1)
    target = f"/{path.lstrip('/')}" if path else usual
    if body is not None:
        bodies = _bodies(body)
    else:
        with PredictionClient(url, deployment=deployment, key=key) as client:
            bodies = _made_up(client.info(), rows)
    load = Load(Address.of(url), target, bodies, key_header(key), connections, seconds, warmup, rate)
    with _bar(load) as told:
        measured = measure(load, told)
    _tell(load, measured, rows, as_json=as_json)
    if measured.faults or not len(measured.latencies):
        raise typer.Exit(1)


def _bodies(path: Path) -> list[bytes]:
    if not path.is_file():
        raise InvalidInput(f"{path} is no file", remedy="Name a file with one JSON body a line.")
    lines = [line for line in path.read_bytes().splitlines() if line.strip()]
    for number, line in enumerate(lines, start=1):
        try:
            json.loads(line)
        except ValueError as error:
            raise InvalidInput(f"{path}:{number} is no JSON: {error}", remedy="Write one body a line.") from None
    if not lines:
        raise InvalidInput(f"{path} is empty", remedy="Write one JSON body a line.")
    return lines


def _made_up(info: Mapping[str, Any], rows: int) -> list[bytes]:
    """Bodies of random numbers, for the features the model says it takes."""
    if "models" in info:
        names = ", ".join(one["deployment"] for one in info["models"])
        raise InvalidInput("several deployments are served", remedy=f"Name one with --deployment: {names}.")
    if info["entity_keys"] or info.get("tensors"):
        what = f"entity keys ({', '.join(info['entity_keys'])})" if info["entity_keys"] else "tensors"
        raise InvalidInput(
            f"{info['deployment']} takes {what}, which cannot be made up", remedy="Give real requests with --body FILE."
        )
    kinds = info["kinds"]
    random_row = random.Random(0)

    def row() -> dict[str, object]:
        return {name: _value(kind, random_row) for name, kind in kinds.items()}

    if rows == 1:
        return [json.dumps({"features": row()}).encode() for _ in range(_GENERATED)]
    some = [[list(row().values()) for _ in range(rows)] for _ in range(max(1, _GENERATED // rows))]
    return [json.dumps({"features": one}).encode() for one in some]


def _value(kind: str, chance: random.Random) -> object:
    """A value of a column's kind."""
    if kind in ("string", "datetime"):
        return "a" if kind == "string" else f"2026-01-{chance.randint(1, 28):02}T00:00:00"
    if kind == "boolean":
        return chance.random() < 0.5
    return chance.randint(0, 100) if kind in ("long", "integer") else round(chance.random(), 6)


@contextmanager
def _bar(load: Load) -> Iterator[Callable[[float, int], None]]:
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.fields[answers]}"))
    with bars(*columns) as bar:
        task = bar.add_task("asking", total=load.warmup_seconds + load.seconds, answers="")

        def told(seconds: float, answers: int) -> None:
            bar.update(task, completed=seconds, answers=f"{answers:,} answers")

        yield told


def _tell(load: Load, measured: Measured, rows: int, *, as_json: bool) -> None:
    percentiles = {f"p{percent:g}": measured.percentile(percent) * 1000 for percent in _PERCENTS}
    if as_json:
        found = {
            "url": str(load.address),
            "path": load.path,
            "connections": load.connections,
            "seconds": measured.seconds,
            "requests": len(measured.latencies),
            "requests_per_second": round(measured.per_second, 1),
            "rows_per_second": round(measured.per_second * rows, 1),
            "milliseconds": {name: round(value, 3) if value == value else None for name, value in percentiles.items()},
            "faults": dict(measured.faults),
            "said": dict(measured.said),
        }
        print(json.dumps(found))
        return
    asked = f", {load.rate:g} due a second" if load.rate else ""
    out.print(f"{load.address}{load.path}: {load.connections} connections{asked}, {measured.seconds:g} s")
    out.print(
        f"{measured.per_second:,.1f} requests/s"
        + (f", {measured.per_second * rows:,.0f} rows/s" if rows > 1 else "")
        + f" ({len(measured.latencies):,} answered)",
        highlight=False,
    )
    if len(measured.latencies):
        _draw(list(percentiles.items()))
    for fault, count in sorted(measured.faults.items()):
        said = f": {measured.said[fault]}" if fault in measured.said else ""
        out.print(f"{count:,} x {fault}{said}", style="red", highlight=False, markup=False)


def _draw(percentiles: Sequence[tuple[str, float]]) -> None:
    """The latencies as bars; the last is the slowest answer of all."""
    from rich.table import Table

    longest = percentiles[-1][1]
    table = Table(box=None, padding=(0, 1))
    table.add_column("", justify="right")
    table.add_column("ms", justify="right")
    table.add_column("")
    for name, value in percentiles:
        table.add_row("max" if name == "p100" else name, f"{value:,.2f}", "▆" * max(1, round(value / longest * 40)))
    out.print(table)
