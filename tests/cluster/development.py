"""The development cluster: `python -m tests.cluster up [DIR]`, or `make cluster`. As root; it stays until ^C.

A control plane and a real node in a box, agent-sandbox, an S3 server, vibeD's images and its chart, installed by Helm
as a platform team would, with gVisor as the runtime of apps. What visitors and kubectl need is forwarded to loopback.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster import binaries, node
from tests.cluster.box import REPOSITORY, Box, cannot
from tests.cluster.processes import ClusterFailed, Processes
from tests.cluster.small_images import small_images
from tests.prepare import home

IMAGES = ("vibed", "vibed-caddy", "static-nginx", "workerd", "python-313", "node-24")
RELEASE_NAMESPACE = "vibed"
LISTEN = "127.0.0.1:18080"
API_LISTEN = "127.0.0.1:16443"
BUCKET = "vibed"
_S3_PORT = 7480
_CHART = REPOSITORY / "deploy" / "helm" / "vibed"
