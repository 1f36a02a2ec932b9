"""The app and the command line in this process.

They use a database of the test's own.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner
from flask import Flask
from flask.testing import FlaskClient

from outfeed import config
from outfeed.access.store import account
from outfeed.cli import main
from outfeed.config import Settings
from outfeed.http.app import create_app
from outfeed.http.services import Services
from outfeed.store.database import Database

POLL_INTERVAL = 0.1


class Api:
    """Calls the API with a token that may read and write."""

    def __init__(self, database: Database) -> None:
        self.app = create_app(config.load())
        self.services = self.app.extensions["outfeed"]
        self.headers = {"Authorization": f"Bearer {account.create_token(database, 'tests', ['read', 'write'])}"}
        self.client: FlaskClient = self.app.test_client()

    def get(self, path: str, **more: Any) -> Any:
        return self.client.get(path, headers=self.headers, **more)

    def post(self, path: str, **more: Any) -> Any:
        return self.client.post(path, headers=self.headers, **more)


@pytest.fixture
def api(database: Database) -> Iterator[Api]:
    yield Api(database)
    database.close()


@pytest.fixture
def flask_app(database: Database) -> Flask:
    """The app of a process that polls often, with running services."""
    return create_app(Settings(database=database.path, poll_interval=POLL_INTERVAL))


@pytest.fixture
def services(flask_app: Flask) -> Iterator[Services]:
    """The running services of the process."""
    services: Services = flask_app.extensions["outfeed"]
    services.start()
    yield services
    services.stop()


@pytest.fixture
def outfeed() -> Any:
    """Return a function that runs `outfeed` and returns click's result."""

    def run(*arguments: Any) -> Any:
        result = CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="outfeed")
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run
