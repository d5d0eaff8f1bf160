"""A service day of the RER B at La Croix de Berny, generated from a seed.

Trains run around the clock, so there is something to watch at any hour: in the hours of service (5 to 1) at the line's own
frequencies, otherwise every half hour. A train's behaviour depends on the seed and its number, the drift of its delay also on
how often it has been reported.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import random
from dataclasses import dataclass
from typing import Any

STOP = "STIF:StopArea:SP:46007:"
LINE = "STIF:Line::C01743:"
DWELL = 50
"""Seconds from arrival to departure."""
HEADWAY = {6: 900, 7: 360, 8: 360, 9: 420, 16: 420, 17: 360, 18: 360, 19: 420}
"""Seconds between trains of one direction, by hour; 600 in other hours of service, 1800 at night."""
DIRECTIONS: dict[str, list[tuple[str, str, str]]] = {
    "Aller": [
        ("EKLI", "STIF:StopArea:SP:73699:", "Aéroport Charles de Gaulle 2 TGV"),
        ("IKAR", "STIF:StopArea:SP:60819:", "Mitry - Claye"),
        ("GOCK", "STIF:StopArea:SP:43131:", "Gare du Nord"),
    ],
    "Retour": [
        ("PEPE", "STIF:StopArea:SP:59315:", "Saint-Rémy-lès-Chevreuse"),
        ("LYRE", "STIF:StopArea:SP:58782:", "Robinson"),
        ("KALI", "STIF:StopArea:SP:43607:", "Massy - Palaiseau"),
        ("SUCE", "STIF:StopArea:SP:43600:", "Orsay - Ville"),
    ],
}
KINDS = {
    "on_time": 52,
    "late": 25,
    "early": 6,
    "cancelled": 5,
    "no_aimed": 4,
    "no_expected": 3,
    "arrival_only": 3,
    "terminates": 3,
    "starts": 2,
    "arrival_cancelled": 2,
    "stale": 2,
}
CANCELLED = ("cancelled", "arrival_cancelled")
UNKNOWN = (*CANCELLED, "no_aimed", "no_expected")
"""Kinds without a delay."""


@dataclass(frozen=True)
class Train:
    """One train at the station: its identity, its schedule and its behaviour."""

    number: int
    direction: str
    departs: float
    """Theoretical departure, Unix seconds."""
    kind: str
    mission: str
    destination: str
    destination_ref: str
    journey: str
    platform: str
    seed: str

    def delay(self, told: int) -> int | None:
        """Return the delay in seconds in the ``told``-th report, or None if it is unknown."""
        if self.kind in UNKNOWN:
            return None
        draw = random.Random(f"{self.seed}/{told}")
        base = random.Random(f"{self.seed}/delay")
        start = {"late": base.randint(60, 1500), "early": base.randint(-180, -20)}.get(self.kind, base.randint(0, 40))
        return start + draw.randint(-15, 45) + 5 * min(told, 20)


def train(seed: int, direction: str, number: int, departs: float) -> Train:
    """Return the train of a direction that departs at a Unix time; the same arguments return the same train."""
    own = f"{seed}/{direction}/{number}"
    draw = random.Random(own)
    mission, ref, name = draw.choice(DIRECTIONS[direction])
    kind = draw.choices(list(KINDS), list(KINDS.values()))[0]
    digest = hashlib.sha256(own.encode()).hexdigest()
    journey = f"RATP-SIV:VehicleJourney::RB.{digest[:8]}-{digest[8:12]}:LOC"
    platform = {"Aller": "1", "Retour": "2"}[direction]
    return Train(number, direction, departs, kind, mission, name, ref, journey, platform, own)


def near(seed: int, now: float, before: float = 27 * 60, ahead: float = 75 * 60) -> list[Train]:
    """Return the trains from 27 minutes ago to 75 minutes ahead of a Unix time, in order of departure."""
    found = []
    for offset, direction in enumerate(DIRECTIONS):
        moment = now - before
        moment -= moment % 3600
        while moment < now + ahead:
            hour = dt.datetime.fromtimestamp(moment, dt.UTC).hour
            headway = HEADWAY.get(hour, 1800 if 1 <= hour < 5 else 600)
            for step in range(3600 // headway):
                departs = moment + step * headway + offset * headway // 2
                if now - before <= departs <= now + ahead:
                    found.append(train(seed, direction, int(departs) // 10, departs))
            moment += 3600
    return sorted(found, key=lambda one: one.departs)


def _iso(moment: float) -> str:
    return dt.datetime.fromtimestamp(moment, dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _names(one: Train, draw: random.Random) -> dict[str, Any]:
    """Return the fields with direction, mission and destination, each of which is in one of two fields, or in both."""
    direction, mission, destination = ([{"value": text}] for text in (one.direction, one.mission, one.destination))
    named: dict[str, Any] = {
        "DirectionName": draw.choice([[], direction]),
        "DirectionRef": {"value": one.direction},
        "VehicleJourneyName": [{"value": f"{one.mission}{one.number % 100:02d}"}],
        "JourneyNote": mission,
        "DestinationName": destination,
        "DestinationDisplay": destination,
    }
    if draw.random() < 0.2:
        named["DirectionName"] = direction
        del named["DirectionRef"]
    if draw.random() < 0.2:
        named["JourneyNote"] = []
    elif draw.random() < 0.2:
        named["VehicleJourneyName"] = [{"value": str(one.number % 1000000)}]
    if draw.random() < 0.2:
        del named["DestinationName"]
    return named


def visit(one: Train, told: int, recorded_at: float) -> tuple[dict[str, Any], int | None]:
    """Return a MonitoredStopVisit of a train and its true delay in seconds (None where it can't be known)."""
    draw = random.Random(f"{one.seed}/visit")
    delay = one.delay(told)
    shift = delay or 0
    departs = int(one.departs)
    letter = "BP" if draw.random() < 0.1 else "Q"
    named = _names(one, draw)
    call: dict[str, Any] = {
        "StopPointName": [{"value": "La Croix de Berny"}],
        "VehicleAtStop": recorded_at >= departs + shift,
        "ArrivalPlatformName": {"value": one.platform},
        "ArrivalStopAssignment": {"ExpectedQuayRef": {"value": f"STIF:StopPoint:{letter}:4{departs % 100000:05d}:"}},
        "Order": draw.randint(3, 25),
        "AimedArrivalTime": _iso(departs - DWELL),
        "ExpectedArrivalTime": _iso(departs - DWELL + shift),
        "ArrivalStatus": "onTime",
    }
    call |= {name: named.pop(name) for name in ("DestinationDisplay",) if name in named}
    if one.kind == "terminates":
        # Observed for trains that terminate at the stop: a departure status without a departure.
        call["DepartureStatus"] = draw.choice(["onTime", ""])
    elif one.kind != "arrival_only":
        call |= {
            "AimedDepartureTime": _iso(departs),
            "ExpectedDepartureTime": _iso(departs + shift),
            "DeparturePlatformName": {"value": one.platform},
            # The real API also reports onTime for trains that are minutes late.
            "DepartureStatus": "delayed" if shift > 600 else "onTime",
        }
    if one.kind == "no_aimed":
        del call["AimedArrivalTime"], call["AimedDepartureTime"]
    if one.kind == "no_expected":
        del call["ExpectedArrivalTime"], call["ExpectedDepartureTime"]
    if one.kind == "starts":
        # Observed for trains that start at the stop: an arrival status without an arrival.
        del call["AimedArrivalTime"], call["ExpectedArrivalTime"]
    if one.kind in CANCELLED:
        call["DepartureStatus"] = call["ArrivalStatus"] = "cancelled"
        del call["ExpectedArrivalTime"], call["ExpectedDepartureTime"]
    if one.kind == "arrival_cancelled":
        del call["DepartureStatus"]
    made = {
        "RecordedAtTime": _iso(recorded_at),
        "ItemIdentifier": f"RATP-SIV:Item::46007-{one.number}:LOC",
        "MonitoringRef": {"value": STOP},
        "MonitoredVehicleJourney": {
            "LineRef": {"value": LINE},
            "OperatorRef": {} if draw.random() < 0.3 else {"value": "RATP-SIV:Operator::RATP.OCTAVE.B.B:"},
            "FramedVehicleJourneyRef": {"DataFrameRef": {"value": "any"}, "DatedVehicleJourneyRef": one.journey},
            "DestinationRef": {"value": one.destination_ref},
            "TrainNumbers": {"TrainNumberRef": [{"value": str(one.number % 1000000)}]},
            "MonitoredCall": call,
            **named,
        },
    }
    return made, delay
