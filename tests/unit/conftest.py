"""What tests of several subjects share: the checkout's files, the simulator over real HTTP, visits of every kind."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import databases
import hadoop
import hbases
import kafkas
import pytest
import weather
from archives import running, unpacked
from hypothesis import settings
from hypothesis.configuration import set_hypothesis_home_dir
from simulated import NOON, Clock, Served

from berny.controller.artifacts.store import cache_folder
from berny.pipelines.idfm.controller.simulator import Simulator
from berny.pipelines.idfm.controller.timetable import KINDS, Train, train
from berny.runtime.probe.load import PACKAGE

# The same examples each time, no files beside the tests, and no verdict on how fast a busy box is.
settings.register_profile("berny", derandomize=True, database=None, deadline=None)
settings.load_profile("berny")
set_hypothesis_home_dir(cache_folder() / "hypothesis")

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The checkout that is tested."""
    return CHECKOUT


@pytest.fixture(scope="session")
def probe_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The components' probe files as the package ``berny_probes``, as nodes have them."""
    package = tmp_path_factory.mktemp("probes") / PACKAGE
    package.mkdir()
    for file in CHECKOUT.glob("roles/*/probe.py"):
        (package / f"{file.parent.name}.py").symlink_to(file)
    sys.path.append(str(package.parent))
    yield
    sys.path.remove(str(package.parent))


@pytest.fixture(scope="session")
def archive() -> Callable[[str], Path]:
    """Return the unpacked archive of a component; tests that ask for it run after the other quick ones."""
    return unpacked


@pytest.fixture(scope="session")
def postgres() -> Iterator[databases.Postgres]:
    """A PostgreSQL for all tests; each makes databases of its own."""
    with databases.postgres() as server:
        yield server


@pytest.fixture(scope="session")
def hdfs(archive: Callable[[str], Path]) -> Iterator[hadoop.Hdfs]:
    """An HDFS for all tests; each has a directory of its own."""
    with running(hadoop.Hdfs, archive("hadoop")) as server:
        yield server


@pytest.fixture(scope="session")
def kafka(archive: Callable[[str], Path]) -> Iterator[kafkas.Kafka]:
    """A broker for all tests; each makes topics of its own."""
    with running(kafkas.Kafka, archive("kafka")) as server:
        yield server


@pytest.fixture(scope="session")
def hbase(archive: Callable[[str], Path]) -> Iterator[hbases.HBase]:
    """An HBase for all tests; each makes tables of its own."""
    with running(hbases.HBase, archive("hbase")) as server:
        yield server


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still until a test moves it."""
    return Clock()


@pytest.fixture
def serve(tmp_path: Path, clock: Clock) -> Iterator[Callable[..., Served]]:
    """Serve simulators over HTTP on a free port of 127.0.0.1."""
    begun: list[Served] = []

    def start(**words: object) -> Served:
        truth = tmp_path / f"truth-{len(begun)}.jsonl"
        settings = {"seed": 1, "rate": 5.0, "truth": truth, "clock": clock} | words
        begun.append(Served(Simulator(**settings)))  # type: ignore[arg-type]
        return begun[-1]

    yield start
    for one in begun:
        one.close()


@pytest.fixture(scope="module")
def weather_database() -> Iterator[weather.Database]:
    """One database of openweather for all tests of a module."""
    with weather.Database.running() as one:
        yield one


@pytest.fixture
def database(weather_database: weather.Database) -> weather.Database:
    """The database of openweather without rows."""
    weather_database.empty()
    return weather_database


@pytest.fixture(scope="session")
def trains() -> dict[str, list[Train]]:
    """Six trains of each kind that the timetable knows, of both directions."""
    found: dict[str, list[Train]] = {kind: [] for kind in KINDS}
    for number in range(2000):
        one = train(7, ("Aller", "Retour")[number % 2], number, NOON + 60 * number)
        if len(found[one.kind]) < 6:
            found[one.kind].append(one)
    assert all(len(some) == 6 for some in found.values())
    return found


@pytest.fixture(scope="session")
def plugin() -> Callable[[str], ModuleType]:
    """Import a plugin, module or filter of Ansible by its path in the checkout: they are in no package."""

    def load(path: str) -> ModuleType:
        file = CHECKOUT / path
        spec = importlib.util.spec_from_file_location("tested_" + path.replace("/", "_").removesuffix(".py"), file)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load
