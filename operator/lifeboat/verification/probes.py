"""One try of one check, against a machine that an engine started: over HTTP, over TCP, or by a program in the guest.

Machines are somebody's servers and may answer anything: answers are read up to a limit, no redirect leads anywhere
else, and no proxy from the environment comes in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Final

import aiohttp

from lifeboat.api.common import Check, HTTPGet
from lifeboat.engines.contract import EngineError, ExecResult, StaleTerm

# A server that has just come up is slow; what is given up too early is asked again and makes it slower.
TRY_SECONDS: Final = 10.0
ANSWER_BYTES: Final = 64 * 1024

Route = Callable[[int], Awaitable[tuple[str, int]]]
Execute = Callable[[Collection[str], float], Awaitable[ExecResult]]


def session() -> aiohttp.ClientSession:
    """The session that checks go through: no proxies, no cookies, a connection for each try."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(force_close=True, limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=TRY_SECONDS),
        trust_env=False,
    )


async def try_check(check: Check, http: aiohttp.ClientSession, route: Route, execute: Execute) -> tuple[bool, str]:
    """Whether the check passes now, and what was seen. Raises `StaleTerm` only."""
    try:
        async with asyncio.timeout(TRY_SECONDS + 1):
            if check.http_get is not None:
                host, port = await route(check.http_get.port)
                return await _http(check.http_get, http, host, port)
            if check.tcp_socket is not None:
                # The engine gives a route only to a port that something in the machine accepts connections on.
                await route(check.tcp_socket.port)
                return True, f"port {check.tcp_socket.port} accepts"
            if check.exec is not None:
                ended = await execute(check.exec.command, TRY_SECONDS)
                said = ended.output.strip()[-200:]
                return ended.exit_code == 0, f"exit code {ended.exit_code}{': ' + said if said else ''}"
    except TimeoutError:
        return False, "no answer in time"
    except StaleTerm:
        raise
    except EngineError as error:
        return False, str(error)
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return False, str(error) or type(error).__name__
    return False, "the check is of no known sort"


async def _http(wanted: HTTPGet, http: aiohttp.ClientSession, host: str, port: int) -> tuple[bool, str]:
    async with http.get(f"http://{host}:{port}{wanted.path}", allow_redirects=False) as answer:
        body = await _read(answer)
    right = answer.status == wanted.status if wanted.status is not None else 200 <= answer.status <= 399
    if not right:
        return False, f"HTTP {answer.status}, expected {wanted.status or '200 to 399'}"
    if wanted.contains is not None and wanted.contains.encode() not in body:
        return False, f"HTTP {answer.status}, without the expected text"
    return True, f"HTTP {answer.status}"


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    body = b""
    async for chunk in answer.content.iter_chunked(ANSWER_BYTES):
        body += chunk
        if len(body) >= ANSWER_BYTES:
            break
    return body[:ANSWER_BYTES]
