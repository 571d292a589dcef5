"""The route files of a gateway: each deployment is taken up by itself, and its own tables in order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import IO

import pytest

from noria.errors import NotFound, Unavailable
from noria.rollout.routes import RouteTable, Variant, publish, unpublish
from noria.serving import DataPlane
from noria.surface.http.route_files import RouteFiles
from serving.gateway_world import LAST_SEEN, World
from serving.slow_runtime import HeldModels


class Routes:
    """A data plane that follows a folder in which the test publishes."""

    def __init__(self, world: World) -> None:
        settings = world.settings
        self._folder = settings.route_folder
        self.plane = DataPlane(settings.artifacts, settings.online_store, settings.prediction_log)
        self.files = RouteFiles(self._folder, self.plane)

    def publish(self, name: str, revision: int, variant: Variant) -> None:
        publish(RouteTable(name, revision, (variant,), "test", LAST_SEEN), self._folder / f"{name}.json")

    def withdraw(self, name: str) -> None:
        unpublish(self._folder / f"{name}.json", is_withdrawn=True)

    @property
    def serving(self) -> dict[str, int]:
        """Revision by deployment."""
        try:
            return {live.table.deployment: live.table.revision for live in self.plane.deployments}
        except Unavailable:
            return {}

    async def until(self, serving: dict[str, int]) -> None:
        """Look again and again, as a gateway does."""
        async with asyncio.timeout(10):
            while self.serving != serving:
                await self.files.check()
                await asyncio.sleep(0.001)

    async def reached(self, held: HeldModels, version: int) -> IO[bytes]:
        """Look again and again until a model waits while it is loaded; what holds it up."""
        waiting = asyncio.ensure_future(held.reached(version, "loads"))
        while not waiting.done():
            await self.files.check()
            await asyncio.sleep(0.001)
        return waiting.result()


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HeldModels:
    return HeldModels(tmp_path, monkeypatch)


def following(world: World, held: HeldModels, steps: Callable[[Routes], Awaitable[None]]) -> None:
    """Take the steps with a plane that has looked once and found nothing."""

    async def run() -> None:
        routes = Routes(world)
        await routes.files.check()
        try:
            await steps(routes)
        finally:
            held.let_go()
            routes.plane.close()

    asyncio.run(run())


def test_a_model_that_loads_slowly_holds_no_other_deployment_up(world, held):
    slow, quick = held.add(1, "loads"), world.add_model(1)

    async def steps(routes: Routes) -> None:
        routes.publish("held", 1, slow)
        await routes.files.check()
        routes.publish("flights", 1, quick)
        await routes.until({"flights": 1})
        (await routes.reached(held, 1)).close()
        await routes.until({"flights": 1, "held": 1})

    following(world, held, steps)


def test_a_table_that_needs_nothing_loaded_is_taken_up_before_the_one_that_still_loads(world, held):
    slow, quick = held.add(1, "loads"), world.add_model(1)

    async def steps(routes: Routes) -> None:
        routes.publish("flights", 1, quick)
        await routes.until({"flights": 1})
        routes.publish("flights", 2, slow)
        await routes.files.check()
        loading = await routes.reached(held, 1)
        routes.publish("flights", 3, quick)
        await routes.until({"flights": 3})
        loading.close()
        routes.publish("other", 1, quick)  # loaded by the same threads, after it
        await routes.until({"flights": 3, "other": 1})

    following(world, held, steps)


def test_the_tables_of_one_deployment_are_taken_up_in_order(world, held):
    first, second = held.add(1, "loads"), held.add(2, "loads")

    async def steps(routes: Routes) -> None:
        routes.publish("held", 1, first)
        await routes.files.check()
        loading = await routes.reached(held, 1)
        routes.publish("held", 2, second)
        await routes.files.check()
        loading.close()
        await routes.until({"held": 1})
        await routes.files.check()
        (await routes.reached(held, 2)).close()
        await routes.until({"held": 2})

    following(world, held, steps)


def test_a_deployment_that_is_withdrawn_while_it_loads_never_serves(world, held):
    slow, quick = held.add(1, "loads"), world.add_model(1)

    async def steps(routes: Routes) -> None:
        routes.publish("held", 1, slow)
        await routes.files.check()
        loading = await routes.reached(held, 1)
        routes.withdraw("held")
        await routes.files.check()
        loading.close()
        routes.publish("flights", 1, quick)
        await routes.until({"flights": 1})

    following(world, held, steps)


def test_the_name_of_what_was_withdrawn_leads_to_no_other_deployment_of_its_model(world, held):
    variant = world.add_model(1)

    async def steps(routes: Routes) -> None:
        routes.publish("eu", 1, variant)
        await routes.until({"eu": 1})
        assert routes.plane.find("flights").table.deployment == "eu"
        routes.publish("flights", 1, variant)
        await routes.until({"eu": 1, "flights": 1})
        routes.withdraw("flights")
        await routes.until({"eu": 1})
        with pytest.raises(NotFound, match="'flights' is withdrawn"):
            routes.plane.find("flights")
        routes.publish("flights", 2, variant)
        await routes.until({"eu": 1, "flights": 2})
        assert routes.plane.find("flights").table.deployment == "flights"

    following(world, held, steps)


def test_the_first_look_waits_for_all_there_is(world, held):
    async def run() -> None:
        routes = Routes(world)
        routes.publish("held", 1, held.add(1, "loads"))
        routes.publish("flights", 1, world.add_model(1))
        looking = asyncio.create_task(routes.files.check())
        (await held.reached(1, "loads")).close()
        assert await looking
        assert routes.serving == {"flights": 1, "held": 1}
        routes.plane.close()

    asyncio.run(run())
