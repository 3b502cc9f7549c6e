"""The operator's command line: `motcua --help`."""

import logging
import sys

import structlog
import typer

from libs.common.settings import explain_settings
from services.cli import dead_letters, rebuild, topics
from services.cli.city import migrate, seed, seed_registry, token
from services.cli.flow import lag, outbox
from services.cli.surroundings import EMBEDDED_URL
from services.simulate.command import simulate

__all__ = ["EMBEDDED_URL", "cli", "explain_settings", "main", "seed_registry"]

cli = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="motcua: one door for everybody. A command ends with 0 when all is well, with 1 when the "
    "answer is no, and with 2 when there is none: wrong usage or settings, bus or database away.",
)
for command in (migrate, seed, token, lag, outbox, simulate):
    cli.command()(command)
cli.add_typer(topics.commands, name="topics")
cli.add_typer(dead_letters.commands, name="dlq")
cli.add_typer(rebuild.commands, name="rebuild")


def main() -> None:
    """Run the command line."""
    # Commands speak in sentences of their own; the mechanism's log lines would stand among them.
    logging.basicConfig(stream=sys.stderr, level=logging.CRITICAL)
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    cli()
