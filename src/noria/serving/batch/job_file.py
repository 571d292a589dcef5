"""A job written down as YAML, in the shape of a Kubernetes resource: kind BatchJob."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import yaml

from noria.errors import InvalidConfig, NotFound
from noria.structs import read_by_threads


class JobModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``name``: a deployment, a model (its Production version), or an address such as models:/NAME/3."""

    name: str


class JobInputs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where rows come from."""

    source: str
    format: str = ""


class JobOutputs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where predictions go."""

    destination: str
    format: str = ""


class JobSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """What is to be done."""

    model: JobModel
    inputs: JobInputs
    outputs: JobOutputs
    parallelism: Annotated[int, msgspec.Meta(ge=1)] | None = None
    max_retry_count: Annotated[int, msgspec.Meta(ge=0)] | None = None


@read_by_threads
class _JobFile(msgspec.Struct, frozen=True, rename="camel"):
    kind: str
    spec: JobSpec
    api_version: str = ""


def read_job_file(path: Path) -> JobSpec:
    """The job of the only BatchJob in a YAML file; what else stands in it is passed over. Raises InvalidConfig."""
    try:
        documents = [one for one in yaml.safe_load_all(path.read_text()) if isinstance(one, dict)]
    except FileNotFoundError:
        raise NotFound(f"there is no job file {path}", remedy="Check the path.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"{path} is no YAML: {error}", remedy="Mend the line it names.") from None
    jobs = [one for one in documents if one.get("kind") == "BatchJob"]
    if len(jobs) != 1:
        raise InvalidConfig(f"{path} has {len(jobs)} documents of kind BatchJob", remedy="Write one job a file.")
    try:
        return msgspec.convert(jobs[0], _JobFile).spec
    except msgspec.ValidationError as error:
        raise InvalidConfig(
            f"{path} cannot be used: {error}",
            remedy="Under spec give model: {name: …}, inputs: {source: …} and outputs: {destination: …}; parallelism "
            "and maxRetryCount may stand there, too.",
        ) from None
