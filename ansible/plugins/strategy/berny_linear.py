"""Ansible's strategy ``linear`` over Mitogen: one Python on each node for a whole play, instead of one for each task."""

from __future__ import annotations

DOCUMENTATION = """
name: berny_linear
short_description: Tasks in lockstep, by a Python that stays on each node
description:
  - The strategy C(mitogen_linear), found in the environment that Ansible itself runs in.
  - C(ANSIBLE_STRATEGY=linear) does the same without Mitogen.
"""

import ansible_mitogen.loaders
import ansible_mitogen.strategy

Linear = ansible_mitogen.loaders.strategy_loader.get("linear", class_only=True)


class StrategyModule(ansible_mitogen.strategy.StrategyMixin, Linear):  # type: ignore[misc, valid-type]
    """Nothing of its own."""
