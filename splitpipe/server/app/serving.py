"""The process that serves: a socket, uvicorn, and an end in good order.

Responsible for: binding before anything is opened, saying when it is ready, ending in good order
within a second or so, and ending within `END_S` whatever happens.

Rules:
- who waits for an answer when the end begins gets one: that the server ends;
- what it ends with is the kernel's alarm, not a thread: code in C that never returns, and keeps
  threads from running, is ended too. Where all threads are is in the log then. Nothing is lost by
  that, as nothing is by SIGKILL: state is written down before it is told;
- what keeps a server from starting is one error that says what to do, before anything is changed;
- nobody else's word on where a request comes from is believed: no header of a proxy counts.
"""

from __future__ import annotations

import contextlib
import errno
import faulthandler
import json
import os
import resource
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import anyio
import anyio.to_thread
import uvicorn

from splitpipe.errors import StorageError
from splitpipe.server.app import make_app
from splitpipe.server.service import Service, open_service
from splitpipe.server.settings import Settings

__all__ = ["serve"]

END_S = 9
"""From SIGTERM or Ctrl-C on."""
_GRACE_S = 1
_KEEP_ALIVE_S = 65
_CONNECTIONS = 2000
"""At once; beyond it a request is answered 503, and a client asks again later."""


def serve(settings: Settings, *, ready: Callable[[str, Service], None]) -> None:
    """Serve until the process is asked to end, by SIGTERM or Ctrl-C.

    Args:
        settings: of the server.
        ready: called once requests are answered, with the server's URL and its service.

    Raises:
        SplitpipeError: what keeps it from starting.
    """
    _allow_descriptors()
    with _bound(settings) as listening, open_service(settings) as service:
        url = _url(settings.host, listening.getsockname()[1])
        config = uvicorn.Config(
            make_app(service),
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            limit_concurrency=_CONNECTIONS,
            timeout_graceful_shutdown=_GRACE_S,
        )
        said = settings.root.run / "server.json"
        try:
            _Server(config, service, said=said, url=url, ready=ready).run(sockets=[listening])
        finally:
            said.unlink(missing_ok=True)


class _Server(uvicorn.Server):
    """uvicorn's server, which says when it is ready, and tells the service when it ends."""

    def __init__(
        self,
        config: uvicorn.Config,
        service: Service,
        *,
        said: Path,
        url: str,
        ready: Callable[[str, Service], None],
    ) -> None:
        super().__init__(config)
        self._service = service
        self._said = said
        self._url = url
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen, then say so."""
        await super().startup(sockets)
        if self.started:
            half = self._said.with_suffix(".half")
            half.write_text(json.dumps({"pid": os.getpid(), "url": self._url}), encoding="utf-8")
            half.replace(self._said)
            self._ready(self._url, self._service)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End; answers that would go on for ever end, too."""
        if not self._service.ending.is_set():
            _set_deadline()
            self._service.ending.set()
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Tell those who wait for something that it does not come, then answer what is left."""
        await anyio.to_thread.run_sync(self._service.let_go, limiter=anyio.CapacityLimiter(1))
        await super().shutdown(sockets)


def _set_deadline() -> None:
    """Be ended by the kernel if the end takes too long."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    with contextlib.suppress(OSError, ValueError, RuntimeError):  # stderr may be no file
        faulthandler.register(signal.SIGALRM, all_threads=True, chain=True)
    signal.alarm(END_S)


def _allow_descriptors() -> None:
    """Let the process open as many files as it may: connections and engines take some each."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        # A limit of the system that is lower than it says is no reason not to serve.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _bound(settings: Settings) -> socket.socket:
    """A socket that has the address, and does not listen yet."""
    host, port = settings.host, settings.port
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise StorageError(f"{host!r} is no address of this machine: {error.strerror}") from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        # Whoever listens at the address already is only seen now.
        bound.listen(2048)
        bound.set_inheritable(False)
    except OSError as error:
        bound.close()
        raise StorageError(_why_not(host, port, error)) from error
    return bound


def _why_not(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} of {host} is in use by another program, maybe another server. Choose "
            "another one with --port, or --port 0 for any that is free"
        )
    if error.errno == errno.EACCES:
        return f"port {port} of {host} is not for you. Choose one from 1024 on with --port"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is no address of this machine. See `ip address`, or say --host 127.0.0.1"
    return f"port {port} of {host} cannot be listened to: {error.strerror}"


def _url(host: str, port: int) -> str:
    name = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return f"http://{name}:{port}"
