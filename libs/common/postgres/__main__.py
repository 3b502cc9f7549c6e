"""Tells which server binaries would be used: `python -m libs.common.postgres`; 1 when none."""

import sys

from libs.common.postgres import PostgresError, find_binaries
from libs.common.settings import Settings

if __name__ == "__main__":
    try:
        print(find_binaries(Settings.from_environment().postgres_bin).folder)
    except PostgresError as error:
        sys.exit(str(error))
