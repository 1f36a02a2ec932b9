"""`outfeed serve` on a terminal: the box, the browser, Ctrl-C."""

from __future__ import annotations

import os
import pty
import re
import sys
from pathlib import Path

from tests.server import Server, make_database
from tests.waits import wait_until


def test_the_link_stands_in_a_box_opens_in_a_browser_and_ctrl_c_ends_with_a_line(tmp_path: Path) -> None:
    server, opened = Server(tmp_path), tmp_path / "opened"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {opened}\n')
    browser.chmod(0o700)
    environment = {**server.environment, "BROWSER": f"{browser} %s", "OUTFEED_LOG_FORMAT": "text"}
    make_database(server.database)
    child, terminal = pty.fork()
    if child == 0:
        os.execve(sys.executable, [sys.executable, "-m", "outfeed", "serve", "--open"], environment)
    os.set_blocking(terminal, False)
    output = ""

    def shows(text: str) -> bool:
        nonlocal output
        try:
            output += os.read(terminal, 65_536).decode()
        except OSError:  # nothing yet, or the process has ended
            pass
        return text in output

    try:
        wait_until(lambda: shows("╯"), "the box")
        wait_until(lambda: opened.exists() and opened.read_text() != "", "the browser")
        wait_until(lambda: list(tmp_path.glob("*-search")), "the worker's first jobs")
        os.write(terminal, b"\x03")
        wait_until(lambda: shows("Outfeed stopped."), "the last line")
    finally:
        os.close(terminal)
        os.waitpid(child, 0)
    lines = [re.sub(r"\x1b\[[\d;]*m", "", line) for line in output.split("\r\n")]
    start = next(number for number, line in enumerate(lines) if line.startswith("╭"))
    assert lines[start + 1].strip("│ ") == "Sign in with this link, once:"
    assert lines[start + 2].strip("│ ") == opened.read_text().strip()
    assert opened.read_text().startswith(f"{server.url}/login?code=")
    assert lines[start + 3].startswith("╰")
    assert lines[start + 4 :] == ["^C", "Outfeed stopped.", ""], "no log line follows the link"
