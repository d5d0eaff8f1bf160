"""By which address nodes reach each other: a machine's own, wherever the inventory only has one that a cloud translates."""

from __future__ import annotations

import json

import pytest

from berny.controller.addresses import canonical, is_loopback, is_private, is_usable, own_address, resolve, shared

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


@pytest.mark.parametrize(
    "spelling",
    ["10.0.0.1", "10.1", "10.0.1", "0xa000001", "012.0.0.1", "::ffff:10.0.0.1", "::FFFF:0a00:0001", " 10.0.0.1 "],
)
def test_an_address_is_one_however_it_is_spelt(spelling: str) -> None:
    """As programs that connect take it: the short forms, octal, hexadecimal, and IPv4 within IPv6."""
    assert canonical(spelling) == "10.0.0.1"
    assert shared({"a": "10.0.0.1", "b": "10.0.0.2", "c": spelling}) == [("c", "a")]


def test_names_are_one_in_any_case() -> None:
    assert shared({"a": "VM.example.com", "b": "vm.example.com.", "c": "vm2.example.com"}) == [("b", "a")]
    assert canonical("2001:DB8:0::1") == "2001:db8::1"


@pytest.mark.parametrize(
    ("address", "usable"),
    [
        ("10.0.0.4", True),
        (PUBLIC, True),
        ("127.0.0.1", False),
        ("0.0.0.0", False),
        ("255.255.255.255", False),
        ("224.0.0.1", False),
        ("169.254.1.1", False),
        ("2001:db8::1", False),
        ("10.0.0.4/24", False),
        ("10.4", False),
        ("master", False),
        ("", False),
    ],
)
def test_only_a_machines_own_address_is_reached_by_others(address: str, usable: bool) -> None:
    assert is_usable(address) is usable


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.1", True),
        ("::1", True),
        ("localhost", True),
        ("10.0.0.1", False),
        ("a.example", False),
    ],
)
def test_loopback_is_every_machines_own(address: str, loopback: bool) -> None:
    assert is_loopback(address) is loopback


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
