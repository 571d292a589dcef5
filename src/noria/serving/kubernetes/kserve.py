"""KServe: an InferenceService around the gateway, which speaks the Open Inference Protocol that KServe expects.

KServe divides traffic between a service's newest revision and the one before it: during a rollout there are two
manifests of one service, to be applied one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from noria.errors import InvalidInput
from noria.serving.kubernetes.plan import Autoscaler, ClusterPlan, Split, Tier, check_image, whole_shares
from noria.serving.kubernetes.pods import Manifest, container, metadata, pod_spec, resources, security
from noria.serving.kubernetes.workload import routes_map, service_account

_API = "serving.kserve.io/v1beta1"
_RUNTIME_API = "serving.kserve.io/v1alpha1"
_CONTAINER = "kserve-container"
_MODELS = "/mnt/models"
_STORAGE = ("s3://", "gs://")
_OF_RUNTIME = ("containers", "volumes", "imagePullSecrets")
_NOT_OF_KNATIVE = ("automountServiceAccountToken", "terminationGracePeriodSeconds", "securityContext")
"""What Knative, which divides KServe's traffic, refuses: draining and the rights of pods are its own affair."""


@dataclass(frozen=True, slots=True)
class KServeOptions:
    """``transformer`` is the image of a transformer before the model; ``storage`` the address of the artifacts, from
    which KServe then fetches the model instead of taking it from the image."""

    transformer: str = ""
    storage: str = ""


def kserve(plan: ClusterPlan, options: KServeOptions) -> list[Manifest]:
    """Every object of a deployment. Raises InvalidInput for what KServe cannot divide, scale or fetch."""
    tiers = plan.tiers
    if len(tiers) > 2:
        raise InvalidInput(
            f"KServe divides traffic between two revisions, and {plan.routes.deployment!r} has {len(tiers)} variants",
            remedy="Leave the split to the gateway: --split gateway.",
        )
    if plan.scaling.autoscaler is Autoscaler.KEDA:
        raise InvalidInput("KServe scales by itself", remedy="Use --autoscale hpa, or none.")
    if options.transformer:
        check_image(options.transformer)
    if options.storage:
        tiers = [_stored(tier, options.storage) for tier in tiers]
    shares = whole_shares([one.percent for one in plan.routes.answering]) if len(tiers) > 1 else [100]
    found = [] if plan.service_account else [service_account(plan)]
    found += [routes_map(plan, tier) for tier in tiers]
    if options.storage:
        found += [_runtime(plan, tier) for tier in tiers]
    return found + [_service(plan, tier, options, share) for tier, share in zip(tiers, shares, strict=True)]


def _service(plan: ClusterPlan, tier: Tier, options: KServeOptions, share: int) -> Manifest:
    """The service as one revision; one that is not the first says how much of the traffic it gets."""
    described = metadata(plan, plan.name, tier)
    canary = {"canaryTrafficPercent": share} if tier.routes.variants[0].name != plan.routes.variants[0].name else {}
    model = _fetched(plan, tier, options.storage) if options.storage else _contained(plan, tier)
    transformer = {"transformer": _transformer(plan, options.transformer)} if options.transformer else {}
    predictor = {**canary, **_bounds(plan), **model}
    return {"apiVersion": _API, "kind": "InferenceService", "metadata": described,
            "spec": {"predictor": predictor, **transformer}}  # fmt: skip


def _contained(plan: ClusterPlan, tier: Tier) -> Manifest:
    """The gateway with the model in its image."""
    return _pod(plan, tier, container(plan, _CONTAINER, "http1"))


def _fetched(plan: ClusterPlan, tier: Tier, storage: str) -> Manifest:
    """A model that KServe fetches, for the runtime below."""
    source = _source_of(plan, tier).strip("/")
    return {
        "serviceAccountName": plan.account,
        "model": {
            "modelFormat": {"name": "noria"},
            "protocolVersion": "v2",
            "runtime": tier.name,
            "storageUri": f"{storage.rstrip('/')}/{source}",
            "resources": resources(plan),
        },
    }


def _runtime(plan: ClusterPlan, tier: Tier) -> Manifest:
    """The gateway as a runtime: it serves what lies in /mnt/models, by a route that says so."""
    main = container(plan, _CONTAINER, "http1")
    main["env"].append({"name": "NORIA_STORE__ARTIFACTS", "value": _MODELS})
    spec = _pod(plan, tier, main)
    return {
        "apiVersion": _RUNTIME_API,
        "kind": "ServingRuntime",
        "metadata": metadata(plan, tier.name, tier),
        "spec": {
            "supportedModelFormats": [{"name": "noria", "version": "1", "autoSelect": False}],
            "protocolVersions": ["v2"],
            "multiModel": False,
            **{name: value for name, value in spec.items() if name in _OF_RUNTIME},
        },
    }


def _pod(plan: ClusterPlan, tier: Tier, main: Manifest) -> Manifest:
    """A pod as KServe takes it in every one of its modes."""
    lasting = {name: value for name, value in main.items() if name != "lifecycle"}
    lasting["ports"] = main["ports"][:1]  # Knative routes to one
    return {name: value for name, value in pod_spec(plan, tier, lasting).items() if name not in _NOT_OF_KNATIVE}


def _transformer(plan: ClusterPlan, image: str) -> Manifest:
    """A custom transformer, which KServe tells where the predictor is."""
    main = {"name": _CONTAINER, "image": image, "resources": resources(plan), "securityContext": security()}
    return {**_bounds(plan), "containers": [main]}


def _bounds(plan: ClusterPlan) -> Manifest:
    scaling = plan.scaling
    if scaling.autoscaler is Autoscaler.NONE:
        return {"minReplicas": scaling.replicas, "maxReplicas": scaling.replicas}
    target = {"scaleMetric": "cpu", "scaleTarget": scaling.cpu_percent}
    return {"minReplicas": scaling.minimum, "maxReplicas": scaling.maximum, **target}


def _stored(tier: Tier, storage: str) -> Tier:
    """The tier whose route says that its one model is all there is. Raises InvalidInput where it is not."""
    if not storage.startswith(_STORAGE):
        raise InvalidInput(
            f"KServe fetches no model from {storage.partition('://')[0]!r}",
            remedy="Keep the artifacts in s3:// or gs://, or leave out --storage: the image has the model.",
        )
    if len(tier.routes.variants) > 1:
        raise InvalidInput(
            f"{tier.routes.deployment!r} has several variants, and KServe fetches one model",
            remedy="Add --split mesh, or leave out --storage: the image has them all.",
        )
    only = replace(tier.routes.variants[0], source="")
    return replace(tier, routes=replace(tier.routes, variants=(only,)))


def _source_of(plan: ClusterPlan, tier: Tier) -> str:
    name = tier.routes.variants[0].name
    return next(one.source for one in plan.routes.variants if one.name == name)


def default_split(routes_answering: Sequence[object]) -> Split:
    """KServe divides between two; more are divided by the gateway."""
    return Split.MESH if len(routes_answering) == 2 else Split.GATEWAY
