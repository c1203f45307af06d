"""A client of the Kubernetes API: JSON objects as dicts, one call a request, every call bounded in time.

Nothing is retried here: who calls knows what a lost reply means for it. A call may be made from any thread. Tokens
and certificates in files are read again when the files change (a pod's token is replaced every hour).
https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

import json
import os
import ssl
import tempfile
import time
from base64 import b64decode
from collections.abc import Iterator, Mapping
from copy import copy
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote, urlencode, urlsplit

import urllib3
from urllib3.exceptions import HTTPError
from urllib3.util import Timeout

from flowagg.errors import FlowaggError

Object = dict[str, Any]
"""An object of the API as its JSON says it."""

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds its token and the API server's CA certificate."""
_CONNECTIONS: Final = 8  # that are kept for the next call
_MAX_REPLY_BYTES: Final = 64 * 2**20
_CHUNK_BYTES: Final = 64 * 1024
_PAGE: Final = 500  # objects of a list in one reply
_WATCH_GRACE_SECONDS: Final = 5.0  # the API server ends a watch by itself; past this it is taken for dead
_JSON: Final = "application/json"


class KubernetesError(FlowaggError):
    """The API server did not do what it was asked to. status: of HTTP, 0 without an answer; reason: its own word."""

    def __init__(self, message: str, status: int = 0, reason: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class Unreachable(KubernetesError):
    """No answer in time, or one that says to try again later (429, 5xx). A change may have been made all the same."""


class Forbidden(KubernetesError):
    """The API server knows who asks and refuses (403): a Role lacks a rule."""


class Unauthorized(Forbidden):
    """The API server does not know who asks (401): the token or certificate is not valid, or no longer."""


class NotFound(KubernetesError):
    """There is no such object, or no such kind (404)."""


class Conflict(KubernetesError):
    """The object changed meanwhile, or another field manager owns a field (409)."""


class AlreadyExists(Conflict):
    """An object of this name is there already (409)."""


class Gone(KubernetesError):
    """The resource version is too old to watch from (410): list anew."""


class Invalid(KubernetesError):
    """The object breaks a rule of its schema or of admission (400, 422, ...); the text names field and rule."""


class InvalidKubeconfig(FlowaggError):
    """There is no usable way to the API server: a kubeconfig or a pod's files are missing or hold what is not known."""


def path(api_version: str, plural: str, namespace: str | None = None, name: str = "", subresource: str = "") -> str:
    """An object's path, or without a name its collection's. namespace None: of the whole cluster.

    >>> path("apps/v1", "deployments", "main", "writer", "scale")
    '/apis/apps/v1/namespaces/main/deployments/writer/scale'
    """
    parts = ["api" if "/" not in api_version else "apis", *api_version.split("/")]
    parts += ["namespaces", namespace] if namespace else []
    parts += [part for part in (plural, name, subresource) if part]
    return "".join("/" + quote(part, safe="") for part in parts)


class Api:
    """One API server, as one user.

    url: https://HOST:PORT, or http:// where something else encrypts. token_file wins over token. ca_file: unset, the
    system's certificates are trusted. timeout_seconds: the longest wait of a call that does not say its own, for the
    connection and for the answer each. Raises InvalidKubeconfig where a file cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        token_file: Path | None = None,
        ca_file: Path | None = None,
        context: ssl.SSLContext | None = None,
        server_name: str | None = None,
        timeout_seconds: float = 10.0,
    ) -> None:
        self.url = url.rstrip("/")
        self._token = token
        self._token_file = _Watched(token_file) if token_file else None
        self._ca_file = _Watched(ca_file) if ca_file else None
        self._context = context
        self._server_name = server_name
        self._timeout_seconds = timeout_seconds
        self._prefix = urlsplit(self.url).path
        for file in (self._token_file, self._ca_file):
            if file is not None:
                file.changed()
        self._trusted = b""  # what the connections are verified with
        self._pool = self._new_pool()

    @classmethod
    def in_cluster(
        cls, directory: Path = SERVICE_ACCOUNT, environment: Mapping[str, str] = os.environ, **options: Any
    ) -> Self:
        """The API server that a pod's environment and its mounted service account name. Raises InvalidKubeconfig."""
        try:
            host, port = environment["KUBERNETES_SERVICE_HOST"], environment["KUBERNETES_SERVICE_PORT"]
        except KeyError as missing:
            raise InvalidKubeconfig(f"{missing.args[0]} is not set: this is no pod of a Kubernetes cluster") from None
        host = f"[{host}]" if ":" in host else host
        return cls(f"https://{host}:{port}", token_file=directory / "token", ca_file=directory / "ca.crt", **options)

    @classmethod
    def from_kubeconfig(cls, file: Path, **options: Any) -> Self:
        """The API server and user of a kubeconfig's current context. Raises InvalidKubeconfig.

        Taken are client certificates, tokens and token files; exec plugins and passwords are refused. Needs PyYAML.
        """
        import yaml  # noqa: PLC0415 - a pod has no kubeconfig, and so no need of it

        try:
            config = yaml.safe_load(file.read_text(encoding="utf-8"))
            context = _named(config["contexts"], config["current-context"])["context"]
            cluster = _named(config["clusters"], context["cluster"])["cluster"]
            user = _named(config["users"], context["user"])["user"] or {}
            unknown = user.keys() - {
                *("token", "tokenFile", "client-certificate", "client-certificate-data"),
                *("client-key", "client-key-data"),
            }
            if unknown:
                raise InvalidKubeconfig(f"{file}: this way to log in is not known: {', '.join(sorted(unknown))}")
            return cls(
                cluster["server"],
                token=user.get("token"),
                token_file=file.parent / user["tokenFile"] if "tokenFile" in user else None,
                context=_context(cluster, user, file.parent),
                server_name=cluster.get("tls-server-name"),
                **options,
            )
        except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
            named = f"{error.filename}: {error.strerror}" if isinstance(error, FileNotFoundError) else repr(error)
            raise InvalidKubeconfig(f"{file}: cannot be used: {named}") from None

    def get(
        self, where: str, query: Mapping[str, str] | None = None, *, timeout_seconds: float | None = None
    ) -> Object:
        """Read one object, or a page of a list."""
        return self._call("GET", where, query, timeout_seconds=timeout_seconds)

    def list(
        self, where: str, query: Mapping[str, str] | None = None, *, timeout_seconds: float | None = None
    ) -> list[Object]:
        """All objects of a collection. Raises Gone where it changed too long ago between two pages."""
        found: list[Object] = []
        further: dict[str, str] = {"limit": str(_PAGE), **(query or {})}
        while True:
            page = self.get(where, further, timeout_seconds=timeout_seconds)
            found += page["items"]
            more = page["metadata"].get("continue")
            if not more:
                return found
            further["continue"] = more

    def create(self, where: str, body: Object, *, timeout_seconds: float | None = None) -> Object:
        """Make an object; where: its collection. Raises AlreadyExists."""
        return self._call("POST", where, None, body, timeout_seconds=timeout_seconds)

    def replace(self, where: str, body: Object, *, timeout_seconds: float | None = None) -> Object:
        """Put body in the object's place. Raises Conflict where it is not at body's resourceVersion any more."""
        return self._call("PUT", where, None, body, timeout_seconds=timeout_seconds)

    def apply(
        self,
        where: str,
        body: Object,
        *,
        field_manager: str,
        force: bool = False,
        timeout_seconds: float | None = None,
    ) -> Object:
        """Server-side apply: make the object, or set body's fields in it and own them.

        Raises Conflict where another manager owns one of the fields, unless forced.
        """
        query = {"fieldManager": field_manager, "force": "true" if force else "false"}
        return self._call("PATCH", where, query, body, "application/apply-patch+yaml", timeout_seconds)

    def merge(
        self, where: str, patch: Object, *, field_manager: str = "", timeout_seconds: float | None = None
    ) -> Object:
        """Merge patch (RFC 7386): set the fields that patch holds; null takes one away."""
        query = {"fieldManager": field_manager} if field_manager else None
        return self._call("PATCH", where, query, patch, "application/merge-patch+json", timeout_seconds)

    def delete(
        self,
        where: str,
        query: Mapping[str, str] | None = None,
        *,
        body: Object | None = None,
        timeout_seconds: float | None = None,
    ) -> Object:
        """Delete an object, or of a collection what the query selects. body: DeleteOptions."""
        return self._call("DELETE", where, query, body, timeout_seconds=timeout_seconds)

    def watch(
        self, where: str, query: Mapping[str, str] | None = None, *, version: str, seconds: float
    ) -> Iterator[Object]:
        """The events of a collection after a resource version, for about so many seconds at the longest.

        Each is {"type": "ADDED" | "MODIFIED" | "DELETED" | "BOOKMARK", "object": ...}. The API server may end a watch
        at any time. Raises Gone: list anew. Raises Unreachable where the connection breaks.
        """
        sent = {
            **(query or {}),
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(max(1, round(seconds))),
        }
        ends_at = time.monotonic() + seconds
        wait = Timeout(connect=self._timeout_seconds, read=max(1.0, seconds) + _WATCH_GRACE_SECONDS)
        response = self._send("GET", where, sent, None, _JSON, wait)
        rest = b""
        try:
            for chunk in response.stream(_CHUNK_BYTES):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    if line.strip():
                        yield self._event(line)
                if len(rest) > _MAX_REPLY_BYTES:
                    raise Unreachable(f"{self.url}: an event has more than {_MAX_REPLY_BYTES} bytes")
                if time.monotonic() > ends_at:
                    return
        except (HTTPError, OSError, ValueError) as error:
            raise Unreachable(f"{self.url}: the watch of {where} broke: {_said(error)}") from None
        finally:
            response.close()  # it may be in the middle of an event: no further call on this connection

    def on_new_connections(self) -> Self:
        """The same API server as the same user, by connections of its own: for when one may be dead."""
        other = copy(self)
        other._pool = other._new_pool()
        return other

    def _event(self, line: bytes) -> Object:
        event: Object = json.loads(line)
        if event["type"] == "ERROR":
            raise _error(int(event["object"].get("code", 500)), event["object"], "WATCH")
        return event

    def _call(
        self,
        method: str,
        where: str,
        query: Mapping[str, str] | None,
        body: Object | None = None,
        content_type: str = _JSON,
        timeout_seconds: float | None = None,
    ) -> Object:
        seconds = self._timeout_seconds if timeout_seconds is None else timeout_seconds
        response = self._send(method, where, query, body, content_type, Timeout(connect=seconds, read=seconds))
        try:
            found: Object = json.loads(self._read(response, time.monotonic() + seconds))
        except ValueError:
            raise Unreachable(f"{self.url}: {method} {where}: the answer is not JSON", response.status) from None
        return found

    def _send(
        self,
        method: str,
        where: str,
        query: Mapping[str, str] | None,
        body: Object | None,
        content_type: str,
        wait: Timeout,
    ) -> urllib3.BaseHTTPResponse:
        """The answer with its body still to read; an error's is read and raised."""
        if self._ca_file is not None and (self._ca_file.changed() or self._ca_file.content != self._trusted):
            self._pool = self._new_pool()
        headers = {"Accept": _JSON, "User-Agent": "flow-aggregator"}
        if (token := self._current_token()) is not None:
            headers["Authorization"] = f"Bearer {token}"
        if body is not None:
            headers["Content-Type"] = content_type
        try:
            response = self._pool.urlopen(
                method,
                self._prefix + where + ("?" + urlencode(query) if query else ""),
                body=None if body is None else json.dumps(body).encode(),
                headers=headers,
                timeout=wait,
                retries=False,
                redirect=False,
                preload_content=False,
            )
        except (HTTPError, OSError) as error:
            raise Unreachable(f"{self.url}: {method} {where}: {_said(error)}") from None
        if response.status < 300:
            return response
        content = self._read(response, time.monotonic() + self._timeout_seconds)
        raise _error(response.status, content, f"{method} {where}")

    def _read(self, response: urllib3.BaseHTTPResponse, deadline: float) -> bytes:
        """The whole body. An answer that dribbles is cut off at the deadline."""
        parts, size = list[bytes](), 0
        whole = False
        try:
            for part in response.stream(_CHUNK_BYTES):
                parts.append(part)
                size += len(part)
                if size > _MAX_REPLY_BYTES or time.monotonic() > deadline:
                    break
            else:
                whole = True
        except (HTTPError, OSError) as error:
            raise Unreachable(f"{self.url}: {_said(error)}", response.status) from None
        finally:
            if whole:
                response.release_conn()
            else:
                response.close()
        if not whole:
            raise Unreachable(
                f"{self.url}: an answer of more than {size} bytes did not arrive in time", response.status
            )
        return b"".join(parts)

    def _current_token(self) -> str | None:
        if self._token_file is None:
            return self._token
        self._token_file.changed()
        return self._token_file.content.decode("ascii").strip()

    def _new_pool(self) -> urllib3.HTTPConnectionPool:
        parts = urlsplit(self.url)
        if parts.hostname is None or parts.scheme not in ("http", "https"):
            raise InvalidKubeconfig(f"{self.url}: is not the address of an API server")
        if parts.scheme == "http":
            return urllib3.HTTPConnectionPool(parts.hostname, parts.port, maxsize=_CONNECTIONS)
        context = self._context
        if context is None:
            self._trusted = self._ca_file.content if self._ca_file else b""
            try:
                context = ssl.create_default_context(cadata=self._trusted.decode("ascii") or None)
            except (ssl.SSLError, ValueError) as error:
                raise InvalidKubeconfig(f"the API server's CA certificate cannot be used: {error}") from None
        return urllib3.HTTPSConnectionPool(
            parts.hostname,
            parts.port,
            maxsize=_CONNECTIONS,
            ssl_context=context,
            server_hostname=self._server_name,
            assert_hostname=self._server_name,
        )


class _Watched:
    """A file that may be replaced at any time; what was read last stays where it cannot be read."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._read: tuple[int, int] | None = None
        self.content = b""

    def changed(self) -> bool:
        """Read the file again where it was replaced. Raises InvalidKubeconfig where it was never readable."""
        try:
            found = self._file.stat()
            seen = (found.st_mtime_ns, found.st_ino)
            if seen == self._read:
                return False
            self.content = self._file.read_bytes()
        except OSError as error:
            if self._read is None:
                raise InvalidKubeconfig(f"{self._file}: cannot be read: {error.strerror}") from None
            return False
        self._read = seen
        return True


def _error(status: int, content: bytes | Object, what: str) -> KubernetesError:
    """The error that a Status object says, or the text of an answer without one."""
    said: Any = content
    if isinstance(content, bytes):
        try:
            said = json.loads(content)
        except ValueError:
            said = {"message": content[:500].decode("utf-8", "replace")}
    said = said if isinstance(said, dict) else {}
    reason = str(said.get("reason") or "")
    message = f"{what}: {said.get('message') or f'status {status}'}"
    match status:
        case 401:
            kind: type[KubernetesError] = Unauthorized
        case 403:
            kind = Forbidden
        case 404:
            kind = NotFound
        case 409:
            kind = AlreadyExists if reason == "AlreadyExists" else Conflict
        case 410:
            kind = Gone
        case _ if status in (408, 429) or status >= 500:
            kind = Unreachable
        case _:
            kind = Invalid
    return kind(message, status, reason)


def _said(error: Exception) -> str:
    """What went wrong, without urllib3's own objects in it."""
    text = str(error).split(": ", 1)[-1] if isinstance(error, HTTPError) else str(error)
    return text or type(error).__name__


def _named(entries: Any, name: str) -> Any:
    for entry in entries:
        if entry["name"] == name:
            return entry
    raise KeyError(name)


def _context(cluster: Mapping[str, Any], user: Mapping[str, Any], base: Path) -> ssl.SSLContext:
    """How TLS is spoken, from a kubeconfig's data or the files that it names."""
    ca = _data(cluster, "certificate-authority", base)
    context = ssl.create_default_context(cadata=ca.decode("ascii") if ca else None)
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    certificate, key = _data(user, "client-certificate", base), _data(user, "client-key", base)
    if certificate and key:
        # OpenSSL takes a key from a file alone.
        with tempfile.NamedTemporaryFile() as both:
            both.write(certificate + b"\n" + key)
            both.flush()
            context.load_cert_chain(both.name)
    return context


def _data(entry: Mapping[str, Any], name: str, base: Path) -> bytes | None:
    if inline := entry.get(f"{name}-data"):
        return b64decode(inline)
    return (base / entry[name]).read_bytes() if entry.get(name) else None
