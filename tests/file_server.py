"""A real HTTP/1.1 file server on loopback, with ranges, tags and conditions: run as a program.

``python -m tests.file_server FOLDER`` prints its port and serves until its stdin ends.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from email.utils import formatdate
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tests.loopback import Handler, serve


class Files(Handler):
    folder: Path

    def asked(self) -> None:
        path = self.folder / unquote(urlsplit(self.path).path).lstrip("/")
        try:
            file = path.open("rb")
        except OSError:
            self.answer(404, b"no such file\n")
            return
        with file:
            stat = os.fstat(file.fileno())
            tag = f'"{stat.st_ino:x}-{stat.st_mtime_ns:x}-{stat.st_size:x}"'
            headers = {"Accept-Ranges": "bytes", "ETag": tag}
            headers["Last-Modified"] = formatdate(stat.st_mtime, usegmt=True)
            wanted = self.headers.get("If-Match")
            if wanted not in (None, "*", tag):
                self.answer(412, b"", headers)
                return
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            if self.headers.get("If-Range", tag) != tag:
                asked = None
            if asked is None:
                self.answer(200, stat.st_size, headers)
                if self.command != "HEAD":
                    self._send(file.fileno(), stat.st_size)
                return
            start = int(asked[1])
            stop = min(stat.st_size, int(asked[2]) + 1 if asked[2] else stat.st_size)
            if start >= stat.st_size:
                headers["Content-Range"] = f"bytes */{stat.st_size}"
                self.answer(416, b"", headers)
                return
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{stat.st_size}"
            data = os.pread(file.fileno(), stop - start, start)
            self.answer(206, data, headers)

    def _send(self, file: int, nbytes: int) -> None:
        at = 0
        while at < nbytes:
            at += os.sendfile(self.connection.fileno(), file, at, min(1 << 18, nbytes - at))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Files.folder = Path(sys.argv[1])
    serve(Files)
