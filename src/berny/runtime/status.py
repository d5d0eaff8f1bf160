"""``python3 -m berny.runtime.status``: what flows through a pipeline now, asked on a node of the cluster."""

from __future__ import annotations

import argparse
import importlib
import json
import sys


def main() -> int:
    """Print the status of a pipeline: its module ``status`` has a function of that name."""
    parser = argparse.ArgumentParser(prog="berny-pipeline-status", description=__doc__)
    parser.add_argument("pipeline")
    parser.add_argument("--json", action="store_true", help="print one object")
    words = parser.parse_args()
    found = importlib.import_module(f"berny.pipelines.{words.pipeline}.status").status()
    if words.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name}: {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
