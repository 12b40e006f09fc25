"""How the operator's client bears thousands of requests at once."""

import asyncio

from aiohttp import web

from lifeboat import kube


async def test_a_request_has_its_whole_time_however_long_it_waited_for_its_turn() -> None:
    all_held, released = asyncio.Event(), asyncio.Event()
    arrived = 0

    async def answer(_: web.Request) -> web.Response:
        nonlocal arrived
        arrived += 1
        if arrived == kube.CONNECTIONS:
            all_held.set()
        await released.wait()
        return web.json_response({})

    served = web.Application()
    served.router.add_get("/{path}", answer)
    runner = web.AppRunner(served)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    api = kube.Kube.reach(kube.Access(server=f"http://{host}:{port}", authority=None))
    try:
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            for _ in range(kube.CONNECTIONS):
                group.create_task(api.call("GET", "/held", seconds=60))
            await all_held.wait()
            late = group.create_task(api.call("GET", "/late", seconds=2))
            await asyncio.sleep(2.5)  # longer than its own time
            assert not late.done()
            released.set()
            assert await late == {}
    finally:
        await api.close()
        await runner.cleanup()
