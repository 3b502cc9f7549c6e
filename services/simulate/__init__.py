"""The simulator: plays a working day against a running gateway and checks the report it ends in.

`run(Settings(...))` plays and gives an `Outcome`; `motcua simulate` is the same with a table.
"""

from services.simulate.run import Pulse, run, simulate
from services.simulate.settings import Cost, Outcome, Refused, Settings

__all__ = ["Cost", "Outcome", "Pulse", "Refused", "Settings", "run", "simulate"]
