"""Where the stand-in for Ray lies."""

from pathlib import Path

FAKE_RAY = str(Path(__file__).parent / "fake_ray")
