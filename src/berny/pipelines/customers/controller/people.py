"""Customers as the simulated file has them, each with what is to become of it: drawn first, and written into a row after."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

COLUMNS = (
    "Index", "Customer Id", "First Name", "Last Name", "Company", "City", "Country", "Phone 1", "Phone 2", "Email",
    "Subscription Date", "Website",
)  # fmt: skip
FIRST = ("Sheryl", "Preston", "Roy", "Linda", "José", "Zoë", "Anne-Marie", "D'Arcy", "Ana", "Günter")
LAST = ("Baxter", "Lozano", "Berry", "Olsen", "O'Neill", "Núñez", "Smith", "Müller", "de la Cruz", "Bender")
COMPANIES = (
    "Rasmussen Group",
    "Vega, Gentry and Sons",
    'The "Best" Ltd',
    "Line\nBreak & Co",
    "Café Noir, Inc.",
    "Roth",
)
CITIES = ("East Leonard", "Saint-Étienne", "Port Jason", "Winston, Salem", "Reno")
USA = ("United States of America", "United States", "USA", "US", "U.S.A.", "usa", "  United  States of America ")
ELSEWHERE = ("Chile", "Djibouti", "Côte d'Ivoire", "Korea, Republic of", "United Kingdom", "American Samoa")
CODINGS = ("utf-8", "utf-8-sig", "latin-1")
POOL = 1_000_000
"""So many different customers: who comes again is changed."""

NO_ID, NO_EMAIL, BAD_EMAIL, NO_COUNTRY = "no Customer Id", "no Email", "Email is malformed", "no Country"
BAD_DATE, NO_NAME, MISSING, SURPLUS = (
    "Subscription Date is malformed",
    "no Last Name",
    "missing columns",
    "surplus columns",
)


@dataclass
class Customer:
    """A row, and the truth about it."""

    fields: dict[str, str]
    kind: str
    """``usa``, ``elsewhere`` or ``incomplete``."""
    reasons: list[str] = field(default_factory=list)
    cut: int = 0
    """So many columns are missing at its end."""
    surplus: list[str] = field(default_factory=list)

    def truth(self) -> dict[str, Any]:
        """Return what the ground truth says of it."""
        said = self.fields if not self.cut else dict(list(self.fields.items())[: -self.cut])
        names = {"customer_id": "Customer Id", "email": "Email", "subscription_date": "Subscription Date"}
        return {"kind": self.kind, "reasons": self.reasons, **{name: said.get(key, "") for name, key in names.items()}}

    def row(self) -> list[str]:
        """Return its fields as the file has them."""
        values = list(self.fields.values())
        return [*values[: len(values) - self.cut], *self.surplus]


def _without(name: str, reason: str, value: str = "") -> Callable[[Customer], None]:
    def spoil(one: Customer) -> None:
        one.fields[name] = value
        one.reasons = [reason]

    return spoil


def _cut(one: Customer) -> None:
    # The website alone, which nothing needs but the row's form.
    one.cut, one.reasons = 1, [MISSING]


def _more(one: Customer) -> None:
    one.surplus, one.reasons = ["more", "and, more"], [SURPLUS]


SPOILED = (
    _without("Customer Id", NO_ID),
    _without("Email", NO_EMAIL, "  "),
    _without("Email", BAD_EMAIL, "not.an.address"),
    _without("Country", NO_COUNTRY),
    _without("Subscription Date", BAD_DATE, "2021-02-30"),
    _without("Subscription Date", BAD_DATE, "03/04/2021"),
    _without("Last Name", NO_NAME),
    _cut,
    _more,
)


def customer(number: int, seed: int) -> Customer:
    """Return a customer: the same number and seed give the same one."""
    draw = random.Random(f"{seed}/{number}")
    who = draw.randrange(POOL)
    kind = draw.choices(("usa", "elsewhere", "incomplete"), (60, 20, 20))[0]
    home = USA if kind == "usa" or (kind == "incomplete" and draw.random() < 0.5) else ELSEWHERE
    date = f"{draw.randrange(2015, 2026)}-{draw.randrange(1, 13):02d}-{draw.randrange(1, 29):02d}"
    values = (
        str(number), f"{who * 2654435761 % 2**40:015X}", draw.choice(FIRST), draw.choice(LAST), draw.choice(COMPANIES),
        draw.choice(CITIES), draw.choice(home), f"+1-{number % 1000:03d}-402-0259", "(496)978-3969x58947",
        f"c{number}@example.org", date, f"http://www.example.org/{who}",
    )  # fmt: skip
    one = Customer(dict(zip(COLUMNS, values, strict=True)), kind)
    if kind == "incomplete":
        draw.choice(SPOILED)(one)
    return one


def text(customers: list[Customer], coding: str) -> bytes:
    """Return a file of customers."""
    out = io.StringIO(newline="")
    write = csv.writer(out)
    write.writerow(COLUMNS)
    write.writerows(one.row() for one in customers)
    return out.getvalue().encode(coding)
