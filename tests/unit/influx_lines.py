"""Records and points that several tests speak of."""

from __future__ import annotations

import re
from typing import Any

FULL: dict[str, Any] = {
    "identity": "0123456789abcdef0123456789abcdef",
    "line": "C01743",
    "stop": "STIF:StopArea:SP:46007:",
    "stop_name": "La Croix de Berny",
    "direction": "Aller",
    "destination": "Aéroport Charles de Gaulle 2 TGV",
    "mission": "EKLI",
    "journey": "RATP-SIV:VehicleJourney::RB.12345678-1234:LOC",
    "platform": "1",
    "theoretical": "2025-11-24T12:00:00.000Z",
    "predicted": "2025-11-24T12:03:48.000Z",
    "delay_sec": 228.0,
    "status_told": "onTime",
    "status": "onTime",
    "cancelled": False,
    "at_stop": False,
    "recorded_at": "2025-11-24T11:58:00.250Z",
    "observed_at": 1763985600.0,
    "data_origin": "simulated",
}
"""A record as the analytics make them, with everything known."""

Line = tuple[str, dict[str, str], dict[str, str], int]


def parse_line(line: str) -> Line:
    """Return measurement, tags, fields (as written) and time of a line of InfluxDB's line protocol."""
    head, body, moment = re.fullmatch(r'((?:\\.|[^ \\])+) ((?:"(?:\\.|[^"\\])*"|\\.|[^ "\\])+) (-?\d+)', line).groups()  # type: ignore[union-attr]
    measurement, *tags = re.findall(r"(?:\\.|[^,\\])+", head)
    fields = re.findall(r'((?:\\.|[^,=\\])+)=("(?:\\.|[^"\\])*"|[^,]+)', body)
    pairs = [re.fullmatch(r"((?:\\.|[^=\\])+)=(.*)", tag).groups() for tag in tags]  # type: ignore[union-attr]
    plain = {name: re.sub(r"\\(.)", r"\1", value) for name, value in pairs}
    return measurement, plain, dict(fields), int(moment)
