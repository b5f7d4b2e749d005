"""A server that answers exactly what a test gives it, whatever it is asked."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType

__all__ = ["ScriptedServer", "answer"]


def answer(status: int, body: bytes = b"", *headers: str, length: bool = True) -> bytes:
    """A response as it goes over the wire, the last one of its connection, as it says."""
    lines = [f"HTTP/1.1 {status} Scripted", "Connection: close", *headers]
    if length:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


class ScriptedServer:
    """Gives each request the next of its answers, the last one for ever, and keeps the requests."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.requests: list[str] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._socket.accept()
                with peer, contextlib.suppress(OSError):
                    head = b""
                    while b"\r\n\r\n" not in head:
                        data = peer.recv(65536)
                        if not data:
                            break
                        head += data
                    else:
                        self.requests.append(head.decode("latin-1"))
                        more = len(self.answers) > 1
                        peer.sendall(self.answers.pop(0) if more else self.answers[0])

    def __enter__(self) -> ScriptedServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()
