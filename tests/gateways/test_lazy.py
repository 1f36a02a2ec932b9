"""A gateway's module is imported on the first request that needs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from outfeed.store.database import Database

ROOT = Path(__file__).parents[2]
ALWAYS = {"outfeed.gateways", *(f"outfeed.gateways.{name}" for name in ("feature", "api", "agents", "pages"))}


def test_a_server_without_incoming_requests_loads_no_gateway(database: Database) -> None:
    code = (
        "import sys\nfrom outfeed import config\nfrom outfeed.http.app import create_app\n"
        "from outfeed.feature import registered\n"
        "for feature in registered(): feature.check(config.load())\n"
        "app = create_app(config.load())\nclient = app.test_client()\n"
        "def loaded(): return {name for name in sys.modules if name.startswith('outfeed.gateways')}\n"
        "client.get('/healthz')\nclient.get('/api/openapi.json')\nclient.post('/in/backups', data='x')\n"
        "print(*loaded())\nclient.post('/in/at/unknown', data='x')\nprint(*loaded())"
    )
    before, after = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).splitlines()

    assert set(before.split()) == ALWAYS
    assert "outfeed.gateways.incoming" in after.split()
