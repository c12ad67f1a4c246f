"""Connections to the platform: whom they trust, and what a broken one says."""

import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError

from workflow_trigger.adapters.unstructured.api_key import read_secret
from workflow_trigger.domain.errors import SecretUnusable

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient


_STALL_SECONDS = 30  # how long the server may leave us waiting while it should be reading
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----[\sA-Za-z0-9+/=]+-----END CERTIFICATE-----")


class _HTTPConnection(HTTPConnection):
    """A connection that waits longer for a server that reads slowly than for each of the host's addresses."""

    def connect(self) -> None:
        """Connect; urllib3 would send the first request with the same timeout."""
        super().connect()
        self.sock.settimeout(_STALL_SECONDS)


class _HTTPSConnection(HTTPSConnection):
    """The same. A server may also answer and close while we send: without TLS urllib3 then reads the answer.

    Source: https://github.com/urllib3/urllib3/issues/3148
    """

    def connect(self) -> None:
        """Connect. By TLS, urllib3 sets the timeout of the socket again before it sends."""
        super().connect()
        self.timeout = _STALL_SECONDS

    def send(self, data: Any) -> None:
        """Send a part of the request."""
        try:
            super().send(data)
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
            raise BrokenPipeError from error


class _HTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


@dataclass
class Connections:
    """Connections that verify certificates and host names, follow nothing, repeat nothing, heed no proxy variable."""

    api_url: str
    ca_certificates: Callable[[], str] = str  # PEM of more authorities; asked until it gives what can be used

    @cached_property
    def kept(self) -> urllib3.PoolManager:
        """Those that live as long as the function."""
        return self.fresh()

    def distrusted(self) -> None:
        """Ask for the certificates again: those that vouch for nobody may have been corrected."""
        for each in ("kept", "_tls_context"):
            self.__dict__.pop(each, None)

    def fresh(self) -> urllib3.PoolManager:
        """New ones.

        Raises:
            SecretUnusable: the secret of a private authority cannot be read, or holds no certificates.
        """
        pool = urllib3.PoolManager(maxsize=100, retries=False, ssl_context=self._tls_context)
        pool.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
        return pool

    @cached_property
    def _tls_context(self) -> ssl.SSLContext | None:
        """Made once: it reads every authority that the machine trusts."""
        if not self.api_url.startswith("https:"):
            return None
        context = ssl.create_default_context()
        if more := self.ca_certificates():
            # Many private authorities fail the strict checks that Python 3.13 turned on, and cannot be made anew.
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
            try:
                context.load_verify_locations(cadata=more)
            except (ssl.SSLError, ValueError) as error:
                raise SecretUnusable("A certificate in the secret of CaBundleSecretArn cannot be read") from error
        return context


def ca_certificates(client: "SecretsManagerClient", secret_arn: str) -> str:
    """The certificates in a secret; '' where no secret is meant.

    Raises:
        SecretUnusable: it cannot be read, or holds none.
    """
    if not secret_arn:
        return ""
    # It may be in JSON, and have comments in any alphabet.
    text = read_secret(client, secret_arn, "The certificates of CaBundleSecretArn").replace("\\n", "\n")
    found = "\n".join(_CERTIFICATE.findall(text))
    if not found:
        said = "holds no certificates in PEM form" if text else "is not there, or empty"
        raise SecretUnusable(f"The secret {secret_arn} of CaBundleSecretArn {said}")
    return found


def is_untrusted(error: Exception) -> bool:
    """Whether a connection broke because of the server's certificate."""
    return any(isinstance(each, ssl.SSLCertVerificationError) for each in (error, error.__cause__, *error.args))


def is_unheard(error: Exception) -> bool:
    """Whether a connection broke before anything was sent."""
    return isinstance(error, NewConnectionError | ConnectTimeoutError) or is_untrusted(error)


def described(error: Exception) -> str:
    """Why a connection broke, for an operator."""
    if not is_untrusted(error):
        return str(error) if type(error) is HTTPError else type(error).__name__  # that class is raised by us alone
    return f"its certificate is not trusted; a private authority has to be in CaBundleSecretArn. ({error})"


class Throttle:
    """Until when the platform wants no questions with our key, or of one kind; shared by all threads."""

    until: datetime | None = None
