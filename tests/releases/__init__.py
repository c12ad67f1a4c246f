"""The templates that were released: what an update may begin with."""

from pathlib import Path

RELEASES = sorted(Path(__file__).parent.glob("*.yaml"))
