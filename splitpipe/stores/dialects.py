"""What fsspec's packages do each in a way of their own.

Responsible for: `Dialect`, by which `FilesystemStore` asks one of them; `dialect_of` a scheme.

Rules:
- what names a version is what the service itself compares: a generation at Google's, an ETag at
  Azure's, the hash of the content at Hugging Face's;
- nothing is answered from what a package remembers: what is there now is what counts;
- a condition is part of the one request that writes, never a look beforehand.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

from splitpipe.stores.base import ABSENT

__all__ = ["Dialect", "dialect_of", "is_lost"]

_TAGS: Final = ("ETag", "etag", "e_tag", "generation", "md5Hash", "content_md5")

# Classes of the packages' errors, or of what they are made of: the connection, and not the object.
_LOST: Final = frozenset(
    {
        "ChunkedEncodingError",  # requests
        "ClientConnectionError",  # aiohttp
        "ClientPayloadError",
        "ConnectionError",  # Python and requests
        "EOFError",
        "IncompleteReadError",  # azure.core
        "ServiceRequestError",
        "ServiceResponseError",
        "TransportError",  # httpx and google.auth
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How one package is asked.

    Attributes:
        tags: the fields of ``info`` that name a version; the first that is there does.
        looking: what ``info`` needs so that it looks, instead of remembering.
        remembers: ``find`` leaves something behind that ``info`` then believes.
    """

    tags: tuple[str, ...] = _TAGS
    looking: Mapping[str, Any] = field(default_factory=dict)
    remembers: bool = False

    @property
    def pins(self) -> bool:
        """Whether a range of one version can be asked for."""
        return False

    def begin(self, url: str, options: Mapping[str, Any]) -> tuple[Any, str]:
        """A file system of nobody else's, and the path of a url in it."""
        import fsspec

        made: tuple[Any, str] = fsspec.core.url_to_fs(url, skip_instance_cache=True, **options)
        return made

    def reading(self, stop: int) -> dict[str, Any]:
        """Options of ``cat_file`` for bytes up to ``stop``."""
        return {}

    def fetching(self, filesystem: Any, path: str, start: int, stop: int, tag: str) -> Any:
        """A coroutine for a range of one version, where one can be asked for; else ``None``."""
        return None

    def lister(self, filesystem: Any) -> Any:
        """The file system whose ``find`` is asked."""
        if not self.remembers:
            return filesystem
        options = {**filesystem.storage_options, "skip_instance_cache": True}
        return type(filesystem)(**options)

    def writing(self, expected: str) -> dict[str, Any] | None:
        """Options of ``pipe_file`` that make a condition; ``None`` if there are none."""
        return None

    def uploading(self, filesystem: Any, path: str, data: bytes, expected: str | None) -> Any:
        """A coroutine that writes, where ``pipe_file`` is not good enough; else ``None``."""
        return None


class _Google(Dialect):
    """Google's, by gcsfs: a generation can be asked for, and is what conditions are about.

    Its plain class is used. The one that it gives to fsspec asks by gRPC what kind of bucket there
    is, again and again where it is not told; gRPC does not outlive a fork, and no other server than
    Google's answers it.
    """

    __slots__ = ()

    def begin(self, url: str, options: Mapping[str, Any]) -> tuple[Any, str]:
        plain = importlib.import_module("gcsfs.core").GCSFileSystem
        return plain(skip_instance_cache=True, **options), plain._strip_protocol(url)

    @property
    def pins(self) -> bool:
        return True

    def fetching(self, filesystem: Any, path: str, start: int, stop: int, tag: str) -> Any:
        return self._fetched(filesystem, path, start, stop, tag)

    async def _fetched(self, filesystem: Any, path: str, start: int, stop: int, tag: str) -> bytes:
        _, data = await filesystem._call(
            "GET",
            filesystem.url(path),
            headers={"Range": f"bytes={start}-{stop - 1}"},
            ifGenerationMatch=tag,
        )
        return bytes(data)

    def uploading(self, filesystem: Any, path: str, data: bytes, expected: str | None) -> Any:
        """One request whose body is the object.

        ``pipe_file`` puts the bytes between lines of a boundary that is always the same, which may
        be among them, and knows no other condition than that there is nothing yet.
        """
        bucket, key, _ = filesystem.split_path(path)
        more = {} if expected is None else {"ifGenerationMatch": expected or "0"}
        return filesystem._call(
            "POST",
            f"{filesystem._location}/upload/storage/v1/b/{quote(bucket)}/o",
            uploadType="media",
            name=key,
            headers={"Content-Type": "application/octet-stream"},
            data=data or None,  # nothing at all is sent with its length, and not in chunks
            json_out=True,
            **more,
        )


class _Azure(Dialect):
    """Azure's, by adlfs: what it does not know it hands to the client of Azure's own."""

    __slots__ = ()

    def writing(self, expected: str) -> dict[str, Any] | None:
        if expected == ABSENT:
            return {"mode": "create"}
        from azure.core import MatchConditions

        return {"etag": expected, "match_condition": MatchConditions.IfNotModified}


class _HuggingFace(Dialect):
    """Hugging Face's: it remembers folders for ever, and reads 5 MiB ahead of any range."""

    __slots__ = ()

    def reading(self, stop: int) -> dict[str, Any]:
        # A size that is told is not asked for, and nothing behind ``stop`` is read.
        return {"cache_type": "none", "size": stop}


_PLAIN: Final = Dialect()
_GOOGLE: Final = _Google(tags=("generation",))
_AZURE: Final = _Azure(tags=("etag",))
_HUB: Final = _HuggingFace(
    tags=("blob_id", "xet_hash"),
    looking={"refresh": True, "expand_info": True},
    remembers=True,
)
_DIALECTS: Final = {
    "gs": _GOOGLE,
    "gcs": _GOOGLE,
    "az": _AZURE,
    "abfs": _AZURE,
    "abfss": _AZURE,
    "hf": _HUB,
}


def dialect_of(scheme: str) -> Dialect:
    """How the package of a scheme is asked.

    Example:
        >>> dialect_of("gs").tags, dialect_of("memory").writing("")
        (('generation',), None)
    """
    return _DIALECTS.get(scheme, _PLAIN)


def is_lost(error: BaseException) -> bool:
    """Whether an error of a package's is about the connection.

    Example:
        >>> is_lost(ConnectionResetError()), is_lost(ValueError())
        (True, False)
    """
    return any(kind.__name__ in _LOST for kind in type(error).__mro__)
