"""Objects in S3, Google Cloud Storage and Azure, by the few methods of `pathlib.Path` that a lake needs.

- An object appears whole or not at all, so what a rename and fsync do in a folder is one PUT here. Parts of a large
  one that was cut short are never seen; the bucket's own rule for unfinished uploads removes them.
- Folders do not exist: there is one where an object's name says so.
- Lance and this module reach a store with the same library (object_store) and the same options: names such as
  `aws_endpoint`, `aws_access_key_id` or `google_service_account`, which in upper case are environment variables. What
  is given overrules the environment, stays in memory, and reaches child processes through their environment alone.
- `TIMES` bounds every request. What fails for a moment is tried again; what goes on failing is a StorageError, one
  line that names the server, whoever met it: Lance's own errors are told by `storage_error`.
"""

import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from proponent.observe.events import count, tell
from proponent.schema.errors import LakeError, SettingsError, StorageError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

SCHEMES: Final = {"s3": "S3Store", "gs": "GCSStore", "az": "AzureStore"}
"""Object stores, by how their URLs begin, with what the library calls them."""
_EXTRAS: Final = {"s3": "s3", "gs": "gcs", "az": "azure"}
TIMES: Final = {
    "connect_timeout": "5s",
    "timeout": "60s",
    "client_max_retries": "10",
    "client_retry_timeout": "60",
}
"""How long a connection and a request may take, how often a request is tried again, and for how many seconds."""
_CLIENT: Final = ("allow_http", "allow_invalid_certificates", "connect_timeout", "timeout", "proxy_url", "user_agent")
"""Options of the connection, whatever the store is."""
_log = logging.getLogger(__name__)
_ENDPOINTS: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_CHUNK: Final = 4 << 20
_FAILED: Final = re.compile(r"Generic (?:S3|GCS|MicrosoftAzure) error|Error performing [A-Z]+ https?://")
_SERVER: Final = re.compile(r"(https?://)(?:[^/\s\"?]*@)?([^/\s\"?@]+)")
"""A server's address, in two parts between which a name and a password may stand."""
_TRIED: Final = re.compile(r"(?: in [\d.]+\S*s| after \d+ retries)[^-]* - (?P<why>.*)", re.DOTALL)


class Stat(NamedTuple):
    """What is known of an object."""

    st_size: int


class _Bucket:
    """A bucket, with the options that reach it."""

    def __init__(self, scheme: str, name: str, options: Mapping[str, str]) -> None:
        self.scheme = scheme
        self.name = name
        self.options = dict(options)

    @cached_property
    def lance_options(self) -> dict[str, str]:
        """What Lance needs to know beside the environment."""
        return TIMES | (_endpoint(self.options) if self.scheme == "s3" else {}) | self.options

    @cached_property
    def store(self) -> "ObjectStore":
        """The library's own object."""
        try:
            from obstore import store
        except ModuleNotFoundError as error:
            raise LakeError(
                f"lakes in object stores need obstore; pip install 'proponent[{_EXTRAS[self.scheme]}]'"
            ) from error
        given = dict(self.lance_options)
        try:
            retries = {
                "max_retries": int(given.pop("client_max_retries")),
                "retry_timeout": timedelta(seconds=float(given.pop("client_retry_timeout").removesuffix("s"))),
            }
        except ValueError as error:
            raise SettingsError("client_max_retries and client_retry_timeout are numbers, as in 10 and 60s") from error
        client = {name: given.pop(name) for name in _CLIENT if name in given}
        more = {"credential_provider": found} if (found := _profile(self.scheme, given)) else {}
        try:
            make = getattr(store, SCHEMES[self.scheme])
            made: ObjectStore = make(self.name, config=given, client_options=client, retry_config=retries, **more)
        except Exception as error:
            raise SettingsError(f"{self.scheme}://{self.name}: {str(error).splitlines()[0]}") from error
        return made


def _endpoint(options: Mapping[str, str]) -> dict[str, str]:
    """Return options for the endpoint that people name, in a newer variable or without encryption."""
    named = [options.get(name.lower()) or os.environ.get(name) for name in _ENDPOINTS]
    url = next((one for one in named if one), None)
    given = {} if any(name.lower() in options for name in _ENDPOINTS) or url is None else {"aws_endpoint": url}
    return given | ({"allow_http": "true"} if (url or "").startswith("http://") else {})


def _profile(scheme: str, options: Mapping[str, str]) -> Any:
    """Return what finds credentials in AWS's own files, where neither options nor variables give any."""
    names = ("AWS_ACCESS_KEY_ID", "AWS_SKIP_SIGNATURE", "AWS_WEB_IDENTITY_TOKEN_FILE")
    if scheme != "s3" or any(name in os.environ or name.lower() in options for name in names):
        return None
    with suppress(ModuleNotFoundError):
        import botocore.session

        if (found := botocore.session.get_session().get_credentials()) is not None:

            def credentials() -> dict[str, Any]:
                now = found.get_frozen_credentials()
                soon = datetime.now(UTC) + timedelta(minutes=5) if found.token else None
                known = {"access_key_id": now.access_key, "secret_access_key": now.secret_key, "token": now.token}
                return known | {"expires_at": soon}

            return credentials
    return None


class ObjectPath:
    """A place in an object store: an object, or the beginning of the names of some."""

    def __init__(self, bucket: _Bucket, key: str) -> None:
        self._bucket = bucket
        self._key = PurePosixPath(key)

    def __truediv__(self, name: object) -> "ObjectPath":
        return ObjectPath(self._bucket, str(self._key / str(name)))

    def __str__(self) -> str:
        return f"{self._bucket.scheme}://{self._bucket.name}" + (f"/{self.key}" if self.key else "")

    def __repr__(self) -> str:
        return f"ObjectPath('{self}')"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectPath) and str(self) == str(other)

    def __lt__(self, other: "ObjectPath") -> bool:
        return str(self) < str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    @property
    def key(self) -> str:
        """The name in the bucket."""
        return "" if str(self._key) == "." else str(self._key)

    @property
    def name(self) -> str:
        """The last part of the name; the bucket's, when that is all."""
        return self._key.name or self._bucket.name

    def resolve(self) -> "ObjectPath":
        """Return itself: nothing in an object store leads to another place."""
        return self

    @property
    def parent(self) -> "ObjectPath":
        """What it lies in."""
        return ObjectPath(self._bucket, str(self._key.parent))

    @property
    def options(self) -> dict[str, str]:
        """Options of the store for Lance, secrets among them."""
        return self._bucket.lance_options

    @property
    def given(self) -> dict[str, str]:
        """Options that it was given, beside the environment."""
        return dict(self._bucket.options)

    def relative_to(self, other: "ObjectPath") -> PurePosixPath:
        """Return the way from there to here."""
        return self._key.relative_to(other._key)

    def is_file(self) -> bool:
        """Return whether there is such an object."""
        with suppress(FileNotFoundError):
            self.stat()
            return True
        return False

    def is_dir(self) -> bool:
        """Return whether there is any object whose name begins with this."""
        with _asking():
            return any(self._pages(1))

    def exists(self) -> bool:
        """Return whether there is anything here."""
        return self.is_dir() or bool(self.key and self.is_file())

    def stat(self) -> Stat:
        """Return the object's size. Raises FileNotFoundError."""
        import obstore

        with _asking():
            return Stat(obstore.head(self._bucket.store, self.key)["size"])

    def read_bytes(self) -> bytes:
        """Return what is in the object. Raises FileNotFoundError."""
        return b"".join(self.chunks())

    def chunks(self) -> Iterator[bytes]:
        """Yield what is in the object, some bytes at a time."""
        import obstore

        with _asking():
            for chunk in obstore.get(self._bucket.store, self.key).stream(min_chunk_size=_CHUNK):
                yield bytes(chunk)

    def write_bytes(self, data: bytes) -> None:
        """Write an object, which takes the place of one that is there when it is whole."""
        import obstore

        with _asking():
            obstore.put(self._bucket.store, self.key, data, mode="overwrite")

    def upload(self, source: Path) -> None:
        """Write an object of a file, in several parts if it is large."""
        import obstore

        with _asking(), source.open("rb") as file:
            obstore.put(self._bucket.store, self.key, file, mode="overwrite")

    def unlink(self, *, missing_ok: bool = True) -> None:
        """Remove the object; stores do not say whether there was one."""
        import obstore

        assert missing_ok
        with _asking(), suppress(FileNotFoundError):
            obstore.delete(self._bucket.store, self.key)

    def remove_all(self) -> None:
        """Remove all objects whose names begin with this."""
        import obstore

        with _asking():
            for some in self._pages(1000):
                with suppress(FileNotFoundError):
                    obstore.delete(self._bucket.store, [one["path"] for one in some])
            if self.key:
                with suppress(FileNotFoundError):
                    obstore.delete(self._bucket.store, self.key)

    def sizes(self) -> dict[str, int]:
        """Return the sizes of the objects below, by their names from here."""
        start = len(self.key) + 1 if self.key else 0
        with _asking():
            return {one["path"][start:]: one["size"] for some in self._pages(1000) for one in some}

    def entries(self) -> list[str]:
        """Return the names directly below, of objects and of what would be folders."""
        import obstore

        with _asking():
            found = obstore.list_with_delimiter(self._bucket.store, self.key or None)
        names = [PurePosixPath(one["path"]).name for one in found["objects"]]
        # Some servers keep folders of their own, which stay when they are empty.
        folders = [PurePosixPath(prefix).name for prefix in found["common_prefixes"]]
        return sorted(names + [name for name in folders if (self / name).is_dir()])

    def _pages(self, size: int) -> Iterator[Any]:
        import obstore

        yield from obstore.list(self._bucket.store, self.key or None, chunk_size=size)


def object_path(url: str, options: Mapping[str, str]) -> ObjectPath | None:
    """Return a place in an object store, which options reach; None for what is no URL.

    Raises SettingsError for a URL of something else.
    """
    scheme, name, key = _split(url)
    if scheme is None:
        return None
    return ObjectPath(_Bucket(scheme, name, {key.lower(): str(value) for key, value in options.items()}), key)


def _split(url: str) -> tuple[str | None, str, str]:
    """Return a URL's scheme, bucket and key; None for what is no URL."""
    match = re.fullmatch(r"([A-Za-z][A-Za-z0-9+.-]+)://([^/]*)/*(.*?)/*", url, re.DOTALL)
    if match is None:
        return None, "", url
    scheme, name, key = match[1].lower(), match[2], match[3]
    scheme = {"s3a": "s3", "gcs": "gs", "abfs": "az"}.get(scheme, scheme)
    if scheme not in SCHEMES:
        raise SettingsError(f"{url}: a lake is a folder, or lies at s3://, gs:// or az://, not at {scheme}://")
    if not name or "@" in name:
        raise SettingsError(f"{scheme}:// must be followed by a bucket's name and a prefix, as in s3://bucket/lake")
    return scheme, name, key


@contextmanager
def _asking() -> Iterator[None]:
    """Name what a store cannot help; that an object is not there is for the caller."""
    try:
        yield
    except (FileNotFoundError, StorageError):
        raise
    except Exception as error:
        raise storage_error(error) or error from error


def storage_error(error: BaseException) -> StorageError | None:
    """Return a StorageError for an error of an object store, whether Lance or this module met it; None for others."""
    if isinstance(error, StorageError):
        return error
    told = str(error)
    if "404 Not Found" in told and "NoSuchBucket" not in told:  # the store answers: an object is not there
        return None
    if not _FAILED.search(told) and not type(error).__module__.startswith("obstore"):
        return None
    server = _SERVER.search(told)
    why = _TRIED.search(told)
    reason = _plain(why["why"] if why else told)
    where = server[1] + server[2] if server else "its address"
    tell(_log, "object store cannot be used", store=where)
    count("storage_failures")
    return StorageError(
        f"the object store at {where} cannot be used: {reason}; see that it runs and "
        "that its address and credentials are right, then start again"
    )


def _plain(told: str) -> str:
    """Return what a server or the library said, without markup and without places in source code."""
    first = told.split("\n", maxsplit=1)[0].split(", /", maxsplit=1)[0]
    code = re.search(r"<Code>(\w+)</Code>", told)
    return (first.split(": <")[0].strip().rstrip(":") + (f" ({code[1]})" if code else ""))[:200]
