"""Feature views: joined as of each event's time for training, looked up by entity key for serving.

Spelled as Feast's ``feast``: a repo moves by changing that name to ``noria.features`` in its imports.
"""

from typing import TYPE_CHECKING

from noria.lazy import lazily

if TYPE_CHECKING:
    from noria.features.aggregations import Aggregation
    from noria.features.definitions import Entity, FeatureService, FeatureView, Project
    from noria.features.feature_store import FeatureStore
    from noria.features.file_source import DeltaFormat, FileSource, IcebergFormat, ParquetFormat
    from noria.features.join import join_as_of
    from noria.features.on_demand import OnDemandFeatureView, on_demand_feature_view
    from noria.features.online import OnlineFeatures
    from noria.features.online_side import PushMode
    from noria.features.readers import ViewSpec
    from noria.features.sources import Field, FrameSource, PushSource, RequestSource
    from noria.features.sql_source import SqlSource
    from noria.features.types import ValueType

__all__ = [
    "Aggregation",
    "DeltaFormat",
    "Entity",
    "FeatureService",
    "FeatureStore",
    "FeatureView",
    "Field",
    "FileSource",
    "FrameSource",
    "IcebergFormat",
    "OnDemandFeatureView",
    "OnlineFeatures",
    "ParquetFormat",
    "Project",
    "PushMode",
    "PushSource",
    "RequestSource",
    "SqlSource",
    "ValueType",
    "ViewSpec",
    "join_as_of",
    "on_demand_feature_view",
]

_HOMES = {
    **dict.fromkeys(("ConflictPolicy", "FileLoggingDestination", "LabelView", "LoggingConfig"), "feast_names"),
    **dict.fromkeys(("Array", "Bool", "Bytes", "Float32", "Float64", "Int32", "Int64", "Json", "Map"), "types"),
    **dict.fromkeys(("String", "Struct", "UnixTimestamp", "ValueType"), "types"),
    **dict.fromkeys(("Entity", "FeatureService", "FeatureView", "Project"), "definitions"),
    **dict.fromkeys(("DeltaFormat", "FileSource", "IcebergFormat", "ParquetFormat"), "file_source"),
    **dict.fromkeys(("Field", "FrameSource", "PushSource", "RequestSource"), "sources"),
    "FeatureStore": "feature_store",
    "OnlineFeatures": "online",
    "PushMode": "online_side",
    **dict.fromkeys(("OnDemandFeatureView", "on_demand_feature_view"), "on_demand"),
    "Aggregation": "aggregations",
    "SqlSource": "sql_source",
    "ViewSpec": "readers",
    "join_as_of": "join",
}
_OUTDATED = {
    "Feature": "Field(name=..., dtype=Int64), of a type in noria.features.types",
    "PostgreSQLSource": "SqlSource(url='postgresql://...', table=... or query=...)",
    "SnowflakeSource": "SqlSource(url=..., table=... or query=...), with SQLAlchemy's driver installed",
    "BigQuerySource": "SqlSource(url=..., table=... or query=...), with SQLAlchemy's driver installed",
    "RepoConfig": "FeatureStore(repo_path=...), the folder of feature_store.yaml or noria.toml",
}
_load = lazily(__name__, _HOMES)


def __getattr__(name: str) -> object:
    """Load a public name when it is first used, so that the import stays light."""
    if name in _OUTDATED:
        raise ImportError(f"noria.features has no {name}; write {_OUTDATED[name]}")
    return _load(name)


def __dir__() -> list[str]:
    """The public names too, for completion and ``help``."""
    return sorted({*globals(), *__all__})
