"""A network that is not to be trusted: a real proxy in front of a real server.

Responsible for: `FaultProxy`, which passes HTTP requests on and damages those that its rules
choose; `HttpFault`, one such rule; `chaos`, a mixture of all kinds.

Rules:
- it listens on loopback alone, in a process of its own, which ends with the one that started it;
- what it does is chosen by rules and a seed; which of several requests at once comes first is not;
- its counts tell what really went over the wire, whatever clients believe.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from splitpipe.testing.faults import proxy_process

__all__ = ["FaultKind", "FaultProxy", "HttpFault", "ProxyStatistics", "SeenRequest", "chaos"]

FaultKind = Literal[
    "status",
    "redirect",
    "reset",
    "reset_midway",
    "truncate",
    "wrong_length",
    "wrong_range",
    "ignore_range",
    "stall",
    "stall_midway",
    "trickle",
    "corrupt",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpFault:
    """What is done to which requests.

    Attributes:
        kind: ``status`` and ``redirect`` answer in the server's stead; ``reset`` ends the
            connection before the response, ``reset_midway`` and ``truncate`` (without a reset) in
            the middle of its body; ``wrong_length`` adds ``nbytes`` to the Content-Length,
            ``wrong_range`` to both ends of the Content-Range; ``ignore_range`` makes the server
            send the whole object; ``stall`` waits before the response, ``stall_midway`` in its
            body; ``trickle`` sends ``nbytes_per_s``; ``corrupt`` flips a bit. Where a response has
            no body, kinds that need one reset the connection.
        rate: how many of the requests that fit, 0 to 1.
        method: only these methods, with commas between.
        target: only where this regular expression is found in path and query.
        ranged: only requests for a range.
        after: let so many that fit pass first.
        times: strike so often at most; without end unless given.
        status: of ``status`` and ``redirect``.
        retry_after: header that comes with a ``status``: seconds, or a date.
        location: header that comes with a ``redirect``.
        body: of ``status``.
        seconds: of the stalls.
        nbytes: of ``wrong_length`` and ``wrong_range``.
        nbytes_per_s: of ``trickle``.
    """

    kind: FaultKind
    rate: float = 1.0
    method: str = ""
    target: str = ""
    ranged: bool = False
    after: int = 0
    times: int | None = None
    status: int = 503
    retry_after: str | None = None
    location: str = ""
    body: str = ""
    seconds: float = 3600.0
    nbytes: int = 7
    nbytes_per_s: float = 100.0

    def __post_init__(self) -> None:
        if self.kind not in get_args(FaultKind):
            raise ValueError(f"{self.kind!r} is no fault: use one of {get_args(FaultKind)}")


def chaos(rate: float, *, stall_s: float = 3600.0, nbytes_per_s: float = 100.0) -> list[HttpFault]:
    """Faults of every kind that a client can see, which strike ``rate`` of all requests together.

    Example:
        >>> len(chaos(0.3))
        11
    """
    kinds = [
        HttpFault(kind="status", status=500),
        HttpFault(kind="status", status=503),
        HttpFault(kind="status", status=429, retry_after="0"),
        HttpFault(kind="reset"),
        HttpFault(kind="reset_midway"),
        HttpFault(kind="truncate"),
        HttpFault(kind="wrong_length", nbytes=7),
        HttpFault(kind="wrong_length", nbytes=-7),
        HttpFault(kind="ignore_range"),
        HttpFault(kind="stall_midway", seconds=stall_s),
        HttpFault(kind="trickle", nbytes_per_s=nbytes_per_s),
    ]
    share = rate / len(kinds)
    # A later rule is only asked where no earlier one struck.
    return [_at(fault, share / (1 - share * number)) for number, fault in enumerate(kinds)]


def _at(fault: HttpFault, rate: float) -> HttpFault:
    return HttpFault(**{**asdict(fault), "rate": rate})


@dataclass(frozen=True, slots=True)
class ProxyStatistics:
    """What passed a proxy.

    Attributes:
        requests: by method; those for a range also as ``"GET ranged"``.
        faults: how often each kind struck.
        statuses: responses by status.
        nbytes_up: bytes of bodies of requests.
        nbytes_down: bytes of bodies of responses.
        connections: that clients opened.
    """

    requests: Mapping[str, int]
    faults: Mapping[str, int]
    statuses: Mapping[str, int]
    nbytes_up: int
    nbytes_down: int
    connections: int


@dataclass(frozen=True, slots=True)
class SeenRequest:
    """One request, as the proxy saw it.

    Attributes:
        method: ``"GET"`` and so on.
        target: path and query.
        range: the Range header.
        authorized: whether there was an Authorization header.
        fault: what struck.
        status: of the response, where there was one.
    """

    method: str
    target: str
    range: str | None
    authorized: bool
    fault: str | None
    status: int | None


class FaultProxy:
    """A proxy in front of an HTTP server.

    Args:
        upstream: the server's url; its path is left out.
        latency_s: added to each request.

    Attributes:
        url: what clients use in place of ``upstream``.

    Example:
        >>> with FaultProxy("http://127.0.0.1:9") as proxy:
        ...     proxy.inject(HttpFault(kind="status", status=503, times=2), seed=1)
        ...     proxy.statistics().requests
        {}
    """

    def __init__(self, upstream: str, *, latency_s: float = 0.0) -> None:
        parts = urlsplit(upstream)
        if parts.scheme != "http" or parts.hostname is None:
            raise ValueError(f"{upstream!r} is not the url of a server: http://host:port")
        program = Path(proxy_process.__file__)
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-S", str(program), parts.hostname, str(parts.port or 80)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        port = self._process.stdout.readline().strip()
        if not port:
            self.close()
            raise RuntimeError("the proxy did not start: see its traceback on stderr")
        self.url = f"http://127.0.0.1:{port}"
        self.set_latency(latency_s)

    def inject(self, *faults: HttpFault, seed: int = 0) -> None:
        """Let these rules hold from now on, in place of all others; none ends all faults."""
        self._ask("inject", rules=[asdict(fault) for fault in faults], seed=seed)

    def set_latency(self, seconds: float) -> None:
        """Add so much to each request from now on."""
        self._ask("latency", seconds=seconds)

    def statistics(self) -> ProxyStatistics:
        """What passed since the start, or since `forget`."""
        return ProxyStatistics(**self._ask("statistics"))

    def log(self) -> list[SeenRequest]:
        """The requests since the start, or since `forget`, as they came; the first 200,000."""
        return [SeenRequest(**entry) for entry in self._ask("log")]

    def forget(self) -> None:
        """Begin all counts and the log anew."""
        self._ask("forget")

    def close(self) -> None:
        """End the process."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(5.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    def _ask(self, do: str, **values: object) -> Any:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        with self._lock:
            process.stdin.write(json.dumps({"do": do, **values}) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        if not answer:
            raise RuntimeError("the proxy ended: see its traceback on stderr")
        return json.loads(answer)

    def __enter__(self) -> FaultProxy:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"FaultProxy({self.url!r})"
