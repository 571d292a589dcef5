"""Tables of labelled events: their contract, their versions, their split by time."""

from noria.data.observations import Observations
from noria.data.validation import validate
from noria.data.versions import DatasetVersion, get_dataset, list_datasets, load_dataset, snapshot

__all__ = [
    "DatasetVersion",
    "Observations",
    "get_dataset",
    "list_datasets",
    "load_dataset",
    "snapshot",
    "validate",
]
