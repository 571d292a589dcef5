"""What becomes of an answer whose client is gone."""

from __future__ import annotations

import asyncio
import socket

import uvloop

from noria.surface.http.answer_writer import AnswerWriter


def test_an_answer_to_a_client_that_is_gone_is_dropped():
    async def run() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
        writer = AnswerWriter(transport, transport.close)
        theirs.close()
        transport.abort()
        async with asyncio.timeout(10):
            while ours.fileno() >= 0 and transport.get_extra_info("socket").fileno() >= 0:
                await asyncio.sleep(0.001)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        writer.write(b"{}")

    uvloop.run(run())
