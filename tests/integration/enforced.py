"""A deployed stack whose roles, users and policies are enforced, over TLS, as AWS does it."""

import contextlib
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from local.fake_platform.app import serving
from local.fake_platform.state import Behaviour, PlatformState
from local.stack import Deployed, deploy, ministack


@contextlib.contextmanager
def enforced_stack(
    package: Path, behaviour: Behaviour, parameters: dict[str, str]
) -> Iterator[tuple[Deployed, PlatformState]]:
    """The stack, and the platform that it calls. This process trusts their certificates meanwhile."""
    with tempfile.TemporaryDirectory(prefix="enforced-") as folder, pytest.MonkeyPatch.context() as patch:
        authority = trustme.CA()
        certificate = authority.issue_cert("127.0.0.1", "localhost")
        bundle, chain, key = (Path(folder, name) for name in ("ca.pem", "chain.pem", "key.pem"))
        authority.cert_pem.write_to_path(str(bundle))
        certificate.private_key_pem.write_to_path(str(key))
        chain.write_bytes(b"".join(each.bytes() for each in certificate.cert_chain_pems))
        patch.setenv("AWS_CA_BUNDLE", str(bundle))
        options = {
            "AUTH": "true",
            "USE_SSL": "1",
            "MINISTACK_SSL_CERT": str(chain),
            "MINISTACK_SSL_KEY": str(key),
            "AWS_CA_BUNDLE": str(bundle),
        }
        state = PlatformState(Path(folder), behaviour)
        with ministack(options=options, ca_bundle=bundle) as aws, serving(state, tls=(chain, key)) as url:
            secret = aws.client("secretsmanager").create_secret(Name="authority", SecretString=bundle.read_text())
            given = {"WorkflowIds": str(uuid.uuid4()), "UnstructuredApiUrl": url, "CaBundleSecretArn": secret["ARN"]}
            stack = deploy(package, aws, given | parameters)
            stack.set_key(behaviour.api_key)
            yield stack, state
