"""A gateway's module is imported on the first request that needs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from outfeed.store.database import Database

ROOT = Path(__file__).parents[2]
ALWAYS = {
    "outfeed.gateways",
    *(f"outfeed.gateways.{name}" for name in ("feature", "api", "incoming", "incoming.pages", "otlp", "otlp.agents")),
}


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
    assert "outfeed.gateways.incoming.endpoint" in after.split()


def test_without_its_library_mcp_answers_501_and_all_else_works(database: Database) -> None:
    code = (
        "import sys\nsys.modules['mcp_types'] = None\nfrom outfeed import config\n"
        "from outfeed.access.store import account\nfrom outfeed.http.app import create_app\n"
        "app = create_app(config.load())\n"
        "secret = account.create_token(app.extensions['outfeed'].database, 'one', ['read', 'write'])\n"
        "def post(path): return app.test_client().post(path, headers={'Authorization': 'Bearer ' + secret}, json={})\n"
        "print(post('/in/backups').status_code, post('/mcp').status_code, post('/mcp').json['detail'])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.stdout == "201 501 MCP needs the library mcp-types: pip install 'outfeed[mcp]'\n", done.stderr


def test_the_command_of_mcp_loads_no_server_and_no_library_of_mcp() -> None:
    code = "import sys\nfrom outfeed.gateways.mcp import stdio\nprint(*{name.split('.')[0] for name in sys.modules})"
    loaded = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).split()

    assert {"mcp", "mcp_types", "flask", "sqlite3"}.isdisjoint(loaded)
