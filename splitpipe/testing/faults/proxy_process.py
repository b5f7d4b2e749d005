"""The program behind `FaultProxy`: an HTTP/1.1 proxy on loopback that does damage by rule.

Responsible for: passing requests on to one server, doing to them what the rules say, and counting.
It runs as a script of its own, so that it takes no time from the process that is tested, and it
imports nothing but the standard library, so that it starts at once.

Rules:
- it listens on 127.0.0.1 alone, on a port that the system chooses and that it prints first;
- commands are lines of JSON on stdin, each answered by one on stdout; it ends with its stdin;
- each request meets at most one fault: the first whose rule fits and whose dice fall;
- what it passes on without a fault is passed on byte for byte, but for ``Expect``, which it answers
  itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import signal
import socket
import struct
import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

MAX_LOG = 200_000
PIECE = 1 << 16

Headers = list[tuple[bytes, bytes]]


class Gone(Exception):
    """This connection is to be ended without another word."""


@dataclass(slots=True)
class Head:
    """The first line and the headers of a request or a response."""

    first: bytes
    headers: Headers

    def get(self, name: bytes) -> bytes | None:
        return next((value for key, value in self.headers if key.lower() == name), None)

    def without(self, *names: bytes) -> Headers:
        return [pair for pair in self.headers if pair[0].lower() not in names]

    def replace(self, name: bytes, value: bytes) -> None:
        self.headers = [*self.without(name.lower()), (name, value)]

    def encode(self) -> bytes:
        lines = [self.first, *(key + b": " + value for key, value in self.headers), b"", b""]
        return b"\r\n".join(lines)


@dataclass
class Plan:
    """Which faults there are, and what happened so far."""

    rules: list[dict[str, Any]] = field(default_factory=list)
    latency_s: float = 0.0
    dice: random.Random = field(default_factory=lambda: random.Random(0))
    seen: Counter[int] = field(default_factory=Counter)
    struck: Counter[int] = field(default_factory=Counter)

    def choose(self, method: str, target: str, ranged: bool) -> dict[str, Any] | None:
        """The fault that this request meets."""
        for number, rule in enumerate(self.rules):
            if rule["method"] and method not in rule["method"].split(","):
                continue
            if rule["target"] and not re.search(rule["target"], target):
                continue
            if rule["ranged"] and not ranged:
                continue
            self.seen[number] += 1
            if self.seen[number] <= rule["after"]:
                continue
            if rule["times"] is not None and self.struck[number] >= rule["times"]:
                continue
            if self.dice.random() < rule["rate"]:
                self.struck[number] += 1
                return rule
        return None


class Counts:
    """What passed."""

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.statuses: Counter[str] = Counter()
        self.nbytes_up = 0
        self.nbytes_down = 0
        self.connections = 0
        self.log: list[dict[str, Any]] = []

    def told(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "log"}


class Proxy:
    """All connections, and the commands that change how they are served."""

    def __init__(self, host: str, port: int) -> None:
        self.upstream = host, port
        self.plan = Plan()
        self.counts = Counts()
        self._serving: set[object] = set()

    def command(self, asked: dict[str, Any]) -> Any:
        """Do what a line on stdin says; what to answer."""
        match asked.pop("do"):
            case "inject":
                dice = random.Random(asked["seed"])
                self.plan = Plan(asked["rules"], self.plan.latency_s, dice)
            case "latency":
                self.plan.latency_s = asked["seconds"]
            case "statistics":
                return self.counts.told()
            case "log":
                return self.counts.log
            case "forget":
                self.counts = Counts()
            case other:
                raise ValueError(other)
        return None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a client, with one of its own to the server."""
        self.counts.connections += 1
        ends = _Ends(self.upstream)
        task = asyncio.current_task()
        self._serving.add(task)  # the loop itself keeps no task that sleeps from being collected
        try:
            while await Exchange(self, reader, writer, ends).run():
                pass
        except (Gone, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            self._serving.discard(task)
            ends.drop()
            writer.close()


class _Ends:
    """The connection to the server that belongs to a client's connection."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._open: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def get(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._open is None or self._open[0].at_eof() or self._open[1].is_closing():
            self.drop()
            self._open = await asyncio.open_connection(*self._address, limit=1 << 18)
        return self._open

    def drop(self) -> None:
        if self._open is not None:
            self._open[1].close()
            self._open = None


class Exchange:
    """One request and its response."""

    def __init__(
        self,
        proxy: Proxy,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        ends: _Ends,
    ) -> None:
        self.proxy = proxy
        self.reader = reader
        self.writer = writer
        self.ends = ends
        self.fault: dict[str, Any] | None = None
        self.entry: dict[str, Any] = {}

    async def run(self) -> bool:
        """Serve it; whether another one may follow on the same connection."""
        try:
            request = await _read_head(self.reader)
        except asyncio.IncompleteReadError:
            return False
        method, target = request.first.decode("latin-1").split(" ")[:2]
        ranged = request.get(b"range")
        self._note(request, method, target, ranged)
        plan = self.proxy.plan
        self.fault = plan.choose(method, target, ranged is not None)
        if self.fault is not None:
            self.entry["fault"] = self.fault["kind"]
            self.proxy.counts.faults[self.fault["kind"]] += 1
        if (request.get(b"expect") or b"").lower() == b"100-continue":
            self.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if plan.latency_s:
            await asyncio.sleep(plan.latency_s)
        kind = self.fault["kind"] if self.fault else ""
        if self.fault is not None and kind in ("status", "redirect"):
            return await self._answer(request, self.fault)
        if self.fault is not None and kind == "reset":
            await self._take_body(request, None)
            self._reset()
        if self.fault is not None and kind == "stall":
            await asyncio.sleep(self.fault["seconds"])
        return await self._pass_on(request, method)

    def _note(self, request: Head, method: str, target: str, ranged: bytes | None) -> None:
        counts = self.proxy.counts
        counts.requests[method] += 1
        if ranged is not None:
            counts.requests[f"{method} ranged"] += 1
        self.entry = {
            "method": method,
            "target": target,
            "range": ranged.decode("latin-1") if ranged is not None else None,
            "authorized": request.get(b"authorization") is not None,
            "fault": None,
            "status": None,
        }
        if len(counts.log) < MAX_LOG:
            counts.log.append(self.entry)

    async def _answer(self, request: Head, fault: dict[str, Any]) -> bool:
        """Answer in the server's stead."""
        await self._take_body(request, None)
        body = b"" if request.first.startswith(b"HEAD") else fault["body"].encode()
        headers: Headers = [(b"Content-Length", str(len(body)).encode())]
        if fault["retry_after"] is not None:
            headers.append((b"Retry-After", fault["retry_after"].encode()))
        if fault["location"]:
            headers.append((b"Location", fault["location"].encode()))
        await self._send_head(Head(f"HTTP/1.1 {fault['status']} Injected".encode(), headers))
        await self._send(body)
        return True

    async def _pass_on(self, request: Head, method: str) -> bool:
        request.headers = request.without(b"expect")
        if self.fault is not None and self.fault["kind"] == "ignore_range":
            request.headers = request.without(b"range", b"if-range")
        try:
            source, sink = await self.ends.get()
            sink.write(request.encode())
            await self._take_body(request, sink)
            response = await _read_head(source)
            while response.first.split(b" ")[1] == b"100":
                response = await _read_head(source)
        except (OSError, asyncio.IncompleteReadError) as error:
            sys.stderr.write(f"proxy: no answer from {self.proxy.upstream}: {error!r}\n")
            self.ends.drop()
            raise Gone from error
        status = int(response.first.split(b" ")[1])
        self.entry["status"] = status
        bare = method == "HEAD" or status in (204, 304)
        length = 0 if bare else _length(response)
        if self.fault is not None and self.fault["kind"] in _ON_BODIES:
            await self._spoil(source, response, length, self.fault)
        await self._send_head(response)
        await self._copy_body(source, response, length)
        return self._may_go_on(request, response, length)

    def _may_go_on(self, request: Head, response: Head, length: int | None) -> bool:
        asked = b"close" in (request.get(b"connection") or b"").lower()
        told = b"close" in (response.get(b"connection") or b"").lower()
        old = response.first.startswith(b"HTTP/1.0")
        if told or old or (length is None and not _chunked(response)):
            self.ends.drop()
            return False
        return not asked

    async def _take_body(self, request: Head, sink: asyncio.StreamWriter | None) -> None:
        """Read the body of the request, and hand it to the server unless there is none."""

        async def take(data: bytes) -> None:
            self.proxy.counts.nbytes_up += len(data)
            if sink is not None:
                sink.write(data)
                await sink.drain()

        if _chunked(request):
            await _each_chunk(self.reader, take)
        else:
            await _each_piece(self.reader, int(request.get(b"content-length") or 0), take)

    async def _copy_body(
        self, source: asyncio.StreamReader, response: Head, length: int | None
    ) -> None:
        if length is None and _chunked(response):
            await _each_chunk(source, self._send)
        else:
            await _each_piece(source, length, self._send)

    async def _spoil(
        self,
        source: asyncio.StreamReader,
        response: Head,
        length: int | None,
        fault: dict[str, Any],
    ) -> None:
        """Damage a response with a body; one without is reset instead. Some go on undamaged."""
        kind = fault["kind"]
        if not length:
            self._reset()
            return
        half = length // 2
        if kind == "wrong_length":
            response.replace(b"Content-Length", str(max(0, length + fault["nbytes"])).encode())
            await self._send_head(response)
            await _each_piece(source, length, self._send)
            raise Gone
        if kind == "wrong_range":
            told = response.get(b"content-range")
            if told is not None:
                response.replace(b"Content-Range", _shifted(told, fault["nbytes"]))
            return
        await self._send_head(response)
        if kind == "trickle":
            await self._trickle(source, length, fault)
        elif kind == "corrupt":
            data = bytearray(await source.readexactly(length))
            data[self.proxy.plan.dice.randrange(length)] ^= 0x10
            await self._send(bytes(data))
        else:
            await _each_piece(source, half, self._send)
            await self.writer.drain()
            if kind == "stall_midway":
                await asyncio.sleep(fault["seconds"])
            elif kind == "reset_midway":
                self._reset()
            if kind != "stall_midway":
                raise Gone
            await _each_piece(source, length - half, self._send)
        raise Gone

    async def _trickle(
        self, source: asyncio.StreamReader, length: int, fault: dict[str, Any]
    ) -> None:
        step = max(1, int(fault["nbytes_per_s"] / 20))
        for at in range(0, length, step):
            await self._send(await source.readexactly(min(step, length - at)))
            await asyncio.sleep(step / fault["nbytes_per_s"])

    async def _send_head(self, response: Head) -> None:
        status = response.first.split(b" ")[1].decode()
        self.entry["status"] = int(status)
        self.proxy.counts.statuses[status] += 1
        self.writer.write(response.encode())

    async def _send(self, data: bytes) -> None:
        self.proxy.counts.nbytes_down += len(data)
        self.writer.write(data)
        await self.writer.drain()

    def _reset(self) -> None:
        """End the connection as a peer that crashed does."""
        peer = self.writer.get_extra_info("socket")
        if peer is not None:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()
        raise Gone


_ON_BODIES = frozenset(
    {"truncate", "reset_midway", "stall_midway", "wrong_length", "wrong_range", "trickle"}
    | {"corrupt"}
)


async def _read_head(reader: asyncio.StreamReader) -> Head:
    data = await reader.readuntil(b"\r\n\r\n")
    first, *lines = data[:-4].split(b"\r\n")
    pairs = (line.partition(b":") for line in lines)
    return Head(first, [(key, value.strip()) for key, _, value in pairs])


def _chunked(head: Head) -> bool:
    return b"chunked" in (head.get(b"transfer-encoding") or b"").lower()


def _length(response: Head) -> int | None:
    told = response.get(b"content-length")
    return None if told is None else int(told)


async def _each_piece(reader: asyncio.StreamReader, length: int | None, take: Any) -> None:
    left = sys.maxsize if length is None else length
    while left:
        data = await reader.read(min(PIECE, left))
        if not data:
            if length is None:
                return
            raise Gone
        await take(data)
        left -= len(data)


async def _each_chunk(reader: asyncio.StreamReader, take: Any) -> None:
    while True:
        line = await reader.readuntil(b"\r\n")
        size = int(line.split(b";")[0], 16)
        await take(line)
        if size == 0:
            while line != b"\r\n":
                line = await reader.readuntil(b"\r\n")
                await take(line)
            return
        await _each_piece(reader, size + 2, take)


def _shifted(told: bytes, nbytes: int) -> bytes:
    found = re.fullmatch(rb"bytes (\d+)-(\d+)/(\S+)", told)
    if found is None:
        return told
    start, last = (int(group) + nbytes for group in found.groups()[:2])
    return b"bytes %d-%d/%s" % (start, last, found[3])


async def _commands(proxy: Proxy) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        sys.stdout.write(json.dumps(proxy.command(json.loads(line))) + "\n")
        sys.stdout.flush()


async def _main(host: str, port: int) -> None:
    proxy = Proxy(host, port)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, limit=1 << 18, backlog=1024)
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
        sys.stdout.flush()
        await _commands(proxy)
    os._exit(0)  # with whatever is under way: who would have waited for it is gone


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asyncio.run(_main(sys.argv[1], int(sys.argv[2])))
