"""The core every front shares: route, look up, score in micro-batches, log, answer."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import structlog

from noria.errors import InvalidData, InvalidInput, NoriaError, NotFound, Unavailable
from noria.features.definition_watch import DefinitionWatch, OnChanged
from noria.monitoring.log import PredictionLog
from noria.rollout.routes import Identity, RouteTable, Variant
from noria.serving.bare import bare
from noria.serving.batcher import Batcher, Limits
from noria.serving.completing import complete
from noria.serving.inputs import OnlineInputs, PredictionRequest, parse_instant
from noria.serving.items import Answer, Item, Outcome, Prediction, Result
from noria.serving.live import Arm, Live, find
from noria.serving.metrics import ServingMetrics
from noria.serving.recorder import Recorder
from noria.serving.runtimes import Floats, Tensors
from noria.serving.served import Served, load_served
from noria.serving.shadow import Shadow
from noria.store.blobs import BlobStore

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Block:
    """Complete input rows of one request: ``numbers`` (rows, numeric inputs), ``texts`` (rows, text inputs) or None.

    For a model of tensors: ``tensors``, and numbers of shape (rows, 0).
    """

    numbers: Floats
    texts: Any = None
    prediction_id: str = ""
    event_time: str = ""
    unit_id: str = ""
    params: Mapping[str, Any] | None = None
    tensors: Tensors | None = None


class DataPlane:
    """Answers predictions. Lives in one event loop; what arrives in one tick is scored in one call a variant.

    ``faults`` says of each deployment whose newest route table does not serve why not; ``withdrawn`` are those that are
    to serve no longer, whose names lead to no other deployment of their model. Several workers of one gateway
    leave their counts in the folder ``shared``. ``on_changed_definition``: whether features of another definition than
    a model was trained on are refused.
    """

    def __init__(
        self,
        artifacts: BlobStore,
        online_store: str,
        prediction_log: Path,
        limits: Callable[[str], Limits] = lambda _model: Limits(),
        shared: Path | None = None,
        on_changed_definition: OnChanged = "warn",
    ) -> None:
        self._artifacts = artifacts
        self.metrics = ServingMetrics(shared)
        self._definitions = DefinitionWatch(on_changed_definition, self.metrics.count_changed)
        self._online = OnlineInputs(online_store, self._definitions)
        self._shadow_inputs = OnlineInputs(online_store, self._definitions)
        self._limits = limits
        self._live: dict[str, Live] = {}
        self._pending: list[Item] = []
        self._new_id = _ids().__next__
        self.recorder = Recorder(PredictionLog(prediction_log), self.metrics)
        self.faults: dict[str, NoriaError] = {}
        self.withdrawn: Set[str] = frozenset()

    # what serves

    @property
    def deployments(self) -> Sequence[Live]:
        """All deployments that serve. Raises Unavailable when none does."""
        if self._live:
            return list(self._live.values())
        if self.faults:
            fault = next(iter(self.faults.values()))
            raise Unavailable(f"no model serves: {fault.message}", remedy=fault.remedy)
        raise Unavailable(
            "nothing is deployed yet", remedy="Deploy a version with `noria deploy`, or train one with `noria run`."
        )

    def find(self, name: str | None = None) -> Live:
        """The deployment a client names, by its own name or its model's. Raises NotFound, InvalidInput, Unavailable."""
        if name is None and len(self._live) == 1:
            return next(iter(self._live.values()))
        if name is not None and (live := self._live.get(name)) is not None:
            return live
        if name is not None and (fault := self.faults.get(name)) is not None:
            raise Unavailable(f"deployment {name!r} does not serve: {fault.message}", remedy=fault.remedy)
        if name in self.withdrawn:
            raise NotFound(
                f"deployment {name!r} is withdrawn: it serves nothing",
                remedy="`noria deploy` brings it back; another that serves the same model is asked by its own name.",
            )
        return find(self.deployments, name)

    @property
    def fault(self) -> NoriaError | None:
        """Why something is not as it should be, or None."""
        arms = [arm for live in self._live.values() for arm in live.all_arms]
        specs = [spec for arm in arms for spec in arm.served.bundle.looked_up]
        hangs = [arm.batcher.fault for arm in arms if arm.batcher.fault is not None]
        faults = [*self.faults.values(), *hangs]
        return next(iter(faults), None) or self.recorder.fault or self._definitions.fault(specs)

    async def swap(self, table: RouteTable) -> None:
        """Serve ``table`` once its new versions are loaded, beside the loop; when one fails, the old one goes on."""
        name = table.deployment
        before = self._live.get(name)
        try:
            served = await asyncio.to_thread(_load, self._artifacts, table, before)
        except NoriaError as error:
            self.refuse(name, error, table.revision)
            return
        except Exception as error:
            _log.exception("route_table_failed", deployment=name, revision=table.revision)
            unknown = f"route table {table.revision} cannot be served: {type(error).__name__}: {error}"
            self.refuse(name, Unavailable(unknown, remedy="The gateway's log says where."), table.revision)
            return
        self.faults.pop(name, None)
        self._live[name] = live = self._made(table, served, before)
        self.metrics.set_routes(table)
        _retire(before, live)
        _log.info("route_table_swapped", deployment=name, revision=table.revision, reason=table.reason)

    def withdraw(self, deployment: str) -> None:
        """Serve a deployment no longer."""
        self.faults.pop(deployment, None)
        live = self._live.pop(deployment, None)
        if live is not None:
            _retire(live, None)
            self.metrics.forget_routes(live.table)
            _log.info("deployment_withdrawn", deployment=deployment)

    def refuse(self, deployment: str, error: NoriaError, revision: int | None = None) -> None:
        """Remember why the newest table does not serve; said once for as long as it stays the same."""
        known = self.faults.get(deployment)
        if known is None or known.message != error.message:
            _log.error("route_table_refused", deployment=deployment, revision=revision, reason=error.message)
        self.faults[deployment] = error

    # predictions

    async def predict(self, live: Live, request: PredictionRequest, timeout: float | None = None) -> Prediction:
        """Route, look up and score one row. Raises InvalidInput or NotFound for a row that cannot be scored.

        ``timeout`` (seconds) bounds the wait for the answer; every method raises Overloaded and DeadlineExceeded.
        """
        answer = _future()
        item = self.ask(live, request, timeout, answer)
        return item.prediction(*await answer)

    def ask(self, live: Live, request: PredictionRequest, timeout: float | None, answer: Answer) -> Item:
        """The same, for who is told of the result or the error in a later turn of the loop, and waits for nothing."""
        item = self._row(live, request, timeout, answer)
        item.arm.batcher.admit(1, item.deadline)
        self._enqueue(item)
        return item

    async def predict_many(
        self, live: Live, requests: Sequence[PredictionRequest], timeout: float | None = None
    ) -> Sequence[Prediction]:
        """All rows of one request, each routed by itself. None is scored or logged unless every one is well-formed."""
        return [item.prediction(*result) for item, result in await self.ask_many(live, requests, timeout)]

    async def ask_many(
        self, live: Live, requests: Sequence[PredictionRequest], timeout: float | None = None
    ) -> Sequence[tuple[Item, Result]]:
        """The same, with all that the model said of each row."""
        items: dict[int, Item] = {}
        faults: dict[int, NoriaError] = {}
        answers = [_future() for _ in requests]
        for index, request in enumerate(requests):
            try:
                items[index] = self._row(live, request, timeout, answers[index])
            except (InvalidInput, NotFound) as error:
                faults[index] = bare(error)
        admitted: list[Item] = []
        try:
            for arm, rows in _by_arm(list(items.values())):
                arm.batcher.admit(len(rows), rows[0].deadline)
                admitted += rows
            faults |= await self._look_up_all(items)
            if faults:
                raise _bad_instances(sorted(faults.items()), len(requests))
        except BaseException:
            for item in admitted:
                item.arm.batcher.release(item.count)
            raise
        for item in items.values():
            self._enqueue(item)
        results = await asyncio.gather(*answers)
        return list(zip(items.values(), results, strict=True))

    async def predict_block(
        self, live: Live, block: Block, version: str | None = None, timeout: float | None = None
    ) -> tuple[Item, Outcome]:
        """Score complete input rows: by a named version directly, else all by the one chosen for the request."""
        prediction_id = block.prediction_id or self._new_id()
        arm = live.choose(block.unit_id or prediction_id) if version is None else live.arm(version)
        answer = _future()
        item = self._item(live, arm, prediction_id, block.event_time, len(block.numbers), timeout, answer)
        item.numbers, item.texts, item.params, item.complete = block.numbers, block.texts, block.params, True
        item.unit, item.tensors = block.unit_id, block.tensors
        arm.batcher.admit(item.count, item.deadline)
        if item.count:
            self._enqueue(item)
        else:  # no rows, alone: beside others there would be no telling whose a row is
            arm.batcher.submit([item], item.received)
        outcome, at = await answer
        return item, outcome if len(outcome.predictions) == item.count else outcome.part(at, item.count)

    def close(self) -> None:
        """Close the log and the online store, and unload all versions."""
        for live in self._live.values():
            _retire(live, None)
            for arm in live.all_arms:
                if arm.batcher.rows:  # a call that hangs: nobody waits for its answer any more, but its process would
                    arm.served.runtime.unload()
        self.recorder.close()
        self._online.close()
        self._shadow_inputs.close()

    # from a request to a score

    def _row(self, live: Live, request: PredictionRequest, timeout: float | None, answer: Answer) -> Item:
        prediction_id = request.prediction_id or self._new_id()
        unit = request.unit_id or (str(request.entities.get(live.unit, "")) if live.unit else "")
        arm = live.choose(unit or prediction_id)
        numbers, texts = arm.columns.row(request.features)
        item = self._item(live, arm, prediction_id, request.event_time, 1, timeout, answer)
        item.numbers, item.texts, item.entities, item.unit = numbers, texts, request.entities, unit
        item.complete, item.request = arm.served.is_complete, request
        return item

    def _item(
        self, live: Live, arm: Arm, prediction_id: str, when: str, rows: int, timeout: float | None, answer: Answer
    ) -> Item:
        received = time.monotonic()
        event_time = parse_instant(when) if when else int(time.time() * 1000)
        deadline = received + (arm.batcher.limits.timeout_seconds if timeout is None else timeout)
        return Item(live, arm, rows, prediction_id, event_time, received, deadline, answer, [], None, {}, "", False)

    def _enqueue(self, item: Item) -> None:
        if not self._pending:
            asyncio.get_running_loop().call_soon(self._flush)
        self._pending.append(item)

    def _flush(self) -> None:
        """Look up and compute what the tick's rows lack, and hand them to their versions."""
        waiting, self._pending = self._pending, []
        since = time.monotonic()
        for arm, items in _by_arm(waiting):
            lacking = [item for item in items if not item.complete]
            if lacking and self._waits(arm):
                asyncio.get_running_loop().create_task(self._submit_later(arm, lacking))
                items = [item for item in items if item.complete]
            elif lacking:
                self._refuse(self._complete(arm, lacking))
                items = [item for item in items if item.complete]
            if items:
                self._submit(arm, items, since)

    async def _submit_later(self, arm: Arm, items: Sequence[Item]) -> None:
        """For what takes long, such as a store behind a network: the loop goes on while a thread waits for it."""
        self._refuse(await asyncio.to_thread(self._complete, arm, items))
        if ready := [item for item in items if item.complete]:
            self._submit(arm, ready, time.monotonic())

    def _submit(self, arm: Arm, items: Sequence[Item], since: float) -> None:
        """Score complete items of one arm; a bandit may choose another."""
        live = items[0].live
        if live.by_context is None:
            arm.batcher.submit(items, since)
            return
        for item in items:
            if item.request is not None:  # a block of rows stays with the arm its request was routed to
                item.move_to(live.choose_by_context(item.unit or item.prediction_id, item.numbers))
        for chosen, rows in _by_arm(items):
            chosen.batcher.submit(rows, since)

    async def _look_up_all(self, items: Mapping[int, Item]) -> dict[int, NoriaError]:
        """Complete all ``items``; what went wrong, by index."""
        index = {id(item): place for place, item in items.items()}
        faults: dict[int, NoriaError] = {}
        for arm, rows in _by_arm([item for item in items.values() if not item.complete]):
            wrong = (
                await asyncio.to_thread(self._complete, arm, rows) if self._waits(arm) else self._complete(arm, rows)
            )
            faults |= {index[id(item)]: error for item, error in wrong}
        return faults

    def _waits(self, arm: Arm) -> bool:
        """Whether completing rows of a version would hold the event loop up."""
        bundle, computing = arm.served.bundle, arm.served.computing
        return (self._online.remote and bool(bundle.looked_up)) or (computing is not None and computing.is_slow)

    def _complete(self, arm: Arm, items: Sequence[Item]) -> Sequence[tuple[Item, NoriaError]]:
        """Add to the rows what is looked up and computed; the items for which that failed, with the reason."""
        specs = arm.served.bundle.looked_up
        return complete(arm, items, self._online.vectors(specs, [(item.entities, item.event_time) for item in items]))

    def _refuse(self, faults: Sequence[tuple[Item, NoriaError]]) -> None:
        for item, error in faults:
            item.refuse(error)
            item.arm.batcher.release(item.count)

    def _made(self, table: RouteTable, served: Mapping[Identity, Served], before: Live | None) -> Live:
        arms = [self._arm(variant, served, before) for variant in table.answering]
        known = {} if before is None else {shadow.arm.variant: shadow for shadow in before.shadows}
        shadows = [
            known.get(variant)
            or Shadow(
                self._arm(variant, served, before),
                table.deployment,
                table.salt,
                self._shadow_inputs,
                self.recorder,
                self.metrics,
            )
            for variant in table.shadows
        ]
        return Live(table, arms, shadows)

    def _arm(self, variant: Variant, served: Mapping[Identity, Served], before: Live | None) -> Arm:
        key = variant.identity
        for arm in () if before is None else before.all_arms:
            if arm.served is served[key]:
                return Arm.of(variant, arm.served, arm.batcher)
        limits = self._limits(variant.model)
        record, failed, hung = self.recorder.scored, self.recorder.failed, self.metrics.count_hung
        return Arm.of(variant, served[key], Batcher(served[key], limits, record, failed, hung))


def _future() -> asyncio.Future[Result]:
    return asyncio.get_running_loop().create_future()


def _load(artifacts: BlobStore, table: RouteTable, before: Live | None) -> Mapping[Identity, Served]:
    """The versions of ``table``; one that is loaded already is kept when its files are to be the same."""
    table.choose("probe")  # a malformed table fails here, not at its first request
    served = {} if before is None else {arm.variant.identity: arm.served for arm in before.all_arms}
    return {
        key: served.get(key) or load_served(artifacts, variant)
        for variant in table.variants
        if (key := variant.identity)
    }


def _retire(before: Live | None, after: Live | None) -> None:
    """Unload what no longer serves, once it has answered what it took on."""
    kept = {id(arm.batcher) for arm in ([] if after is None else after.all_arms)}
    for shadow in [] if before is None else before.shadows:
        if after is None or shadow not in after.shadows:
            shadow.stop()
    for batcher in {id(arm.batcher): arm.batcher for arm in ([] if before is None else before.all_arms)}.values():
        if id(batcher) not in kept:
            batcher.close()


def _by_arm(items: Sequence[Item]) -> Sequence[tuple[Arm, Sequence[Item]]]:
    arms = {id(item.arm): item.arm for item in items}
    if len(arms) == 1:
        return [(items[0].arm, items)]
    return [(arm, [item for item in items if item.arm is arm]) for arm in arms.values()]


def _bad_instances(faults: Sequence[tuple[int, NoriaError]], rows: int) -> NoriaError:
    """One error that names every bad instance; what is no fault of an instance, such as a store that is down, alone."""
    bad = [(index, fault) for index, fault in faults if isinstance(fault, InvalidInput | InvalidData | NotFound)]
    if len(bad) < len(faults):
        return next(fault for _, fault in faults if not isinstance(fault, InvalidInput | InvalidData | NotFound))
    details = [f"instances[{index}]: {error.message}" for index, error in bad]
    message = details[0] if len(bad) == 1 else f"{len(bad)} of {rows} instances cannot be scored"
    return InvalidInput(message, remedy=bad[0][1].remedy, details=details)


def _ids() -> Iterator[str]:
    """Ids that no other process gives: 32 hexadecimal characters, of which the last twelve count."""
    prefix = secrets.token_hex(10)
    return (f"{prefix}{number:012x}" for number in count())
