"""`noria deploy k8s`: manifests of a deployment as it serves now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from noria.config import ServerSettings
from noria.errors import InvalidInput
from noria.serving.kubernetes import (
    Autoscaler,
    ClusterPlan,
    Exposure,
    Resources,
    Scaling,
    Split,
    Target,
    manifests,
    write_manifests,
)
from noria.serving.kubernetes.chart import chart_files
from noria.serving.kubernetes.jobs import BatchOptions, batch_job
from noria.serving.kubernetes.kserve import KServeOptions, default_split
from noria.serving.kubernetes.writing import write_files
from noria.surface.cli.context import JsonOption, ProjectOption, clear_errors, open_governed, show, talk
from noria.surface.cli.named_routes import named_routes

_Option = typer.Option


@clear_errors
def k8s(
    output: Annotated[Path, _Option(help="Folder to write the manifests to.")],
    address: Annotated[
        str, typer.Argument(metavar="MODEL", help="models:/NAME/3 and the like; or give --deployment.")
    ] = "",
    deployment: Annotated[str, _Option(help="What serves under this name now.")] = "",
    target: Annotated[Target, _Option(help="What they are written for.")] = Target.DEPLOYMENT,
    namespace: Annotated[str, _Option(help="Namespace of every object.")] = "default",
    image: Annotated[str, _Option(help="Image made of the package; NAME:REVISION by default.")] = "",
    port: Annotated[int, _Option(min=1, max=65535, help="TCP port of the gateway.")] = 8000,
    grpc_port: Annotated[int, _Option(min=0, max=65535, help="TCP port for gRPC; 0: none.")] = 0,
    workers: Annotated[int, _Option(min=1, help="Gateway processes a pod.")] = 1,
    cpu: Annotated[str, _Option(help="Processors that a pod asks for.")] = "500m",
    memory: Annotated[str, _Option(help="Memory that a pod asks for.")] = "512Mi",
    cpu_limit: Annotated[str, _Option(help="Processors that a pod may use; all that are free by default.")] = "",
    memory_limit: Annotated[str, _Option(help="Memory that a pod may use; what it asks for by default.")] = "",
    replicas: Annotated[int, _Option(min=1, help="Pods, where nothing scales them.")] = 2,
    autoscale: Annotated[
        Autoscaler | None, _Option(help="What scales the pods; hpa with --max-replicas, else none.")
    ] = None,
    min_replicas: Annotated[int | None, _Option(help="Pods at least, where something scales them; 2.")] = None,
    max_replicas: Annotated[int | None, _Option(help="Pods at most.")] = None,
    cpu_percent: Annotated[int, _Option(min=1, max=100, help="Use of the processors asked for that is aimed at.")] = 70,
    predictions_per_second: Annotated[int, _Option(min=1, help="What a pod is to carry, for keda.")] = 500,
    prometheus: Annotated[str, _Option(help="URL of the Prometheus that keda asks.")] = "",
    host: Annotated[list[str] | None, _Option(help="Host name it is reached by; may be repeated.")] = None,
    gateway: Annotated[str, _Option(help="Gateway that is there: NAMESPACE/NAME, or NAME of --namespace.")] = "",
    gateway_class: Annotated[str, _Option(help="GatewayClass to make a Gateway of.")] = "",
    tls_secret: Annotated[str, _Option(help="Secret with the certificate of that Gateway.")] = "",
    split: Annotated[Split | None, _Option(help="Who divides the traffic between variants.")] = None,
    allow_from: Annotated[
        list[str] | None, _Option(help="Namespace that may ask; its own by default; may be repeated.")
    ] = None,
    monitoring: Annotated[str, _Option(help="Namespace of the Prometheus that scrapes it.")] = "monitoring",
    egress_port: Annotated[list[int] | None, _Option(help="Port of a further store it asks; may be repeated.")] = None,
    secret: Annotated[str, _Option(help="Secret whose keys become environment variables.")] = "",
    pull_secret: Annotated[str, _Option(help="Secret of the image's registry.")] = "",
    service_account: Annotated[str, _Option(help="Account that is there; one is made by default.")] = "",
    log_claim: Annotated[str, _Option(help="PersistentVolumeClaim for the prediction log.")] = "",
    transformer: Annotated[str, _Option(help="kserve: image of a transformer before the model.")] = "",
    storage: Annotated[bool, _Option("--storage", help="kserve: fetch the model from the artifact store.")] = False,
    job: Annotated[
        bool, _Option("--job", help="A Job that runs `noria predict batch`, in place of a gateway.")
    ] = False,
    input_: Annotated[str, _Option("--input", help="job: what is read.")] = "",
    output_: Annotated[str, _Option("--predictions", help="job: where predictions are written.")] = "",
    parallelism: Annotated[int, _Option(help="job: workers.")] = 3,
    max_retries: Annotated[int, _Option(help="job: how often it is tried again.")] = 3,
    schedule: Annotated[str, _Option(help="job: when, as cron has it; makes it a CronJob.")] = "",
    time_zone: Annotated[str, _Option(help="job: time zone of the schedule, such as Europe/Vienna.")] = "",
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write manifests for a cluster: of the deployment as it serves now, or of a batch job."""
    from noria.lifecycle.packaging import image_of
    from noria.lifecycle.served_routes import asked_ports

    _check_used("--job", job, {"input": input_, "predictions": output_, "schedule": schedule, "time-zone": time_zone})
    _check_used("--target kserve", target is Target.KSERVE, {"transformer": transformer, "storage": storage})
    settings, workspace = open_governed(project)
    with talk.status("looking") as status:
        routes = named_routes(settings, workspace, address, deployment, lambda step: status.update(step))
    divides = Split.GATEWAY if target in (Target.DEPLOYMENT, Target.HELM) else default_split(routes.answering)
    plan = ClusterPlan(
        routes=routes,
        image=image or image_of(routes),
        namespace=namespace,
        port=port,
        grpc_port=grpc_port,
        resources=Resources(cpu, memory, cpu_limit, memory_limit),
        scaling=replace(
            _scaling(autoscale, min_replicas, max_replicas),
            replicas=replicas,
            cpu_percent=cpu_percent,
            predictions_per_second=predictions_per_second,
            prometheus=prometheus,
        ),
        exposure=Exposure(tuple(host or ()), gateway, gateway_class, tls_secret),
        split=split or divides,
        workers=workers,
        secret=secret,
        pull_secret=pull_secret,
        service_account=service_account,
        log_claim=log_claim,
        allow_from=tuple(allow_from or ()),
        monitoring=monitoring,
        egress_ports=(*(egress_port or ()), *asked_ports(workspace, routes)),
    )
    if job:
        files = write_manifests(
            batch_job(plan, BatchOptions(input_, output_, parallelism, max_retries, schedule, time_zone)), output
        )
    elif target is Target.HELM:
        chart = chart_files(plan)
        write_files(chart, output)
        files = list(chart)
    else:
        options = KServeOptions(transformer, _storage(settings) if storage else "")
        files = write_manifests(manifests(plan, target, options), output)
    show([{"file": str(output / name)} for name in files], as_json=as_json, title=f"Manifests of {routes.deployment}")


def _check_used(wanted: str, there: bool, options: Mapping[str, object]) -> None:
    """Raises InvalidInput for an option that says nothing without another one."""
    if idle := [name for name, given in options.items() if given and not there]:
        raise InvalidInput(f"--{idle[0]} says nothing without {wanted}", remedy=f"Add {wanted}, or leave it out.")


def _scaling(autoscale: Autoscaler | None, least: int | None, most: int | None) -> Scaling:
    """What scales, and its bounds. Raises InvalidInput for bounds of nothing."""
    scaler = autoscale or (Autoscaler.NONE if most is None else Autoscaler.HPA)
    if scaler is Autoscaler.NONE and (least, most) != (None, None):
        raise InvalidInput(
            f"nothing scales the pods, so {'--max-replicas' if least is None else '--min-replicas'} bounds nothing",
            remedy="Give --max-replicas without --autoscale none, or the number of pods as --replicas.",
        )
    minimum = 2 if least is None else least
    return Scaling(scaler, minimum=minimum, maximum=max(10, minimum) if most is None else most)


def _storage(settings: ServerSettings) -> str:
    if not settings.store.artifacts:
        raise InvalidInput(
            "the artifacts lie in a folder of this project, where no cluster fetches them",
            remedy="Keep them in an object store (store.artifacts), or leave out --storage: the image has the model.",
        )
    return settings.store.artifacts
