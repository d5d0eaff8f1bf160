"""By which address nodes reach each other: a machine's own, wherever the inventory only has one that a cloud translates."""

from __future__ import annotations

import json

import pytest

from berny.addresses import is_private, own_address, resolve

PUBLIC = "198.51.100.7"


def said(*addresses: str, route: str | None = None) -> str:
    """What ``ip`` says on a machine: its addresses, and the route to the outside."""
    links = [{"ifname": f"eth{index}", "addr_info": [{"local": one}]} for index, one in enumerate(addresses)]
    routes = json.dumps([{"dst": "192.0.2.1", "prefsrc": route}]) if route else ""
    return f"{json.dumps(links)}\n{routes}"


@pytest.mark.parametrize(
    ("address", "private"),
    [
        ("10.0.0.4", True),
        ("172.16.0.1", True),
        ("172.32.0.1", False),
        ("192.168.1.1", True),
        ("192.0.2.10", False),
        (PUBLIC, False),
        ("20.50.1.2", False),
        ("master.westeurope.example.com", False),
        ("", False),
    ],
)
def test_only_private_addresses_are_surely_the_machines(address: str, private: bool) -> None:
    assert is_private(address) is private


def test_a_machine_that_has_its_public_address_keeps_it() -> None:
    assert own_address(PUBLIC, said("10.0.0.4", PUBLIC, route="10.0.0.4")) == PUBLIC


def test_behind_a_translation_it_is_the_address_that_the_route_out_has() -> None:
    """Not one of a container engine's bridge, which comes first here."""
    assert own_address(PUBLIC, said("172.17.0.1", "10.0.0.4", route="10.0.0.4")) == "10.0.0.4"


def test_a_machine_without_a_route_out_has_its_first_address() -> None:
    assert own_address("a.example.com", said("10.0.0.4")) == "10.0.0.4"
    assert own_address(PUBLIC, said()) is None


def test_what_is_given_is_not_asked_for() -> None:
    given = {"a": ("10.0.0.9", PUBLIC), "b": ("", "10.0.0.8")}
    assert resolve(given, {}, {}) == ({}, [], {})


def test_what_a_machine_says_is_kept_for_plays_that_leave_it_out() -> None:
    given = {"a": ("", PUBLIC), "b": ("", "198.51.100.8")}
    answers = {"a": said("10.0.0.4", route="10.0.0.4"), "b": said("10.0.0.5", route="10.0.0.5")}
    found, unknown, keep = resolve(given, answers, {})
    assert (found, unknown) == ({"a": "10.0.0.4", "b": "10.0.0.5"}, [])
    assert resolve(given, {"a": answers["a"]}, keep) == (found, [], keep)


def test_what_a_machine_says_now_wins_over_what_was_kept() -> None:
    keep = {"a": {"connected": PUBLIC, "address": "10.0.0.4"}}
    found, _, kept = resolve({"a": ("", PUBLIC)}, {"a": said("10.0.0.44", route="10.0.0.44")}, keep)
    assert found == {"a": "10.0.0.44"} and kept["a"]["address"] == "10.0.0.44"


def test_another_machine_behind_the_name_is_not_taken_for_the_old_one() -> None:
    keep = {"a": {"connected": PUBLIC, "address": "10.0.0.4"}}
    assert resolve({"a": ("", "198.51.100.9")}, {}, keep) == ({}, ["a"], {})


def test_a_play_that_was_told_once_forgets_nothing() -> None:
    """Later plays of the same run are given what was found, as if the inventory had it."""
    keep = {"a": {"connected": PUBLIC, "address": "10.0.0.4"}}
    assert resolve({"a": ("10.0.0.4", PUBLIC)}, {}, keep) == ({}, [], keep)
