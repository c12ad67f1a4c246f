"""The platform's API key: in Secrets Manager and in memory, nowhere else."""

import json
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from workflow_trigger.domain.errors import KeyNotSet, NotSent, SecretUnusable

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

_SHORTEST_SECRET = 8
_AROUND = "\ufeff\"' \t\r\n"  # a key: what files and shells leave there
_DENIED = {"AccessDenied", "AccessDeniedException", "DecryptionFailure", "InvalidRequestException"}


class ApiKey:
    """Read when first needed, kept while the function lives, read again when the platform does not accept it."""

    def __init__(self, client: "SecretsManagerClient", secret_arn: str) -> None:
        self._client = client
        self._secret_arn = secret_arn
        self._value: str | None = None
        self._used: frozenset[str] = frozenset()

    def value(self) -> str:
        """The key.

        Raises:
            KeyNotSet: the secret is empty, or holds what cannot be a key.
            SecretUnusable: the function is not allowed to read it. NotSent: Secrets Manager did not answer.
        """
        value = self._value or self._read()  # another thread may invalidate it at any moment
        self._value = value
        return value

    def redact(self, content: bytes) -> bytes:
        """An answer without any key that was ever used. Asks nobody: a request may have been sent by now."""
        for key in filter(_is_secret, self._used):
            content = content.replace(key.encode(), b"***")
        return content

    def invalidate(self) -> None:
        """Read it anew the next time: it may have been rotated."""
        self._value = None

    def _read(self) -> str:
        text = read_secret(self._client, self._secret_arn, "The API key")
        key = key_in(text)
        if not key:
            raise KeyNotSet(
                "No usable API key is set. Set it with: aws secretsmanager put-secret-value"
                f"{_region(self._secret_arn)} --secret-id {self._secret_arn} --secret-string YOUR_KEY"
            )
        self._used |= {key}
        return key


def _is_secret(key: str) -> bool:
    """What is shorter than a word is no secret, and would be found in any answer."""
    return len(key) >= _SHORTEST_SECRET


def read_secret(client: "SecretsManagerClient", secret_arn: str, what: str) -> str:
    """The text of a secret; '' where there is none.

    Raises:
        SecretUnusable: the function is not allowed to read it. NotSent: Secrets Manager did not answer.
    """
    try:
        found = client.get_secret_value(SecretId=secret_arn)
        return found.get("SecretString") or found.get("SecretBinary", b"").decode("utf-8", "replace")
    except client.exceptions.ResourceNotFoundException:
        return ""
    except ClientError as error:
        code = error.response["Error"]["Code"]
        kind = SecretUnusable if code in _DENIED else NotSent
        raise kind(f"{what} could not be read from {secret_arn}: {code}") from error
    except BotoCoreError as error:
        raise NotSent(f"Secrets Manager did not answer: {type(error).__name__}") from error


def key_in(secret: str) -> str:
    """The key in a secret's text: the text itself, or the one field of a JSON object; '' where it can be neither."""
    text = secret.strip(_AROUND)
    if text.startswith("{"):
        try:
            fields = json.loads(text)
        except ValueError:
            return ""
        values = list(fields.values())
        text = values[0].strip(_AROUND) if len(values) == 1 and isinstance(values[0], str) else ""
    usable = text.isascii() and text.isprintable() and " " not in text
    return text if usable else ""


def _region(arn: str) -> str:
    """The option of the command line that names the region of an ARN."""
    parts = arn.split(":")
    return f" --region {parts[3]}" if len(parts) > 3 else ""
