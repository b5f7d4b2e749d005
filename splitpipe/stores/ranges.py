"""Reading objects over HTTP, with everything compared that a server says about what it sends.

Responsible for: `read_range` and `look`, GET and HEAD of one object through `Connections`;
`Target`, where it is; redirects. `HttpStore` and `S3Store` read by these.

Rules:
- bytes are given out only where status, Content-Range, Content-Length, what arrived and the
  version agree with what was asked for;
- a server that sends the whole object in place of a range is made use of where that costs little
  more, and is an error elsewhere; of a whole object from a server that knows no ranges nothing but
  its Content-Length can be compared;
- a redirect to another origin is followed only where that origin was allowed, and never with
  credentials.
"""

from __future__ import annotations

import errno
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import urljoin, urlsplit

from splitpipe.errors import RemoteError
from splitpipe.stores.base import ObjectStat
from splitpipe.stores.connections import Answer, Connections
from splitpipe.stores.failures import (
    EXPIRED,
    changed,
    missing,
    of_status,
    refused,
    remote_error,
    retry_after,
    too_short,
)
from splitpipe.stores.sealed import told_url

__all__ = ["Target", "look", "read_answer", "read_range", "version"]

REDIRECTS: Final = 5
CHEAP: Final = 1 << 20
_log = logging.getLogger("splitpipe")
_told_of: set[str] = set()


@dataclass(frozen=True, slots=True)
class Target:
    """An object, as requests name it.

    Attributes:
        url: with all that is secret in it.
        where: what to call it in errors.
        headers: that each request has, credentials among them.
        allowed: origins that a redirect may lead to, ``"*"`` for any.
        head_url: for HEAD, where a url is signed for one method.
    """

    url: str
    where: str
    headers: Mapping[str, str]
    allowed: frozenset[str] = frozenset()
    head_url: str = ""

    def __repr__(self) -> str:
        return f"Target({self.where!r})"


def version(headers: Mapping[str, str]) -> str | None:
    """What names the version of an object: its ETag, else the time it was modified."""
    tag = headers.get("ETag")
    if tag:
        return tag
    time, length = headers.get("Last-Modified"), _size(headers)
    return f"{time}, {length} bytes" if time and length is not None else None


def look(connections: Connections, target: Target) -> ObjectStat:
    """Size and version of an object, by HEAD, or by its first byte where HEAD is not served.

    Raises:
        StorageError, RemoteError: see `Store.stat`.
    """
    with _begin(connections, "HEAD", target, {}, 0) as answer:
        if answer.status == 200 and answer.length is not None and not _encoded(answer):
            return ObjectStat(answer.length, version(answer.headers))
        if answer.status not in (200, 400, 401, 403, 405, 501):
            raise _refusal(answer, target)
    # A url that was signed for GET refuses HEAD; some servers tell no length by HEAD.
    with _begin(connections, "GET", target, {"Range": "bytes=0-0"}, 1) as answer:
        size = _size(answer.headers, told_only=answer.status == 416)
        if answer.status == 416 and size == 0:
            return ObjectStat(0, version(answer.headers))
        if answer.status not in (200, 206):
            raise _refusal(answer, target)
        if size is None:
            text = "the server does not say how large it is"
            raise remote_error(errno.EPROTO, text, target.where)
        if answer.status == 206:
            answer.read()
        return ObjectStat(size, version(answer.headers))


def read_range(
    connections: Connections, target: Target, start: int, stop: int | None, tag: str | None
) -> bytes:
    """Bytes ``start`` to ``stop - 1``, or to the end, of the version ``tag``.

    Raises:
        DatasetChanged, StorageError, RemoteError: see `Store.read`.
    """
    if start < 0 or (stop is not None and stop < start):
        raise too_short(target.where, start, stop, None)
    if stop is not None and stop == start:
        return _nothing(connections, target, start, tag)
    # For the whole, too: a range is answered with the size, by which a wrong length is seen.
    headers = {"Range": f"bytes={start}-" + ("" if stop is None else str(stop - 1))}
    if tag is not None and tag.startswith('"'):
        headers["If-Match"] = tag
    nbytes = 0 if stop is None else stop - start
    with _begin(connections, "GET", target, headers, nbytes) as answer:
        if answer.status == 412:
            raise changed(target.where, tag or "", answer.headers.get("ETag"))
        if answer.status not in (200, 206, 416):
            raise _refusal(answer, target)
        if tag is not None and version(answer.headers) not in (tag, None):
            raise changed(target.where, tag, version(answer.headers))
        if answer.status == 416 and stop is not None:
            raise too_short(target.where, start, stop, _size(answer.headers, told_only=True))
        if answer.status == 416:
            size = _size(answer.headers, told_only=True)
            if size is None:
                size = look(connections, target).size
            if start > size:
                raise too_short(target.where, start, stop, size)
            if start < size:
                raise _disagrees(target, f"it has {size} bytes, and none behind byte {start}")
            return b""
        if _encoded(answer):
            text = "the server compresses what was asked for as it is"
            raise remote_error(errno.EPROTO, text, target.where)
        if answer.status == 206:
            return _part(answer, target, start, stop)
        return _from_whole(answer, target, start, stop)


def read_answer(connections: Connections, target: Target) -> bytes:
    """What a url answers that is no object, a listing.

    Raises:
        StorageError, RemoteError: see `Store.list`.
    """
    with _begin(connections, "GET", target, {}, 0) as answer:
        if answer.status != 200:
            raise _refusal(answer, target)
        return _from_whole(answer, target, 0, None)


def _part(answer: Answer, target: Target, start: int, stop: int | None) -> bytes:
    told = answer.headers.get("Content-Range", "")
    found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", told)
    if found is None:
        raise _disagrees(target, f"Content-Range is {told!r}")
    first, end = int(found[1]), int(found[2]) + 1
    size = None if found[3] == "*" else int(found[3])
    if first != start or (size is not None and end > size) or (stop is not None and end > stop):
        raise _disagrees(target, f"bytes {start} to {stop} are wanted, {told!r} came")
    if stop is not None and end < stop:
        if size is not None and end == size:
            raise too_short(target.where, start, stop, size)
        raise _disagrees(target, f"bytes {start} to {stop} are wanted, {told!r} came")
    if stop is None and end != size:
        raise _disagrees(target, f"all from byte {start} on is wanted, {told!r} came")
    if answer.length is not None and answer.length != end - start:
        raise _disagrees(target, f"{told!r} is said to have {answer.length} bytes")
    # One more is asked for, so that a body that is too long is seen where no length was told.
    data = answer.read(end - start + (answer.length is None))
    if len(data) != end - start:
        raise _disagrees(target, f"{len(data)} bytes came of {told!r}")
    return data


def _from_whole(answer: Answer, target: Target, start: int, stop: int | None) -> bytes:
    """Of the whole object, which came although a range was asked for."""
    size = answer.length
    if size is None and answer.headers.get("Transfer-Encoding", "").lower() != "chunked":
        text = "the server does not say how large it is, so that its end cannot be told from a loss"
        raise remote_error(errno.EPROTO, text, target.where)
    if size is not None and (start > size or (stop is not None and stop > size)):
        raise too_short(target.where, start, stop, size)
    end = size if stop is None else stop
    if start > 0 or stop is not None:
        if end is None or end > max(CHEAP, 2 * (end - start)):
            text = "the server sends the whole object where a range is asked for"
            raise remote_error(errno.EPROTO, text, target.where, transient=True)
        _tell_once(target)
    data = answer.read(end)
    if end is not None and len(data) < end:
        raise too_short(target.where, start, stop, len(data))
    return data[start:] if start else data


def _nothing(connections: Connections, target: Target, at: int, tag: str | None) -> bytes:
    """An empty range: nothing to read, but all to compare."""
    stat = look(connections, target)
    if tag is not None and stat.tag not in (tag, None):
        raise changed(target.where, tag, stat.tag)
    if at > stat.size:
        raise too_short(target.where, at, at, stat.size)
    return b""


def _begin(
    connections: Connections, method: str, target: Target, headers: Mapping[str, str], nbytes: int
) -> Answer:
    """Ask, and go where redirects lead."""
    for _ in range(REDIRECTS + 1):
        sent = {"Accept-Encoding": "identity", **target.headers, **headers}
        url = (target.head_url if method == "HEAD" else "") or target.url
        answer = connections.begin(method, url, sent, where=target.where, nbytes=nbytes)
        if answer.status not in (301, 302, 303, 307, 308):
            return answer
        with answer:
            target = _led(answer, target)
    text = f"more than {REDIRECTS} redirects, one after the other"
    raise remote_error(errno.ELOOP, text, target.where)


def _led(answer: Answer, target: Target) -> Target:
    url = urljoin(target.url, answer.headers.get("Location", ""))
    here, there = _origin(target.url), _origin(url)
    if here == there and answer.headers.get("Location"):
        return replace(target, url=url, head_url="")
    if urlsplit(url).scheme in ("http", "https") and target.allowed & {there, "*"}:
        return replace(target, url=url, headers={}, head_url="")
    text = f"the server redirects to {told_url(url)}: another origin is not followed"
    text += f" unless storage_options={{'allow_redirects_to': [{there!r}]}} says so"
    region = answer.headers.get("x-amz-bucket-region")
    if region:
        text = f"the bucket is in region {region}: give storage_options="
        text += f"{{'client_kwargs': {{'region_name': {region!r}}}}}"
    raise remote_error(errno.EXDEV, text, target.where)


def _origin(url: str) -> str:
    parts = urlsplit(url)
    host = (parts.hostname or "") if ":" not in (parts.hostname or "") else f"[{parts.hostname}]"
    usual = {"http": 80, "https": 443}.get(parts.scheme)
    port = parts.port or usual
    return f"{parts.scheme}://{host}" + ("" if port == usual else f":{port}")


def _refusal(answer: Answer, target: Target) -> Exception:
    why = ""
    body = answer.read(1 << 16) if answer.length else b""
    found = re.search(rb"<Code>(\w+)</Code>", body)
    if found is not None:
        why = found[1].decode()
        if why in EXPIRED:
            why = f"{why}: the credentials are no longer valid; get new ones"
            return refused(target.where, why)
    if answer.status == 404 and why == "NoSuchBucket":
        return missing_bucket(target.where)
    if answer.status in (404, 410):
        return missing(target.where)
    wait_s = retry_after(answer.headers.get("Retry-After"))
    return of_status(answer.status, target.where, why=why, retry_after_s=wait_s)


def missing_bucket(where: str) -> Exception:
    """There is not even the place where it should be."""
    error = missing(where)
    return type(error)(errno.ENOENT, "there is no such bucket: look at the url's name", where)


def _disagrees(target: Target, what: str) -> RemoteError:
    text = f"the server contradicts itself: {what}"
    return remote_error(errno.EPROTO, text, target.where, transient=True)


def _encoded(answer: Answer) -> bool:
    return answer.headers.get("Content-Encoding", "identity").lower() not in ("identity", "")


def _size(headers: Mapping[str, str], *, told_only: bool = False) -> int | None:
    """Of the whole object; ``told_only`` where the body is something else."""
    told = headers.get("Content-Range", "" if told_only else None)
    text = told.rpartition("/")[2] if told is not None else headers.get("Content-Length", "")
    return int(text) if text.isascii() and text.isdigit() else None


def _tell_once(target: Target) -> None:
    origin = _origin(target.url)
    if origin not in _told_of:
        _told_of.add(origin)
        _log.warning("%s sends whole objects where ranges are asked for: slow", origin)
