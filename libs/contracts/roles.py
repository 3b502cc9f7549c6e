"""Who may do what: the roles of the contract, and the dependencies that routes name them by."""

from enum import StrEnum
from typing import Annotated

from fastapi import Depends

from libs.common.auth import Principal, require


class Role(StrEnum):
    """What a caller is in the city's service."""

    nobody = "nobody"
    kiosk = "kiosk"
    officer = "officer"
    manager = "manager"
    city = "city"
    portal = "portal"
    ops = "ops"


Officer = Annotated[Principal, Depends(require(Role.officer, Role.manager))]
"""A counter officer of the unit, or its manager."""

Manager = Annotated[Principal, Depends(require(Role.manager))]
"""The manager of a unit's centre."""

Kiosk = Annotated[Principal, Depends(require(Role.kiosk))]
"""A kiosk of its units; its subject is the device."""

ManagerOrCity = Annotated[Principal, Depends(require(Role.manager, Role.city))]

CityOffice = Annotated[Principal, Depends(require(Role.city))]
"""The city's office: registry writes, every read that is not personal."""

Staff = Annotated[Principal, Depends(require(Role.officer, Role.manager, Role.city))]
"""Whoever works for a unit or the city: figures and lists without personal data."""
