"""A plugin of pytest (``-p gpu_pytest``): every test's outcome is a line of the file that MGA_TEST_RECORD names.

It is written when the test ends, so that tests which were cut short leave what was known of the others.
"""

from __future__ import annotations

import json
import os

import pytest

LONGEST = 300  # characters of a reason


class Recorder:
    def __init__(self, path: str):
        self.path = path

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Of the call, and of what kept a test from being called."""
        if report.when != "call" and report.passed:
            return
        lines = [line for line in str(report.longrepr or "").splitlines() if line.startswith("E ")]
        told = lines[0][1:].strip() if lines else str(report.longrepr or "").strip().split("\n")[-1]
        line = {"name": report.nodeid, "outcome": report.outcome, "told": told[:LONGEST]}
        with open(self.path, "a") as record:
            record.write(json.dumps(line) + "\n")


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # of several processes it is their parent that hears of all
        config.pluginmanager.register(Recorder(os.environ["MGA_TEST_RECORD"]))
