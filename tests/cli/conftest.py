"""The command line, run in this process."""

import pytest
from click.testing import CliRunner

from outfeed.cli import main


@pytest.fixture
def outfeed():
    """Run `outfeed` with the arguments given and return click's result."""

    def run(*arguments):
        result = CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="outfeed")
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run
