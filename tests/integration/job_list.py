"""Reads a workflow's whole list of jobs, keeps what an attempt may have started, and prints idle and peak memory in KB.

Started by `test_scale.py` in a process of its own.
"""

import sys
from unittest.mock import Mock

from local.function_process import peak_kb
from workflow_trigger.adapters.unstructured.api_key import ApiKey
from workflow_trigger.adapters.unstructured.client import PlatformClient
from workflow_trigger.adapters.unstructured.connections import Connections
from workflow_trigger.domain.clock import Clock, Deadline
from workflow_trigger.domain.matching import candidates
from workflow_trigger.domain.model import Attempt


def main(url: str, workflow_id: str) -> None:
    """Read it once to warm up from an empty list, then in earnest."""
    key = ApiKey(Mock(get_secret_value=lambda **_: {"SecretString": "local-key"}), "arn")
    deadline = Deadline.in_seconds(Clock(), 900)
    client = PlatformClient(api_url=url, api_key=key, connections=Connections(url), deadline=deadline)
    client.look(workflow_id)
    idle = peak_kb()
    attempt = Attempt(id="a", documents={}, started_at="", first_look_at="2026-01-01T00:00:00Z")
    found = candidates(client.jobs(workflow_id), attempt, ())
    print(idle, peak_kb(), len(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
