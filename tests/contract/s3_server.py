"""A real S3 server for the tests: versitygw, which checks signatures and checksums, over a folder.

`python -m tests.prepare s3` builds it (tests.cluster.binaries).
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from tests.cluster import binaries

ACCESS_KEY, SECRET_KEY, REGION = "VIBEDTESTKEY", "vibed-test-secret", "eu-test-1"


class S3Server:
    """One server over a folder of its own, with one bucket; a context manager."""

    def __init__(self, home: Path, bucket: str = "vibed-test") -> None:
        """`home`: see `tests.prepare.home`."""
        self._program = binaries.programs(binaries.S3, home) / "versitygw"
        self.root = Path(tempfile.mkdtemp(prefix="vs3-", dir="/tmp"))
        self.bucket = bucket
        (self.root / "data" / bucket).mkdir(parents=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What a vibeD is started with that may use it."""
        return {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}

    def objects(self) -> dict[str, Path]:
        """What is in the bucket, and in which file."""
        top = self.root / "data" / self.bucket
        return {
            str(path.relative_to(top)): path
            for path in top.rglob("*")
            if path.is_file() and not path.is_relative_to(top / ".sgwtmp")
        }

    def start(self) -> None:
        """Start it, where it was ended too."""
        log = (self.root / "log").open("ab")
        self._process = subprocess.Popen(
            [
                *(str(self._program), "--access", ACCESS_KEY, "--secret", SECRET_KEY, "--region", REGION),
                *("--port", f"127.0.0.1:{self.port}", "posix", str(self.root / "data")),
            ],
            stdout=log,
            stderr=log,
            cwd=self.root,
        )
        log.close()
        until = time.monotonic() + 30
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            if self._process.poll() is not None or time.monotonic() > until:
                raise AssertionError(f"the S3 server does not start: {(self.root / 'log').read_text()[-2000:]}")
            time.sleep(0.02)

    def kill(self) -> None:
        """End it in the middle of what it does."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def __enter__(self) -> S3Server:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self.root, ignore_errors=True)
