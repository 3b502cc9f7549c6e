"""`motcua simulate`: the options, and nothing else."""

from datetime import time
from pathlib import Path
from typing import Annotated

import typer

from services.simulate.run import run
from services.simulate.settings import Refused, Settings

_DEFAULT = Settings()


def simulate(
    url: Annotated[str, typer.Option(help="The gateway; several with commas.")] = _DEFAULT.url,
    seed: Annotated[int, typer.Option(help="Same seed, same people.")] = _DEFAULT.seed,
    units: Annotated[
        str, typer.Option(help="So many units of the seed's choice, or codes with commas.")
    ] = str(_DEFAULT.units),
    since: Annotated[
        str | None,
        typer.Option("--from", help="Local HH:MM of the clock's day; its now unless said."),
    ] = None,
    until: Annotated[
        str, typer.Option("--to", help="Local HH:MM; nobody comes after it.")
    ] = "17:00",
    data: Annotated[
        Path | None, typer.Option(help="The server's data folder, whose key signs the tokens.")
    ] = None,
    connections: Annotated[int, typer.Option(min=1, max=1000)] = _DEFAULT.connections,
    patience: Annotated[
        float, typer.Option(help="Real seconds for which an unanswered request is sent again.")
    ] = _DEFAULT.patience,
    settle: Annotated[
        float, typer.Option(help="Real seconds within which the report must catch up.")
    ] = _DEFAULT.settle,
) -> None:
    """Play a working day against a running city and check its weekly report.

    The city must run on a virtual clock and hold nothing of the week yet. Exit status 0: every
    line of the report agrees with the simulator's own ledger; 1: not, and the differences are
    listed; 2: the play was refused.
    """
    from services.simulate import show

    settings = Settings(
        url=url,
        data_dir=data or _data_dir(),
        seed=seed,
        units=int(units)
        if units.isdigit()
        else tuple(u.strip() for u in units.split(",") if u.strip()),
        since=_clock_time(since, "--from") if since else None,
        until=_clock_time(until, "--to"),
        connections=connections,
        patience=patience,
        settle=settle,
    )
    try:
        with show.progress() as watch:
            outcome = run(settings, watch)
    except Refused as refused:
        typer.echo(refused, err=True)
        raise typer.Exit(2) from None
    show.show(outcome, show.console())
    raise typer.Exit(outcome.status)


def _data_dir() -> Path:
    from libs.common.settings import Settings as Environment

    return Environment.from_environment().data_dir


def _clock_time(written: str, option: str) -> time:
    try:
        return time.fromisoformat(written)
    except ValueError:
        raise typer.BadParameter("write a time like 07:30", param_hint=option) from None
