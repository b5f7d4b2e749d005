"""An SFTP server of one folder, for tests: ``python -m tests.sftp_server FOLDER``.

Prints its port, and lives until its stdin ends. One user, with the password below.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from typing import Any

import paramiko

USER, PASSWORD = "tester", "a-test-password"
ROOT = os.path.realpath(sys.argv[1]) if len(sys.argv) > 1 else "."


class Door(paramiko.ServerInterface):
    """Who may come in."""

    def get_allowed_auths(self, username: str) -> str:
        return "password"

    def check_auth_password(self, username: str, password: str) -> int:
        right = (username, password) == (USER, PASSWORD)
        return paramiko.AUTH_SUCCESSFUL if right else paramiko.AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED


class Folder(paramiko.SFTPServerInterface):
    """The files."""

    def _at(self, path: str) -> str:
        return ROOT + self.canonicalize(path)

    def list_folder(self, path: str) -> Any:
        return self._told(lambda at: [attributes(entry) for entry in os.scandir(at)], path)

    def stat(self, path: str) -> Any:
        return self._told(lambda at: paramiko.SFTPAttributes.from_stat(os.stat(at)), path)

    lstat = stat

    def open(self, path: str, flags: int, attr: Any) -> Any:
        def opened(at: str) -> paramiko.SFTPHandle:
            handle = paramiko.SFTPHandle(flags)
            descriptor = os.open(at, flags, 0o600)
            mode = ("rb", "r+b")[flags & (os.O_WRONLY | os.O_RDWR) != 0]
            handle.readfile = handle.writefile = os.fdopen(descriptor, mode)  # type: ignore[attr-defined]
            return handle

        return self._told(opened, path)

    def remove(self, path: str) -> Any:
        return self._done(os.remove, path)

    def mkdir(self, path: str, attr: Any) -> Any:
        return self._done(os.mkdir, path)

    def rmdir(self, path: str) -> Any:
        return self._done(os.rmdir, path)

    def rename(self, oldpath: str, newpath: str) -> Any:
        return self._done(lambda at: os.rename(at, self._at(newpath)), oldpath)

    posix_rename = rename

    def _told(self, work: Any, path: str) -> Any:
        try:
            return work(self._at(path))
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno or 0)

    def _done(self, work: Any, path: str) -> Any:
        failed = self._told(work, path)
        return paramiko.SFTP_OK if failed is None else failed


def attributes(entry: os.DirEntry[str]) -> paramiko.SFTPAttributes:
    return paramiko.SFTPAttributes.from_stat(entry.stat(), entry.name)


def main() -> None:
    key = paramiko.ECDSAKey.generate()
    kept = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        print(listening.getsockname()[1], flush=True)

        def serve() -> None:
            while True:
                connection, _ = listening.accept()
                transport = paramiko.Transport(connection)
                transport.add_server_key(key)
                transport.set_subsystem_handler("sftp", paramiko.SFTPServer, Folder)
                transport.start_server(threading.Event(), Door())
                kept.append(transport)

        threading.Thread(target=serve, daemon=True).start()
        sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
