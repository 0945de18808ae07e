"""What a run says of the machine and the code that it was made with."""

import subprocess
from pathlib import Path

import pytest

from flowbench.workflows.environment import describe_versions, source_commit

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="the tests do not run in a checkout")
def test_the_commit_is_that_of_the_checkout() -> None:
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert source_commit() == head.stdout.strip()


def test_a_package_that_is_not_installed_is_said_not_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowbench.workflows.environment.PACKAGES", ("numpy", "no-such-package"))
    versions = describe_versions()
    assert versions["no-such-package"] == "not installed"
    assert versions["numpy"][0].isdigit()
