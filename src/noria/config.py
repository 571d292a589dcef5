"""noria.toml: typed, frozen, read once; an unknown key is an error that names the nearest valid one."""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from noria.errors import InvalidConfig
from noria.ladder import checked_ladder
from noria.policy_file import PATTERN, read_policy_file
from noria.project_files import CONFIG_FILE

_PREFIX = "NORIA_"


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ProjectSettings(_Section):
    """Who this is and what makes its runs repeatable."""

    name: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*$", description="Name of the project; its experiment is named so.")
    seed: int = Field(0, description="Seed of every random choice: tuning, models, assignment.")


class StoreSettings(_Section):
    """Where state lives; relative paths start at the project's folder."""

    database: str = Field(
        "sqlite:///.noria/noria.db", description="SQLAlchemy URL of the database; empty: none, for a gateway alone."
    )
    artifacts: str = Field("", description="URL of the artifacts: s3://, gs://, az://; empty: in `folder`.")
    folder: Path = Field(Path(".noria"), description="Folder of artifacts, online features, logs and routes.")


class FeatureLimits(_Section):
    """What `noria features health` holds the views of a pattern to."""

    max_age_hours: float = Field(0, ge=0, description="Hours that a view's newest row may be old; 0: any number.")
    max_null_rate: float = Field(1, ge=0, le=1, description="Share of nulls that each feature may have.")


class FeatureSettings(_Section):
    """Where features are looked up, and what joins them for training."""

    online: str = Field(
        "",
        pattern="^$|^(sqlite|lmdb)://.*[^/]|^(rediss?|postgres(ql)?)://.",
        description="URL of the online store: sqlite:///PATH, lmdb:///PATH, redis://HOST:PORT/0, postgresql://USER@HOST/"
        "NAME; empty: SQLite in `store.folder`.",
    )
    limits: dict[str, FeatureLimits] = Field({}, description="Name pattern of views → limits; the first one counts.")
    on_changed_definition: Literal["warn", "refuse"] = Field(
        "warn",
        description="What a gateway does with rows of another definition than the model's: `warn` in log, metrics and "
        "`/health`, or `refuse` with 503.",
    )
    engine: Literal["here", "ray"] = Field(
        "here",
        description="What joins features to the rows of training: `here` this process, `ray` tasks on the cluster that "
        "RAY_ADDRESS names, or on this machine.",
    )


class ModelSettings(_Section):
    """What is trained, on how much history, with how much search."""

    name: str = Field(description="Name of the registered model.")
    task: Literal["classification", "regression"] = Field(description="Kind of target.")
    primary_metric: str = Field("", description="Metric that tuning optimises: auc or mae when empty.")
    train_since: str = Field("", description="First day (YYYY-MM-DD, UTC) of the first training; empty: all rows.")
    train_until: str = Field("", description="Day on which the first training looks back; empty: after the last row.")
    retrain_days: int = Field(60, ge=1, description="Days of history that a retraining uses.")
    validation_fraction: float = Field(0.25, gt=0, lt=1, description="Share of the newest rows kept for evaluation.")
    trials: int = Field(6, ge=1, description="Optuna trials; 1 means the defaults of search_space.")


class RegistrySettings(_Section):
    """Where policies come from besides this file."""

    policy_file: str = Field("", description="YAML file with a policy for every model that no policy here names.")


class StageRuleSettings(_Section):
    """What a version needs to enter one stage, or for one move."""

    required_tags: list[str] = Field([], description="Tags the version must carry.")
    required_metrics: list[str] = Field(
        [], description="Conditions such as 'auc >= 0.65', 'auc >= production - 0.01', or a name alone."
    )
    approvals: int = Field(0, ge=0, description="How many people (or a passed canary) must approve.")
    approver_roles: list[Literal["viewer", "contributor", "maintainer", "approver", "admin", "canary"]] = Field(
        [], description="Roles whose approval counts; empty: any."
    )
    reason_required: bool = Field(False, description="Whether the move must say why.")


class PolicySettings(_Section):
    """The rules of the models that match a pattern."""

    stages: dict[Literal["Staging", "Production", "Archived"], StageRuleSettings] = Field(
        {}, description="Stage entered → what it needs."
    )
    moves: dict[str, StageRuleSettings] = Field(
        {}, description="Move, such as 'Staging -> Production' → what it needs, on top of its stage's rule."
    )
    transitions: list[str] = Field([], description="Moves allowed, such as 'Staging -> Production'; empty: all.")
    name_pattern: str = Field("", description="Regular expression a new model's whole name must match.")
    name_max_length: int = Field(0, ge=0, description="Characters a new model's name may have; 0: up to 250.")
    max_versions: int = Field(0, ge=0, description="Versions a model may have; 0: any number.")
    failed_runs: bool = Field(False, description="Whether a version may come from a failed or killed run.")
    external_sources: bool = Field(
        False, description="Whether a version of a run may lie outside of its artifacts where metrics are required."
    )
    own_approval: bool | None = Field(
        None, description="Whether who registered a version may approve it; unset: only while there are no accounts."
    )
    production_versions: int = Field(1, ge=0, description="Versions of a model in Production at once; 0: any number.")
    previews: bool = Field(True, description="Whether versions outside Production may be deployed, under another name.")
    retention_days: int = Field(
        0, ge=0, description="Days after which `noria models cleanup` deletes versions of archive_stages; 0: never."
    )
    archive_stages: list[Literal["None", "Staging", "Archived"]] = Field(
        [], description="Stages whose versions are deleted after retention_days."
    )


class MonitorSettings(_Section):
    """When traffic counts as changed. Windows are UTC days."""

    run_length_days: float = Field(365, gt=1, description="Mean days between false verdicts on an unchanged world.")
    min_rows: int = Field(50, ge=1, description="A day with fewer rows is not judged.")
    label_delay_days: int = Field(1, ge=0, description="Days after which nearly all labels of a day are in.")
    cooldown_days: int = Field(21, ge=0, description="Days after a promotion in which no verdict asks for retraining.")


class RolloutSettings(_Section):
    """How a new version earns traffic: what `noria rollout start` and the wheel's canaries go by."""

    steps: Annotated[list[float], AfterValidator(checked_ladder)] = Field(
        [5, 10, 25, 50, 100], description="Percent of traffic at each step of a canary, the last of which has all."
    )
    guards: list[Literal["errors", "latency", "scores", "quality", "reward"]] = Field(
        ["errors", "latency", "quality"], description="What is compared with the champion; the split always is."
    )
    required: list[Literal["errors", "latency", "scores", "quality", "reward"]] = Field(
        ["errors", "latency"], description="Guards without which no step ends, however little they have to go by."
    )
    alpha: float = Field(0.05, gt=0, lt=1, description="Chance that an equal challenger is ever stopped.")
    max_error_increase: float = Field(0.005, ge=0, le=1, description="Allowed increase of the error rate, absolute.")
    max_latency_factor: float = Field(1.1, ge=1, description="How many times longer answers may take.")
    latency_tolerance_seconds: float = Field(0.0005, ge=0, description="How much longer they may take in any case.")
    max_score_shift: float = Field(0.2, ge=0, le=0.5, description="Allowed distance of P(score > champion's) from 1/2.")
    max_quality_loss: float = Field(0.05, ge=0, description="Allowed loss of AUC, or of mean absolute error, relative.")
    max_reward_loss: float = Field(0.05, ge=0, description="Allowed loss of the mean reward, relative.")
    errors_to_see: float = Field(0.01, gt=0, lt=1, description="Increase of errors that a step must be able to show.")
    latency_to_see: float = Field(1.2, gt=1, description="Latency factor that a step must be able to show.")
    min_rows: int = Field(300, ge=10, description="Labelled (or rewarded) answers of the challenger a step needs.")
    min_minutes: float = Field(10, ge=0, description="Least duration of a step.")
    max_days: float = Field(14, gt=0, description="Days a step may take before the champion stays.")
    approves: bool = Field(True, description="Whether a passed rollout counts as an approval for Production.")
    look_seconds: float = Field(10, gt=0, description="Seconds between two looks at the evidence.")


class EndpointSettings(_Section):
    """Where a process listens."""

    host: str = Field("127.0.0.1", description="Address to bind.")
    port: int = Field(ge=0, le=65535, description="TCP port; 0 takes a free one.")


class ServerEndpointSettings(EndpointSettings):
    """Where the server listens, and under which names browsers may ask it."""

    port: int = Field(5000, ge=0, le=65535, description="TCP port; 0 takes a free one.")
    allowed_hosts: list[str] = Field(
        [], description="Names that requests may be sent to, such as 'models.example.com' or '*.example.com'."
    )


class GatewayLimits(_Section):
    """What a gateway takes on for each version of the models of a pattern."""

    queue_rows: int = Field(20_000, ge=1, description="Rows that may wait; more are refused with 429 and Retry-After.")
    timeout_seconds: float = Field(30, gt=0, description="Time to answer when the client names none.")
    concurrency: int = Field(0, ge=0, description="Calls of the model at once; 0: as many as its runtime says.")


class GatewaySettings(EndpointSettings):
    """Where predictions are answered, and how many at once."""

    port: int = Field(8000, ge=0, le=65535, description="TCP port; 0 takes a free one.")
    unix_socket: str = Field("", description="Path of a Unix socket to listen on in place of host and port.")
    grpc_port: int = Field(0, ge=0, le=65535, description="TCP port for gRPC; 0: none.")
    workers: int = Field(1, ge=1, le=256, description="Processes that share the port.")
    largest_body_mib: float = Field(16, gt=0, le=1024, description="Requests with a larger body are refused with 413.")
    limits: dict[str, GatewayLimits] = Field({}, description="Name pattern of models → limits; the first one counts.")
    cors_origins: list[str] = Field([], description="Web pages that may call the gateway, or '*'; empty: none.")
    tls_certificate: str = Field("", description="PEM file of the certificate chain; empty: no TLS.")
    tls_key: str = Field("", description="PEM file of the certificate's private key.")


class OidcSettings(_Section):
    """An OpenID Connect issuer whose users may sign in to the console."""

    issuer: str = Field(pattern=r"^https?://", description="URL of the issuer.")
    client_id: str = Field(description="This server's name at the issuer.")
    client_secret: str = Field("", description="Its secret: by NORIA_ACCESS__OIDC__CLIENT_SECRET, not in the file.")
    name_claim: str = Field("email", description="Claim that names the user.")
    roles_claim: str = Field("groups", description="Claim that lists the user's groups.")
    roles: dict[str, Literal["viewer", "contributor", "maintainer", "approver", "admin"]] = Field(
        {}, description="Group → role on the whole workspace."
    )
    default_role: Literal["", "viewer", "contributor"] = Field("", description="Role of a user in none of them.")


class AccessSettings(_Section):
    """Who may use the server. Off, it listens on this machine only and takes each client's word for its name."""

    enabled: bool = Field(False, description="Whether every request must come from a known user.")
    session_hours: float = Field(12, gt=0, description="Hours a sign-in to the console lasts.")
    oidc: OidcSettings | None = Field(None, description="Sign-in through an OpenID Connect issuer.")


class AuditSettings(_Section):
    """Where the server anchors the audit chain, so that cutting off its end is found."""

    anchors: str = Field("", description="Folder elsewhere, or s3://, gs://, az:// with locked objects; empty: none.")
    anchor_hours: float = Field(24, gt=0, description="Hours between two anchors.")


class WebhookSettings(_Section):
    """Where the server's webhooks may send."""

    allow_private: bool = Field(False, description="Whether a target may be this machine or in a private network.")


class ServerSettings(_Section):
    """What a server needs to know: it may stand alone, without a project to train."""

    store: StoreSettings = StoreSettings()
    features: FeatureSettings = FeatureSettings()
    registry: RegistrySettings = RegistrySettings()
    policies: dict[str, PolicySettings] = Field({}, description="Name pattern → policy.")
    access: AccessSettings = AccessSettings()
    audit: AuditSettings = AuditSettings()
    webhooks: WebhookSettings = WebhookSettings()
    server: ServerEndpointSettings = ServerEndpointSettings()
    gateway: GatewaySettings = GatewaySettings()
    rollout: RolloutSettings = RolloutSettings()


class Settings(ServerSettings):
    """All of noria.toml."""

    project: ProjectSettings
    model: ModelSettings
    monitor: MonitorSettings = MonitorSettings()


def nearest_project(start: Path) -> Path | None:
    """The nearest folder with a noria.toml: ``start`` or one above it."""
    return next((folder for folder in (start, *start.parents) if (folder / CONFIG_FILE).is_file()), None)


def load_settings(folder: Path, environment: Mapping[str, str] = os.environ) -> Settings:
    """Read ``folder``/noria.toml, then ``NORIA_SECTION__KEY`` overrides.

    Raises InvalidConfig naming every fault: file missing, not TOML, unknown key, wrong value.
    """
    path = folder / CONFIG_FILE
    return _with_policy_file(_validated(Settings, _document(path), environment, path), path)


def load_server_settings(
    folder: Path,
    given: Mapping[str, Mapping[str, object]] | None = None,
    environment: Mapping[str, str] = os.environ,
) -> ServerSettings:
    """Settings of a server: ``folder``/noria.toml when there is one, overrides, and above both what is ``given``.

    A noria.toml with neither [project] nor [model] is that of a server alone. Raises InvalidConfig as load_settings
    does.
    """
    path = folder / CONFIG_FILE
    written = _document(path) if path.is_file() else {}
    kind = Settings if {"project", "model"} & written.keys() else ServerSettings
    found: ServerSettings = _with_policy_file(_validated(kind, written, environment, path), path)
    # without what was left out: some defaults go by what else was said
    document = found.model_dump(include=set(ServerSettings.model_fields), exclude_unset=True)
    for section, values in (given or {}).items():
        document.setdefault(section, {}).update(values)
    return _validated(ServerSettings, document, {}, path)


_S = TypeVar("_S", bound=ServerSettings)


def _document(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8-sig"))  # TOML is UTF-8 in any locale
    except FileNotFoundError:
        raise InvalidConfig(
            f"no {CONFIG_FILE} in {path.parent}", remedy="Change to a project's folder, or make one with `noria init`."
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"{path} is not valid TOML: {error}", remedy="Mend the line it names.") from error


def _validated(kind: type[_S], document: dict[str, Any], environment: Mapping[str, str], path: Path) -> _S:
    variables = {}
    for variable, keys, value in _overrides(environment):
        _set(document, keys, value)
        variables[tuple(keys)] = variable
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        at_fault = [_variable_of(dict(item), variables) or str(path) for item in error.errors()]
        raise InvalidConfig(
            f"{', '.join(dict.fromkeys(at_fault))} cannot be used",
            details=[_finding(item["loc"], item["type"], item["msg"]) for item in error.errors()],
            remedy="Mend each of these; a key that has a default may be left out.",
        ) from error


def _with_policy_file(settings: _S, path: Path) -> _S:
    """``settings`` with the policy of its policy file last, so that every other pattern comes before it."""
    name = settings.registry.policy_file
    if not name:
        return settings
    file = path.parent / name
    if PATTERN in settings.policies:
        raise InvalidConfig(
            f"{path} has a policy for {PATTERN!r}, and so has its policy file {file}",
            remedy="Keep one: give the one in noria.toml a more specific pattern, or remove registry.policy_file.",
        )
    kind = type(settings)
    document = settings.model_dump(exclude_unset=True)
    document.setdefault("policies", {})[PATTERN] = read_policy_file(file)
    return _validated(kind, document, {}, file)


def _overrides(environment: Mapping[str, str]) -> Iterator[tuple[str, list[str], object]]:
    for name, text in sorted(environment.items()):
        keys = name.removeprefix(_PREFIX).lower().split("__")
        if name.startswith(_PREFIX) and (len(keys) > 1 or keys[0] in Settings.model_fields):
            yield name, keys, _value(text)


def _variable_of(fault: Mapping[str, Any], variables: Mapping[tuple[str, ...], str]) -> str:
    """The variable that gave what is at fault, of several the one that says most; empty for the file."""
    place, is_unknown = tuple(map(str, fault["loc"])), fault["type"] == "extra_forbidden"
    fitting = [at for at in variables if at == place[: len(at)] or (is_unknown and at[: len(place)] == place)]
    return variables[max(fitting, key=len)] if fitting else ""


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _set(document: dict[str, Any], keys: list[str], value: object) -> None:
    for key in keys[:-1]:
        document = document.setdefault(key, {}) if isinstance(document.get(key, {}), dict) else {}
    document[keys[-1]] = value


_RENAMED = {"canary": ["rollout"]}
"""Keys that an older Noria had, by what has taken their place."""


def _finding(location: tuple[int | str, ...], kind: str, message: str) -> str:
    where = ".".join(str(part) for part in location)
    known, key = _fields_at(location[:-1]), str(location[-1])
    if kind != "extra_forbidden":
        meaning = known[key].description if key in known else None
        return f"{where}: {message}" + (f" ({meaning.rstrip('.')})" if meaning else "")
    near = _RENAMED.get(where, difflib.get_close_matches(key, known, n=1, cutoff=0.4))
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}" if known else ""
    return f"{where}: unknown key" + (f"; {hint}" if hint else "")


def _fields_at(location: tuple[int | str, ...]) -> Mapping[str, FieldInfo]:
    """The keys a section may have; below a table of named sections, the name itself may be anything."""
    section: type[BaseModel] = Settings
    named: type[BaseModel] | None = None
    for part in location:
        if named is not None:
            section, named = named, None
            continue
        annotation = getattr(section.model_fields.get(str(part)), "annotation", None)
        is_table = get_origin(annotation) is dict
        kind: object = get_args(annotation)[-1] if is_table else annotation
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            return {}
        section, named = (section, kind) if is_table else (kind, None)
    return section.model_fields
