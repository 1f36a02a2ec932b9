"""`outfeed serve`: gunicorn with threads, set up for the feed.

It stops at once, leaves no file behind, and prints a sign-in link.
"""

from __future__ import annotations

import gc
import ipaddress
import itertools
import logging
import os
import resource
import signal
import subprocess
import sys

from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter

from outfeed.cli import show
from outfeed.config import Settings, warn_of_unknown_settings
from outfeed.config.addresses import LOCAL_LINK, url_host
from outfeed.config.environment import environment_with
from outfeed.errors import ConfigError
from outfeed.feature import registered
from outfeed.http import logs
from outfeed.http.app import create_app
from outfeed.http.server import binding
from outfeed.http.server.metrics_folder import MetricsFolder
from outfeed.http.server.worker import KEEPALIVE_SECS, Worker
from outfeed.metrics import Metrics
from outfeed.principal import READ, WRITE
from outfeed.process import (
    exit_with,
    has_terminal,
    idle_connections,
    incomplete_connections,
    needed_descriptors,
    needed_threads,
)
from outfeed.store import database as db
from outfeed.store import migrate, serving
from outfeed.store.database import Database
from outfeed.store.high_water_mark import HighWaterMark, renew_epoch_if_behind
from outfeed.store.outbox import Outbox

GRACE_SECS = 4
DEMO_TOKEN = "serve --demo"
log = logging.getLogger(__name__)


def serve(settings: Settings, *, demo: bool = False, opens_browser: bool = False) -> None:
    """Upgrade the database, then serve it until SIGTERM or SIGINT.

    Raises ConfigError, DatabaseError.
    """
    logs.configure(settings)
    warn_of_unknown_settings()
    raise_descriptor_limit(settings)
    binding.require_free(settings)
    for feature in registered():
        feature.check(settings)
    prepare_database(settings)
    Server(settings, demo=demo, opens_browser=opens_browser).run()


def raise_descriptor_limit(settings: Settings) -> None:
    """Raise the soft limit to one descriptor for each connection.

    Raises ConfigError if the system's hard limit is lower.
    """
    wanted = needed_descriptors(settings.max_connections)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and wanted > hard:
        raise ConfigError(
            f"OUTFEED_MAX_CONNECTIONS: {settings.max_connections} needs {wanted} open files and the system allows "
            f"{hard}; lower it, or raise the limit (`ulimit -Hn`, LimitNOFILE=)"
        )
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def prepare_database(settings: Settings) -> None:
    """Create or upgrade the database.

    Renews the epoch if the database is behind the positions that were served before.
    """
    for feature in registered():
        feature.prepare(settings)
    migrate.upgrade(settings.database)
    serving.announce(settings.database, settings.bound_url)
    database = db.at(settings.database)
    renew_epoch_if_behind(database, Outbox(database, settings.max_event_bytes), HighWaterMark(settings.database))
    database.close()


class Server(BaseApplication):
    """gunicorn, configured for this app only.

    gunicorn's own configuration files and environment variables are not read.
    """

    def __init__(self, settings: Settings, *, demo: bool = False, opens_browser: bool = False) -> None:
        self.settings = settings
        self._is_demo = demo
        self._opens_browser = opens_browser
        self._metrics: MetricsFolder | None = None
        self._number = 0  # of this process's worker
        self._simulation: subprocess.Popen[bytes] | None = None
        self._ignores_hangup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN  # `nohup`
        super().__init__()

    def load_config(self) -> None:
        connections = self.settings.max_connections
        threads = needed_threads(connections)
        for name, value in {
            "bind": self.settings.bind,
            "workers": self.settings.workers,
            "worker_class": Worker,
            "threads": threads,
            "worker_connections": threads + idle_connections(connections) + incomplete_connections(connections),
            "keepalive": KEEPALIVE_SECS,
            "limit_request_line": 0,  # http/server/assembly.py has its own limit: gunicorn's is 8 KiB at most
            "sendfile": False,  # it would bypass ClientSocket.sendall
            "graceful_timeout": GRACE_SECS,
            "timeout": 60,
            "proc_name": "outfeed",
            "loglevel": "warning",
            "control_socket_disable": True,
            "forwarded_allow_ips": "",  # http/proxies.py applies OUTFEED_TRUSTED_PROXIES instead
            "logger_class": logs.Logger,
            "pre_fork": self._number_worker,
            "post_fork": self._become_worker,
            "post_worker_init": self._start_services,
            "child_exit": self._forget_worker,
            "worker_exit": stop_services,
            "when_ready": self._prepare_shared,
            "on_exit": self._clean_up,
        }.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        """Return the worker's app. gunicorn calls this after the fork."""
        metrics = Metrics.shared(self._metrics.path, self._number) if self._metrics else Metrics()
        return create_app(self.settings, metrics)

    def _number_worker(self, arbiter: Arbiter, worker: Worker) -> None:
        """Give *worker* the lowest number that no running worker has.

        So a worker's successor takes its number.
        """
        taken = {each.number for each in arbiter.WORKERS.values()}
        worker.number = next(number for number in itertools.count() if number not in taken)

    def _become_worker(self, arbiter: Arbiter, worker: Worker) -> None:
        """End with the master, even on SIGKILL.

        An orphan would keep the port from the next server.
        """
        exit_with(arbiter.pid)
        self._number = worker.number

    def _forget_worker(self, _: Arbiter, worker: Worker) -> None:
        if self._metrics is not None:
            self._metrics.forget(worker.number)

    def _start_services(self, worker: Worker) -> None:
        """Read the head and begin to poll.

        This happens after the fork and before the port is answered. The objects that exist by then stay until the end,
        so the garbage collector skips them: an eighth of the work when a thousand viewers connect.
        """
        signal.signal(
            signal.SIGHUP, signal.SIG_IGN
        )  # a terminal sends it to all processes, and the master ends the worker
        worker.wsgi.extensions["outfeed"].start()
        gc.collect()
        gc.freeze()

    def _prepare_shared(self, arbiter: Arbiter) -> None:
        """Make what the workers share, after the bind and before the first fork."""
        self._end_with_terminal(arbiter)
        if self.settings.workers > 1:
            self._metrics = MetricsFolder()
        self._announce(arbiter)

    def _end_with_terminal(self, arbiter: Arbiter) -> None:
        """Have SIGHUP end the server if it has a terminal, else reload it.

        A terminal sends SIGHUP when it is closed. Under `nohup` the server ignores the signal.
        """
        if self._ignores_hangup:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        elif has_terminal():
            signal.signal(signal.SIGHUP, lambda *_: arbiter.signal(signal.SIGTERM, None))

    def _announce(self, arbiter: Arbiter) -> None:
        """Print the server's address, and how to sign in.

        The sign-in link is in the last line, and the last URL.
        """
        host, port = arbiter.LISTENERS[0].sock.getsockname()[:2]
        local_url = f"http://{url_host(host)}:{port}"
        url = self.settings.public_url or local_url
        if self._is_demo:
            self._simulation = start_simulation(local_url, issue_demo_token(db.at(self.settings.database)))
        show.say(f"Outfeed serves {url} from {self.settings.database}")
        database = db.at(self.settings.database)
        if self.settings.public_url is None and ipaddress.ip_address(host).is_unspecified:
            show.line(LOCAL_LINK)
        for way in filter(None, (feature.sign_in(database, url) for feature in registered())):
            show.box([way.text, way.url])
            if self._opens_browser:
                open_browser(way.url)
        database.close()  # no connection is open while the workers are forked

    def _clean_up(self, _: Arbiter) -> None:
        self._end_simulation()
        if self._metrics is not None:
            self._metrics.remove()
        if sys.stdout.isatty():
            show.say("")  # the terminal has printed ^C
        show.say("Outfeed stopped.")

    def _end_simulation(self) -> None:
        if self._simulation is not None:
            self._simulation.terminate()
            self._simulation.wait()
            revoke_demo_token(db.at(self.settings.database))
            db.at(self.settings.database).close()


def open_browser(url: str) -> None:
    """Open *url* in the user's browser, by a process that may block."""
    command, none = [sys.executable, "-m", "webbrowser", url], subprocess.DEVNULL
    subprocess.Popen(command, stdin=none, stdout=none, stderr=none)  # noqa: S603 - Python's own module


def start_simulation(url: str, token: str) -> subprocess.Popen[bytes]:
    """Run the simulated swarm in its own process, which ends with this one."""
    command = [sys.executable, "-m", "outfeed", "simulate", "--parent", str(os.getpid())]
    return subprocess.Popen(command, env=environment_with(url=url, token=token))  # noqa: S603 - this package's own command


def issue_demo_token(database: Database) -> str:
    """Return a new token for the simulated swarm.

    Raises ConfigError if no feature issues tokens.
    """
    for feature in registered():
        if (token := feature.issue_token(database, DEMO_TOKEN, (READ, WRITE))) is not None:
            return token
    raise ConfigError("--demo needs a feature that issues tokens")


def revoke_demo_token(database: Database) -> None:
    """Revoke the simulated swarm's token."""
    for feature in registered():
        feature.revoke_token(database, DEMO_TOKEN)


# --- in the worker ----------------------------------------------------------------------------------------------------


def stop_services(_: Arbiter, worker: Worker) -> None:
    """End the worker's threads. A worker that failed to boot has none."""
    if worker.booted and worker.wsgi is not None:
        worker.wsgi.extensions["outfeed"].stop()
