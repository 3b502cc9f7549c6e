"""Loads the city as it is since 1 July 2025 from the CSV files in `data/` (see its README)."""

import csv
from collections import defaultdict
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.worktime import OFFICIAL_HOURS, DayOverride, Limit
from libs.contracts.codes import level_of, parent_of, searchable
from libs.contracts.registry import Component, Level, ProcedureVersion
from services.registry import domain
from services.registry.models import Centre, Procedure, Succession, Unit, UnitAlias

CITY = "H29"
CLOSED_PROVINCES = {"Tỉnh Bình Dương": "H09", "Tỉnh Bà Rịa - Vũng Tàu": "H06"}
FIRST_DAY = date(2025, 7, 1)
LAST_OLD_DAY = date(2025, 6, 30)
COUNTERS_PLANNED = 5
REAL_CODES = {CITY, *CLOSED_PROVINCES.values()}

_DATA = Path(__file__).parent / "data"


def _rows(name: str) -> Iterator[dict[str, str]]:
    with (_DATA / f"{name}.csv").open(encoding="utf-8-sig", newline="") as file:
        yield from csv.DictReader(file)


def new_code(gso_code: str) -> str:
    """Make up the unit code of a present ward or commune."""
    return f"{CITY}.{gso_code}"


async def load(session: AsyncSession, *, at: datetime) -> bool:
    """Load everything into an empty registry; answer False if it already holds the city."""
    if await session.scalar(select(Unit.code).limit(1)):
        return False
    units = _all_units()
    session.add_all(units)
    await session.flush()
    session.add_all(_successions())
    centres = list(_centres())
    catalogue = list(_procedures())
    session.add_all([*centres, *catalogue])
    await session.flush()
    for unit in units:
        await session.refresh(unit, ["successors", "aliases"])
        domain.announce_unit(session, unit, at)
    for centre in centres:
        domain.announce_centre(session, centre, at)
    for procedure in catalogue:
        domain.announce_procedure(session, procedure, at)
    for row in _rows("calendar"):
        override = DayOverride.model_validate({**row, "in_lieu_of": row["in_lieu_of"] or None})
        await domain.set_override(session, override.date, override, at=at)
    return True


def _unit(code: str, name: str, kind: str, **more: object) -> Unit:
    closed = more.get("valid_to") is not None
    return Unit(
        code=code,
        version=1,
        name=name,
        search=searchable(name),
        type=kind,
        level=level_of(code),
        parent=parent_of(code),
        status="closed" if closed else "active",
        synthetic=code not in REAL_CODES,
        **({"valid_from": None if closed else FIRST_DAY} | more),
    )


def _all_units() -> list[Unit]:
    city = _unit(CITY, "Thành phố Hồ Chí Minh", "city", gso_code="79")
    city.aliases = [UnitAlias(alias="000.00.00.H29")]
    provinces = []
    for name, code in CLOSED_PROVINCES.items():
        province = _unit(code, name, "city", valid_to=LAST_OLD_DAY)
        province.aliases = [UnitAlias(alias=f"000.00.00.{code}")]
        provinces.append(province)
    departments = [
        _unit(row["code"], row["name"], "department", valid_from=None)
        for row in _rows("departments")
    ]
    present = [
        _unit(
            new_code(row["gso_code"]),
            row["name"],
            row["type"],
            gso_code=row["gso_code"],
            area_km2=float(row["area_km2"]),
            former_province=row["former_province"],
        )
        for row in _rows("units")
    ]
    return [city, *provinces, *departments, *present, *_former_units()]


def _district_codes() -> dict[tuple[str, str], str]:
    """Number the former districts of each province: they had codes, but no public list of them."""
    codes: dict[tuple[str, str], str] = {}
    counts: dict[str, int] = defaultdict(int)
    for province, district in sorted(
        {(r["old_province"], r["old_district"]) for r in _rows("succession")}
    ):
        root = CLOSED_PROVINCES.get(province, CITY)
        counts[root] += 1
        codes[province, district] = f"{root}.C{counts[root]:02d}"
    return codes


def _former_units() -> Iterator[Unit]:
    districts = _district_codes()
    for (province, district), code in districts.items():
        yield _unit(code, district, "district", valid_to=LAST_OLD_DAY, former_province=province)
    seen = set()
    for row in _rows("succession"):
        gso_code = row["old_code"]
        if gso_code and gso_code not in seen:
            seen.add(gso_code)
            yield _unit(
                f"{districts[row['old_province'], row['old_district']]}.{gso_code}",
                row["old_name"],
                "former",
                gso_code=gso_code,
                valid_to=LAST_OLD_DAY,
                former_province=row["old_province"],
            )


def _successions() -> Iterator[Succession]:
    districts = _district_codes()
    for code in CLOSED_PROVINCES.values():
        yield Succession(predecessor=code, successor=CITY, relation="whole")
    heirs: dict[str, dict[str, None]] = defaultdict(dict)
    for row in _rows("succession"):
        district = districts[row["old_province"], row["old_district"]]
        successor = new_code(row["new_code"])
        heirs[district][successor] = None
        if row["old_code"]:
            yield Succession(
                predecessor=f"{district}.{row['old_code']}",
                successor=successor,
                relation=row["relation"],
            )
    for district, successors in heirs.items():
        relation = "whole" if len(successors) == 1 else "part"
        for successor in successors:
            yield Succession(predecessor=district, successor=successor, relation=relation)


def _centres() -> Iterator[Centre]:
    for row in _rows("units"):
        yield Centre(
            unit=new_code(row["gso_code"]),
            version=1,
            address=None,
            latitude=float(row["latitude"]),
            longitude=float(row["longitude"]),
            hotlines=["1022"],
            hours=OFFICIAL_HOURS.model_dump(mode="json"),
            counters_planned=COUNTERS_PLANNED,
            name_board="unknown",
            procedures=None,
        )


def _procedures() -> Iterator[Procedure]:
    components: dict[str, list[Component]] = defaultdict(list)
    for row in _rows("procedure_components"):
        components[row["procedure_code"]].append(
            Component(
                code=row["component_code"],
                name=row["name_vi"],
                required=row["required"] == "1",
                kind=row["kind"],
                reusable_from=row["reusable_from"] or None,
            )
        )
    departments = {
        field: row["code"] for row in _rows("departments") for field in row["fields"].split(";")
    }
    for row in _rows("procedures"):
        level = Level(row["competent_level"])
        state = ProcedureVersion(
            valid_from=FIRST_DAY,
            name=row["name_vi"],
            name_en=row["name_en"] or None,
            field=row["field_vi"],
            competent_level=level,
            department=departments[row["field_vi"]] if level is Level.province else None,
            territorial=row["territorial"] == "1",
            # The order's item 8: handled anywhere in the city. The data has no such column.
            boundary_independent=level is Level.commune,
            same_day=row["same_day"] == "1",
            limit=Limit.model_validate(
                {"value": int(row["limit_value"]), "unit": row["limit_unit"]}
            ),
            fee_vnd=int(row["fee_vnd"]) if row["fee_vnd"] else None,
            components=tuple(components[row["code"]]),
            confidence=row["confidence"],
        )
        yield Procedure(
            code=row["code"], version=1, versions=[domain.version_row(row["code"], state)]
        )
