"""Batch prediction as a Job, or a CronJob: `noria predict batch` in the image of a package."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from zoneinfo import available_timezones

from noria.errors import InvalidInput
from noria.serving.kubernetes.plan import ClusterPlan
from noria.serving.kubernetes.pods import Manifest, credentials, metadata, mounts, pod_spec, resources, security
from noria.serving.kubernetes.workload import routes_map, service_account
from noria.serving.package.recipe import IMAGE_PACKAGE

_KEPT_SECONDS = 86_400
_NAMED = re.compile(r"@(yearly|annually|monthly|weekly|daily|midnight|hourly)")
_RANGE = re.compile(r"(?:[*?]|(?P<first>\w+)(?:-(?P<last>\w+))?)(?:/(?P<step>\d+))?")
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_WEEKDAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
_FIELDS: Sequence[Mapping[str, int]] = (
    {str(minute): minute for minute in range(60)},
    {str(hour): hour for hour in range(24)},
    {str(day): day for day in range(1, 32)},
    {name: month for month, word in enumerate(_MONTHS, 1) for name in (word, str(month))},
    {name: day for day, word in enumerate(_WEEKDAYS) for name in (word, str(day))},  # 7 is no Sunday to Kubernetes
)
"""What may stand in the fields of a schedule: minute, hour, day, month and weekday."""


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """What is read and written, how often it is tried, and when, as cron has it; at once where that is empty."""

    input: str
    output: str
    parallelism: int = 3
    max_retries: int = 3
    schedule: str = ""
    time_zone: str = ""

    def check(self) -> None:
        """Raises InvalidInput for what no job can be made of."""
        if not self.input or not self.output:
            raise InvalidInput(
                "a job reads and writes",
                remedy="Give --input and --predictions, such as s3://data/june/*.parquet and s3://data/scored/.",
            )
        if self.parallelism < 1 or self.max_retries < 0:
            raise InvalidInput(
                "a job runs at least once, in one worker", remedy="Raise --parallelism or --max-retries."
            )
        if self.schedule and not _is_schedule(self.schedule):
            raise InvalidInput(
                f"{self.schedule!r} is no schedule",
                remedy="Write the five fields of cron, such as '0 3 * * *'; Sunday is 0.",
            )
        if self.time_zone and not self.schedule:
            raise InvalidInput("a time zone says nothing without a schedule", remedy="Give --schedule as well.")
        known = available_timezones()  # none where the machine has no tables of them
        if self.time_zone and known and self.time_zone not in known:
            raise InvalidInput(f"{self.time_zone!r} is no time zone", remedy="Write one as Europe/Vienna or Etc/UTC.")


def _is_schedule(text: str) -> bool:
    fields = text.split()
    if len(fields) != len(_FIELDS):
        return bool(_NAMED.fullmatch(text))
    pairs = zip(fields, _FIELDS, strict=True)
    return all(_is_range(part, known) for field, known in pairs for part in field.lower().split(","))


def _is_range(part: str, known: Mapping[str, int]) -> bool:
    match = _RANGE.fullmatch(part)
    if match is None or (match["step"] and not int(match["step"])):
        return False
    if match["first"] is None:
        return True
    first, last = (known.get(re.sub(r"^0+(?=\d)", "", match[end] or match["first"])) for end in ("first", "last"))
    return first is not None and last is not None and first <= last


def batch_job(plan: ClusterPlan, options: BatchOptions) -> list[Manifest]:
    """The job, its account, and the routes that say which version answers. Raises InvalidInput."""
    plan.check()
    options.check()
    (tier,) = plan.tiers[:1]
    account = [] if plan.service_account else [service_account(plan)]
    name = f"{plan.name}-batch"
    job = {
        "backoffLimit": options.max_retries,
        "ttlSecondsAfterFinished": _KEPT_SECONDS,
        "template": {
            "metadata": {"labels": {"app.kubernetes.io/name": plan.name, "app.kubernetes.io/component": "batch"}},
            "spec": {**pod_spec(plan, tier, _container(plan, options)), "restartPolicy": "Never"},
        },
    }
    described = metadata(plan, name)
    described["labels"]["app.kubernetes.io/component"] = "batch"
    head = {"apiVersion": "batch/v1", "metadata": described}
    if not options.schedule:
        return [*account, routes_map(plan, tier), {**head, "kind": "Job", "spec": job}]
    zone = {"timeZone": options.time_zone} if options.time_zone else {}
    timed = {"schedule": options.schedule, **zone, "concurrencyPolicy": "Forbid", "jobTemplate": {"spec": job}}
    return [*account, routes_map(plan, tier), {**head, "kind": "CronJob", "spec": timed}]


def _container(plan: ClusterPlan, options: BatchOptions) -> Manifest:
    command = [
        "noria", "predict", "batch", "--project", IMAGE_PACKAGE, "--deployment", plan.routes.deployment,
        "--input", options.input, "--output", options.output,
        "--parallelism", str(options.parallelism), "--max-retries", str(options.max_retries),
    ]  # fmt: skip
    return {
        "name": "batch",
        "image": plan.image,
        "command": command,
        **credentials(plan),
        "resources": resources(plan),
        "securityContext": security(),
        "volumeMounts": mounts(),
    }
