"""A command of `hf-mobility`, run in this process."""

from __future__ import annotations

from typing import Any

from typer.testing import CliRunner

from hf_mobility.cli.app import app

ZONE = "Europe/Berlin"


def call(*arguments: Any, code: int = 0) -> Any:
    """The result of a command, which must end with this exit code and never with a traceback."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    told = f"{result.output}\n{result.exception!r}"
    assert result.exit_code == code, told
    assert "Traceback" not in result.output
    return result
