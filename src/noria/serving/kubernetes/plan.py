"""What a cluster is to run: a deployment's routes, on how many pods, with what, reached how."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum

from noria.errors import InvalidInput
from noria.rollout.routes import RouteTable, Variant
from noria.serving.kubernetes.quantities import check_at_most, cpu, memory
from noria.serving.names import dns_label

LONGEST_NAME = 40
"""Leaves room for a variant's name, and for what operators add."""
_LONGEST_VARIANT = 16
_BETWEEN = "--"
"""Between a deployment and its variant: no label that ``dns_label`` gives has two hyphens in a row."""
_LAST_PORT = 65_535
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_URL = re.compile(r"https?://[^\s/]+(/\S*)?")
_GATEWAY = re.compile(r"([a-z0-9-]+/)?[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_OBJECT = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")
"""The name of most objects: a DNS subdomain (RFC 1123)."""
_REPOSITORY = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*"
IMAGE = (
    r"([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]+)?/)?"
    + rf"{_REPOSITORY}(/{_REPOSITORY})*(:[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}})?(@[a-z0-9]+:[0-9a-f]{{32,}})?"
)
"""A reference to an image: registry, repository, tag and digest."""
_HOST = re.compile(r"(\*\.)?([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


class Split(StrEnum):
    """Who divides the traffic between variants."""

    GATEWAY = "gateway"
    MESH = "mesh"


class Autoscaler(StrEnum):
    """What changes the number of pods."""

    NONE = "none"
    HPA = "hpa"
    KEDA = "keda"


@dataclass(frozen=True, slots=True)
class Resources:
    """What a pod asks for and may use at most; no limit of processors where ``cpu_limit`` is empty."""

    cpu: str = "500m"
    memory: str = "512Mi"
    cpu_limit: str = ""
    memory_limit: str = ""

    def check(self) -> None:
        """Raises InvalidInput for what is no quantity, and for a request above its limit."""
        requested, held = cpu(self.cpu), memory(self.memory)
        if self.cpu_limit:
            check_at_most(requested, cpu(self.cpu_limit, "cpu-limit"), "cpu")
        if self.memory_limit:
            check_at_most(held, memory(self.memory_limit, "memory-limit"), "memory")


@dataclass(frozen=True, slots=True)
class Scaling:
    """How many pods: ``replicas``, or between two bounds at the load that one is to carry."""

    autoscaler: Autoscaler = Autoscaler.NONE
    replicas: int = 2
    minimum: int = 2
    maximum: int = 10
    cpu_percent: int = 70
    predictions_per_second: int = 500
    prometheus: str = ""

    def check(self) -> None:
        """Raises InvalidInput for bounds that are none, and for KEDA without a Prometheus to ask."""
        if not 1 <= self.minimum <= self.maximum or self.replicas < 1:
            raise InvalidInput(
                f"{self.minimum} to {self.maximum} are no bounds of a number of pods",
                remedy="Give --min-replicas of 1 or more, and --max-replicas no smaller.",
            )
        if self.autoscaler is Autoscaler.KEDA and not self.prometheus:
            raise InvalidInput(
                "KEDA scales by what Prometheus counts, and no Prometheus is named",
                remedy="Name it: --prometheus http://prometheus.monitoring:9090.",
            )
        if self.prometheus and not _URL.fullmatch(self.prometheus):
            raise InvalidInput(
                f"{self.prometheus!r} is no URL of a Prometheus", remedy="Write http://prometheus.monitoring:9090."
            )


@dataclass(frozen=True, slots=True)
class Exposure:
    """How it is reached from outside: host names at a Gateway, which is there or is made of ``gateway_class``."""

    hosts: Sequence[str] = ()
    gateway: str = ""
    gateway_class: str = ""
    tls_secret: str = ""

    def check(self) -> None:
        """Raises InvalidInput for what is no host, no Gateway, and for hosts without one."""
        for host in self.hosts:
            if not _HOST.fullmatch(host) or len(host) > 253:
                raise InvalidInput(f"{host!r} is no host name", remedy="Write it in lower case, as models.example.com.")
            with suppress(ValueError):
                ipaddress.ip_address(host)
                raise InvalidInput(
                    f"{host} is an IP address, which the Gateway API takes for no host",
                    remedy="Name a host; without --host every one is taken.",
                )
        if self.gateway and not _GATEWAY.fullmatch(self.gateway):
            raise InvalidInput(f"{self.gateway!r} is no Gateway", remedy="Write it as NAMESPACE/NAME, or NAME.")
        if self.gateway and self.gateway_class:
            raise InvalidInput(
                "there are two Gateways", remedy="Name one that is there (--gateway), or a class to make one of."
            )
        if self.tls_secret and not self.gateway_class:
            raise InvalidInput(
                "--tls-secret is for a Gateway that is made",
                remedy="Name its class (--gateway-class), or leave it out.",
            )
        if self.hosts and not (self.gateway or self.gateway_class):
            raise InvalidInput(
                f"nothing listens for {self.hosts[0]}",
                remedy="Name a Gateway (--gateway NAMESPACE/NAME), or a class to make one of (--gateway-class).",
            )


@dataclass(frozen=True, slots=True)
class Tier:
    """Pods that are alike: the routes they serve; ``variant`` is empty where they serve all of a deployment."""

    name: str
    routes: RouteTable
    variant: str = ""

    @property
    def champion(self) -> Variant:
        """The variant that stands first."""
        return self.routes.variants[0]


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """One deployment on one cluster.

    ``secret`` names a Secret whose keys become environment variables. ``allow_from`` are the namespaces that may ask,
    ``monitoring`` is the one that scrapes, ``egress_ports`` are those of stores that are asked. The prediction log goes
    to the claim ``log_claim``, or is lost with its pod. ``renamed`` stands in for its name while a chart is made.
    """

    routes: RouteTable
    image: str
    namespace: str = "default"
    port: int = 8000
    grpc_port: int = 0
    resources: Resources = field(default_factory=Resources)
    scaling: Scaling = field(default_factory=Scaling)
    exposure: Exposure = field(default_factory=Exposure)
    split: Split = Split.GATEWAY
    workers: int = 1
    secret: str = ""
    pull_secret: str = ""
    service_account: str = ""
    log_claim: str = ""
    renamed: str = ""
    allow_from: Sequence[str] = ()
    monitoring: str = "monitoring"
    egress_ports: Sequence[int] = ()

    @property
    def name(self) -> str:
        """The name its objects have."""
        return self.renamed or dns_label(self.routes.deployment, longest=LONGEST_NAME)

    @property
    def account(self) -> str:
        """The service account its pods run under."""
        return self.service_account or self.name

    @property
    def askers(self) -> list[str]:
        """The namespaces that may send requests: those allowed, or its own, and that of its Gateway."""
        namespace, _, _ = self.exposure.gateway.rpartition("/")
        through = [namespace or self.namespace] if self.exposure.gateway or self.exposure.gateway_class else []
        return list(dict.fromkeys([*(self.allow_from or [self.namespace]), *through]))

    def check(self) -> None:
        """Raises InvalidInput for what no cluster would take, or would take for something else."""
        for part in (self.resources, self.scaling, self.exposure):
            part.check()
        self._check_ports()
        for namespace in (self.namespace, self.monitoring, *self.askers):
            if not _LABEL.fullmatch(namespace):
                raise InvalidInput(
                    f"{namespace!r} is no namespace", remedy="Use lower-case letters, digits and -, 63 at most."
                )
        self._check_names()
        check_image(self.image)
        if self.split is Split.MESH and self.routes.contextual:
            raise InvalidInput(
                f"deployment {self.routes.deployment!r} chooses by a request's features, which a mesh does not see",
                remedy="Leave the split to the gateway: --split gateway.",
            )

    def _check_names(self) -> None:
        named = {
            "secret": self.secret, "pull-secret": self.pull_secret, "service-account": self.service_account,
            "log-claim": self.log_claim, "tls-secret": self.exposure.tls_secret,
            "gateway-class": self.exposure.gateway_class,
        }  # fmt: skip
        for option, name in named.items():
            if name and (not _OBJECT.fullmatch(name) or len(name) > 253):
                raise InvalidInput(
                    f"--{option} {name!r} is a name that no cluster takes",
                    remedy="Use lower-case letters, digits, - and ., beginning and ending with a letter or digit.",
                )

    def _check_ports(self) -> None:
        for port in (self.port, *([self.grpc_port] if self.grpc_port else []), *self.egress_ports):
            if not 1 <= port <= _LAST_PORT:
                raise InvalidInput(f"{port} is no TCP port", remedy=f"Give one from 1 to {_LAST_PORT}.")
        if self.port == self.grpc_port:
            raise InvalidInput(
                f"HTTP and gRPC cannot both have port {self.port}", remedy="Give another --port or --grpc-port."
            )

    @property
    def tiers(self) -> list[Tier]:
        """The sets of pods: one, or where the mesh divides the traffic, one a variant. The champion's come first.

        Shadows stay with the champion: it is its requests that they get copies of.
        """
        if self.split is Split.GATEWAY:
            return [Tier(self.name, self.routes)]
        found = []
        for place, variant in enumerate(self.routes.answering):
            shadows = self.routes.shadows if place == 0 else []
            routes = replace(self.routes, variants=(replace(variant, percent=100), *shadows))
            label = dns_label(variant.name, longest=_LONGEST_VARIANT)
            found.append(Tier(f"{self.name}{_BETWEEN}{label}", routes, variant.name))
        return found


def check_image(image: str) -> None:
    """Raises InvalidInput for what is no reference to an image."""
    if not re.fullmatch(IMAGE, image):
        raise InvalidInput(
            f"{image!r} is no image",
            remedy="Write it as registry.example.com/churn:3, in lower case, with one tag at most.",
        )


def whole_shares(percents: Sequence[float]) -> list[int]:
    """Percents as whole numbers that sum to 100; what is rounded off goes to the largest remainders first."""
    shares = [int(percent) for percent in percents]
    order = sorted(range(len(percents)), key=lambda place: percents[place] - shares[place], reverse=True)
    for place in order[: 100 - sum(shares)]:
        shares[place] += 1
    return shares
