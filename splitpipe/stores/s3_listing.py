"""A page of a listing of S3's.

Responsible for: `parsed_listing`.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from urllib.parse import unquote_plus
from xml.etree import ElementTree

from splitpipe.stores.base import ObjectStat
from splitpipe.stores.failures import remote_error

__all__ = ["Page", "parsed_listing"]


@dataclass(frozen=True, slots=True)
class Page:
    """What one answer lists.

    Attributes:
        objects: keys with what is known of them, in order.
        following: what to ask with for the next page; ``None`` if there is none.
    """

    objects: list[tuple[str, ObjectStat]]
    following: str | None


def parsed_listing(data: bytes, where: str) -> Page:
    """The page that an answer to ``ListObjectsV2`` holds.

    Raises:
        RemoteError: it is no such answer.

    Example:
        >>> entry = b"<Contents><Key>a</Key><Size>5</Size><ETag>x</ETag></Contents>"
        >>> page = b"<ListBucketResult>" + entry + b"</ListBucketResult>"
        >>> parsed_listing(page, "s3://bucket/").objects
        [('a', ObjectStat(size=5, tag='x'))]
    """
    try:
        root = ElementTree.fromstring(data)
        space = root.tag.removesuffix("ListBucketResult")
        if space == root.tag:
            raise ValueError(f"it begins with {root.tag}")
        encoded = root.findtext(f"{space}EncodingType") == "url"
        objects = []
        for entry in root.iterfind(f"{space}Contents"):
            key = entry.findtext(f"{space}Key") or ""
            stat = ObjectStat(
                int(entry.findtext(f"{space}Size") or ""), entry.findtext(f"{space}ETag")
            )
            objects.append((unquote_plus(key) if encoded else key, stat))
        more = root.findtext(f"{space}IsTruncated") == "true"
        following = root.findtext(f"{space}NextContinuationToken") if more else None
        if more and not following:
            raise ValueError("it says that there is more, and not where")
    except (ElementTree.ParseError, ValueError) as error:
        text = f"the server lists what it has in a way that is not understood: {error}"
        raise remote_error(errno.EPROTO, text, where, transient=True) from error
    return Page(objects, following)
