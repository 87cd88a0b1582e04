"""What vibeD asks of a kernel, under the kernel that Debian ships and with cgroup v2.

Kernels differ in what they allow, not in what they document: one that is newer than every release's let a detached
mount be cloned, and nothing that ran here noticed that Debian's and Ubuntu's refuse it.
"""

from __future__ import annotations

import pytest

from tests.kernels import guest
from tests.kernels.conftest import Guests

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]


def test_a_sandbox_is_as_confined_there(guests: Guests) -> None:
    done = guests.confinement()
    assert done.status == 0, done.output
    assert guest.debian_kernel().version in done.output, "another kernel than the one that was meant"
    assert "--- PASS: TestEverythingDangerousIsRefused" in done.output
    assert "--- SKIP" not in done.output, done.output


def test_control_groups_of_version_2_bound_count_and_end(guests: Guests) -> None:
    done = guests.control_groups()
    assert done.status == 0, done.output
    assert " passed" in done.output and "skipped" not in done.output, done.output
