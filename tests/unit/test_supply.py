"""Supply: what differs is refused by name, what is cut goes on, what is half there is never found."""

from __future__ import annotations

import contextlib
import functools
import gzip
import hashlib
import http.server
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from berny.controller.artifacts import ArtifactMissing, Store, SupplyError, cli, download, golang, maven, recipes, ways
from berny.controller.artifacts.assemble import sha256_file, tree, unpack, write_archive
from berny.controller.artifacts.errors import NotOffered, ToolMissing, WrongDigest, WrongSignature
from berny.controller.artifacts.recipes import LockError, Recipe, read_lock, write_lock

BODY = random.Random(1).randbytes(3_000_000)
DIGEST = hashlib.sha256(BODY).hexdigest()


# -- locks -------------------------------------------------------------------------------------------------------------


@given(st.dictionaries(st.from_regex(r"[A-Za-z0-9._:+=@/-]+", fullmatch=True), st.binary(min_size=32, max_size=32)))
def test_lock_is_read_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, locked: dict[str, bytes]) -> None:
    """Coordinates with classifiers and pins of packages come back with their digests."""
    file = tmp_path_factory.getbasetemp() / "any.lock"
    digests = {name: digest.hex() for name, digest in locked.items()}
    write_lock(file, digests, "a comment")
    assert read_lock(file) == digests
    assert file.read_text().startswith("# a comment\n")


def test_lock_is_sorted(tmp_path: Path) -> None:
    """A bump shows as the lines that changed."""
    file, other = tmp_path / "one.lock", tmp_path / "other.lock"
    write_lock(file, {"b": "1" * 64, "a": "2" * 64}, "c")
    write_lock(other, {"a": "2" * 64, "b": "1" * 64}, "c")
    assert file.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("line", ["name", "abc  name", f"{'a' * 63}  name", f"{'A' * 64}  name", f"{'a' * 64} name"])
def test_malformed_lock_names_file_and_line(tmp_path: Path, line: str) -> None:
    """A merge that garbled a lock is found before anything is fetched."""
    file = tmp_path / "kafka.lock"
    file.write_text(f"# comment\n{'0' * 64}  fine:jar:1\n{line}\n")
    with pytest.raises(LockError) as error:
        read_lock(file)
    assert f"{file}:3" in str(error.value)


def test_missing_lock_says_what_writes_it(tmp_path: Path) -> None:
    """A recipe without its lock can't be obtained."""
    with pytest.raises(LockError, match=r"kafka\.lock: missing; `berny artifacts lock`"):
        read_lock(tmp_path / "kafka.lock")


@pytest.mark.parametrize("name", [name for name, recipe in recipes.load_recipes().items() if recipe.roots])
def test_locks_of_the_catalog_hold_their_roots(name: str) -> None:
    """A root that was added without a new lock would silently not be installed."""
    recipe = recipes.load_recipes()[name]
    locked = read_lock(recipe.lock_file)
    assert {*recipe.roots, *recipe.alone, *(source.split("!")[0] for source in recipe.extra.values())} <= set(locked)
    for excluded in recipe.exclude:
        assert not [coordinate for coordinate in locked if coordinate.startswith(f"{excluded}:")]
    assert all("://" not in coordinate for coordinate in locked)


def test_what_is_locked_alone_comes_without_what_it_depends_on() -> None:
    """The others leave out what the recipe excludes; without a list all are alone."""
    nothing, one = "<groupId>*</groupId>", "<groupId>log4j</groupId>"
    pom = maven._pom(["org:tool:1", "org:part:1"], ["log4j:log4j"], {"org:part:1"})
    tool, part = pom.split("<dependency>")[1:]
    assert one in tool and nothing not in tool
    assert nothing in part and one not in part


def test_whose_dependencies_are_locked_does_not_change_the_archive() -> None:
    """The lock does: archives in the store stay what they are."""
    recipe = recipes.load_recipes()["kafka"]
    assert recipes.key(recipe) == recipes.key(recipe.model_copy(update={"alone": ["org:part:1"]}))


def test_wrong_jar_is_refused_by_name(tmp_path: Path) -> None:
    """File, expected and found: enough to tell a damaged file from a changed one."""
    jar = tmp_path / "tool-1.jar"
    jar.write_bytes(b"another")
    found = hashlib.sha256(b"another").hexdigest()
    maven.check({"org:tool:1": jar}, {"org:tool:1": found}, tmp_path / "a.lock")
    with pytest.raises(WrongDigest) as error:
        maven.check({"org:tool:1": jar}, {"org:tool:1": "0" * 64}, tmp_path / "a.lock")
    assert all(words in str(error.value) for words in ("org:tool:1", "0" * 64, found, "a.lock"))


def test_jar_that_is_not_delivered_is_named(tmp_path: Path) -> None:
    """A lock is complete or nothing is installed."""
    with pytest.raises(SupplyError, match=r"org:tool:1: locked in a\.lock"):
        maven.check({}, {"org:tool:1": "0" * 64}, tmp_path / "a.lock")


# -- downloads ---------------------------------------------------------------------------------------------------------


@dataclass
class Server:
    """A server of one file that fails as it is told and keeps what it was asked."""

    body: bytes = BODY
    cuts: list[int] = field(default_factory=list)
    """After so many bytes of an answer, one answer each."""
    statuses: list[int] = field(default_factory=list)
    """What to answer instead, one answer each."""
    ranges: bool = True
    encoding: str = ""
    """What ``Content-Encoding`` tells of the file."""
    beside: dict[str, bytes] = field(default_factory=dict)
    """Other files by their path; they never fail."""
    asked: list[str | None] = field(default_factory=list)
    """The header ``Range`` of each call for the one file."""
    paths: list[str] = field(default_factory=list)
    """The path of each call."""
    port: int = 0

    @property
    def url(self) -> str:
        """Where the file is."""
        return f"http://127.0.0.1:{self.port}/tool.tar.gz"


class Handler(http.server.BaseHTTPRequestHandler):
    """Honours ranges from an offset to the end; cuts by closing the connection."""

    def __init__(self, told: Server, *words: object) -> None:
        self.told = told
        super().__init__(*words)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        """Answer a call."""
        told = self.told
        told.paths.append(self.path)
        if self.path in told.beside:
            self.send_response(200)
            self.send_header("Content-Length", str(len(told.beside[self.path])))
            self.end_headers()
            self.wfile.write(told.beside[self.path])
            return
        wanted = self.headers.get("Range")
        told.asked.append(wanted)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and told.ranges else 0
        if told.statuses:
            self.send_error(told.statuses.pop(0))
            return
        if wanted and told.ranges and start >= len(told.body):
            self.send_error(416)
            return
        body = told.body[start:]
        self.send_response(206 if wanted and told.ranges else 200)
        if told.encoding:
            self.send_header("Content-Encoding", told.encoding)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: told.cuts.pop(0)] if told.cuts else body)

    def log_message(self, *words: object) -> None:
        """Keep quiet."""


@pytest.fixture
def server() -> Iterator[Server]:
    """A real server on a free port."""
    told = Server()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, told)) as listening:  # type: ignore[arg-type]
        told.port = listening.server_address[1]
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield told
        listening.shutdown()
        thread.join()


def test_download(server: Server, tmp_path: Path) -> None:
    """The plain case, and nothing is left beside the file."""
    said: list[str] = []
    download.download(server.url, tmp_path / "tool", DIGEST, said.append)
    assert (tmp_path / "tool").read_bytes() == BODY
    assert [path.name for path in tmp_path.iterdir()] == ["tool"]
    assert server.asked == [None]
    assert said


def test_download_goes_on_where_it_was_cut(server: Server, tmp_path: Path) -> None:
    """450 MB over a bad line: what has come is not fetched again."""
    server.cuts = [1_000_000]
    download.download(server.url, tmp_path / "tool", DIGEST)
    assert (tmp_path / "tool").read_bytes() == BODY
    assert len(server.asked) == 2
    assert server.asked[0] is None
    assert server.asked[1]
    had = int(server.asked[1].removeprefix("bytes=").removesuffix("-"))
    assert 500_000 <= had <= 1_000_000


def test_download_goes_on_from_an_earlier_run(server: Server, tmp_path: Path) -> None:
    """A fetch that was interrupted by hand leaves its part."""
    (tmp_path / "tool.part").write_bytes(BODY[:2_345_678])
    download.download(server.url, tmp_path / "tool", DIGEST)
    assert (tmp_path / "tool").read_bytes() == BODY
    assert server.asked == ["bytes=2345678-"]


def test_whole_part_is_taken(server: Server, tmp_path: Path) -> None:
    """Cut off between the last byte and the renaming: the server answers that there is no more."""
    (tmp_path / "tool.part").write_bytes(BODY)
    download.download(server.url, tmp_path / "tool", DIGEST)
    assert (tmp_path / "tool").read_bytes() == BODY


def test_server_without_ranges_starts_over(server: Server, tmp_path: Path) -> None:
    """What comes is the whole file: it must not be appended to the part."""
    server.ranges = False
    (tmp_path / "tool.part").write_bytes(BODY[:1000])
    download.download(server.url, tmp_path / "tool", DIGEST)
    assert (tmp_path / "tool").read_bytes() == BODY


def test_failing_server_is_asked_again(server: Server, tmp_path: Path) -> None:
    """A 503 passes."""
    server.statuses = [503]
    download.download(server.url, tmp_path / "tool", DIGEST)
    assert (tmp_path / "tool").read_bytes() == BODY


def test_refusing_server_is_not_asked_again(server: Server, tmp_path: Path) -> None:
    """A 404 stays: the next way is tried at once."""
    server.statuses = [404, 404]
    with pytest.raises(SupplyError, match="the server responds with 404"):
        download.download(server.url, tmp_path / "tool", DIGEST)
    assert len(server.asked) == 1
    assert not (tmp_path / "tool").exists()


@pytest.mark.parametrize("host", ["127.0.0.1:9", "nobody.invalid"])
def test_who_can_not_be_reached_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """Nobody listens, or nobody has the name: one more attempt, not the four that a failing server is worth."""
    monkeypatch.setenv("NO_PROXY", "*")
    since = time.monotonic()
    with pytest.raises(NotOffered, match="after 2 attempts"):
        download.download(f"http://{host}/tool", tmp_path / "tool", DIGEST)
    assert time.monotonic() - since < 10


def test_who_does_not_answer_is_given_up_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A firewall that drops: the time that a connection may take was waited for once."""
    monkeypatch.setenv("NO_PROXY", "*")
    assert download.TIMEOUT[0] <= 5
    monkeypatch.setattr(download, "TIMEOUT", (0.3, 5))
    with contextlib.ExitStack() as open_:
        deaf = open_.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        # Whoever comes after those that fill its queue is not answered.
        for _ in range(4):
            waiting = open_.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(deaf.getsockname())
        with pytest.raises(NotOffered, match=r"ConnectTimeout after 1 attempt$"):
            download.download(f"http://127.0.0.1:{deaf.getsockname()[1]}/tool", tmp_path / "tool", DIGEST)


def test_wrong_file_is_refused_and_removed(server: Server, tmp_path: Path) -> None:
    """File, expected and found are told; the next attempt starts from nothing."""
    server.body = b"something else"
    with pytest.raises(WrongDigest) as error:
        download.download(server.url, tmp_path / "tool", DIGEST)
    found = hashlib.sha256(b"something else").hexdigest()
    assert all(words in str(error.value) for words in (server.url, DIGEST, found))
    assert list(tmp_path.iterdir()) == []


def test_part_of_another_file_is_refused(server: Server, tmp_path: Path) -> None:
    """The publisher changed the file between two attempts: both halves are intact, the whole is not."""
    (tmp_path / "tool.part").write_bytes(b"x" * 1000)
    with pytest.raises(WrongDigest):
        download.download(server.url, tmp_path / "tool", DIGEST)
    assert list(tmp_path.iterdir()) == []


def test_file_that_is_told_as_compressed_is_taken_as_it_is(server: Server, tmp_path: Path) -> None:
    """Servers tell a .tar.gz as ``Content-Encoding: gzip``; the digest is that of the file, not of what is in it."""
    server.body, server.encoding = gzip.compress(BODY, mtime=0), "x-gzip"
    download.download(server.url, tmp_path / "tool", hashlib.sha256(server.body).hexdigest())
    assert (tmp_path / "tool").read_bytes() == server.body


# -- archives ----------------------------------------------------------------------------------------------------------


def files(folder: Path, seed: int = 0) -> dict[str, Path]:
    """Make a folder with files of both modes and a link, and return it as members."""
    draw = random.Random(seed)
    (folder / "bin").mkdir(parents=True)
    for name in ("bin/run", "a.jar", "Z.jar", "é.conf"):
        (folder / name).write_bytes(random.Random(name).randbytes(50_000))
        os.utime(folder / name, (draw.randrange(2**30), draw.randrange(2**30)))
        (folder / name).chmod(draw.choice([0o700, 0o755, 0o711]) if name == "bin/run" else draw.choice([0o600, 0o664]))
    (folder / "link").symlink_to("bin/run")
    names = list(tree(folder))
    draw.shuffle(names)
    return {name: folder / name for name in names}


def test_same_members_same_bytes(tmp_path: Path) -> None:
    """Other times, owners, modes of a umask and another order: nodes compare archives by their digest."""
    one, other = tmp_path / "one.tar.zst", tmp_path / "other.tar.zst"
    members, moved = files(tmp_path / "x", 1), files(tmp_path / "y", 2)
    if os.geteuid() == 0:
        for path in moved.values():
            os.chown(path, 12345, 23456, follow_symlinks=False)
    assert list(members) != list(moved)
    assert write_archive(members, one) == write_archive(moved, other)
    assert one.read_bytes() == other.read_bytes()


def test_archive_holds_its_members(tmp_path: Path) -> None:
    """Bit-identical and empty would be worth nothing."""
    members = files(tmp_path / "x")
    digest = write_archive(members, tmp_path / "a.tar.zst")
    assert digest == sha256_file(tmp_path / "a.tar.zst")
    subprocess.run(["zstd", "-q", "-d", tmp_path / "a.tar.zst", "-o", tmp_path / "a.tar"], check=True)
    with tarfile.open(tmp_path / "a.tar") as tar:
        assert tar.getnames() == sorted(members)
        assert {(m.uid, m.gid, m.uname, m.gname, m.mtime) for m in tar} == {(0, 0, "", "", 0)}
        assert {m.name: oct(m.mode) for m in tar if m.isreg()} == {
            "bin/run": "0o755", "a.jar": "0o644", "Z.jar": "0o644", "é.conf": "0o644"
        }  # fmt: skip
        assert tar.getmember("link").linkname == "bin/run"
    unpack(tmp_path / "a.tar", tmp_path / "out")
    for name, path in members.items():
        assert (tmp_path / "out" / name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("change", ["content", "name", "mode", "link"])
def test_other_members_other_bytes(tmp_path: Path, change: str) -> None:
    """All that matters on a node is in the digest."""
    members = files(tmp_path / "x")
    before = write_archive(members, tmp_path / "a")
    if change == "content":
        (tmp_path / "x" / "a.jar").write_bytes(b"other")
    elif change == "name":
        members["b.jar"] = members.pop("a.jar")
    elif change == "mode":
        (tmp_path / "x" / "a.jar").chmod(0o755)
    else:
        (tmp_path / "x" / "link").unlink()
        (tmp_path / "x" / "link").symlink_to("a.jar")
    assert write_archive(members, tmp_path / "a") != before


@pytest.mark.parametrize("name", ["../outside", "/tmp/outside", "inside/../../outside"])
def test_members_stay_inside(tmp_path: Path, name: str) -> None:
    """A vendor's archive is verified first; its names are not trusted all the same."""
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("inside/file"))
        tar.addfile(tarfile.TarInfo(name))
    with contextlib.suppress(SupplyError):
        unpack(tmp_path / "a.tar.gz", tmp_path / "x" / "out")
    assert not (tmp_path / "x" / "outside").exists() and not Path("/tmp/outside").exists()


def test_what_is_no_archive_is_told(tmp_path: Path) -> None:
    """A page of a proxy, say."""
    (tmp_path / "a.tar.gz").write_text("<html>Log in</html>")
    with pytest.raises(SupplyError, match=r"a\.tar\.gz can't be unpacked"):
        unpack(tmp_path / "a.tar.gz", tmp_path / "out")


def test_nothing_needs_extraction_filters(checkout: Path) -> None:
    """Debian 12's Python 3.11.2 has none: they came with 3.11.4."""
    for file in [*(checkout / "src").rglob("*.py"), *(checkout / "ansible" / "plugins").rglob("*.py")]:
        assert not re.search(r"extract(all)?\([^)]*filter=", file.read_text()), file


def test_full_disk_is_told(tmp_path: Path) -> None:
    """An archive that could not be written whole is an error and not a short archive."""
    with pytest.raises((subprocess.CalledProcessError, OSError)):
        write_archive(files(tmp_path / "x"), Path("/dev/full"))


def test_bytecode_is_left_out(tmp_path: Path) -> None:
    """It holds times and paths of the machine that made it."""
    (tmp_path / "a.py").touch()
    (tmp_path / "a.pyc").touch()
    assert list(tree(tmp_path, "python/")) == ["python/a.py"]


# -- keys --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of recipes instead of the checkout's."""
    folder = tmp_path / "roles" / "x" / "archives"
    folder.mkdir(parents=True)
    monkeypatch.setattr(recipes, "ROLES", tmp_path / "roles")
    (folder / "tool.yml").touch()
    write_lock(folder / "tool.lock", {"org:tool:1": "0" * 64}, "tool 1")
    return folder


def recipe(**changes: object) -> Recipe:
    """Return a recipe with changes."""
    return Recipe.model_validate({"name": "tool", "version": "1", "title": "A tool", "kind": "jars"} | changes)


def test_key_is_that_of_the_inputs(catalog: Path) -> None:
    """What a built archive is found by: recipe, lock, and the files of a module that is built."""
    seen = {ways.key(recipe())}
    assert ways.key(recipe()) in seen
    write_lock(catalog / "tool.lock", {"org:tool:1": "1" * 64}, "tool 1")
    seen.add(ways.key(recipe()))
    write_lock(catalog / "tool.lock", {"org:tool:1": "1" * 64, "org:other:1": "2" * 64}, "tool 1")
    seen.add(ways.key(recipe()))
    seen.add(ways.key(recipe(version="2")))
    seen.add(ways.key(recipe(exclude=["org:bad"])))
    (catalog / "tool").mkdir()
    (catalog / "tool" / "go.sum").write_text("module v1 h1:abc=\n")
    seen.add(ways.key(recipe()))
    seen.add(recipes.key(recipe(), "go1.23"))
    assert len(seen) == 7


def test_every_recipe_of_the_catalog_can_be_keyed() -> None:
    """Each archive has a key, and no two share one."""
    keys = {name: ways.key(one) for name, one in recipes.load_recipes().items()}
    assert len(set(keys.values())) == len(keys)


# -- the store ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Berny's own code as the archive ``berny`` packs it: small, and had without a network."""
    folder = tmp_path / "src" / "berny"
    (folder / "runtime").mkdir(parents=True)
    (folder / "lab").mkdir()
    (folder / "runtime" / "spool.py").write_bytes(random.Random(2).randbytes(200_000))
    (folder / "lab" / "lab.py").write_text("controller = True\n")
    monkeypatch.setattr(ways, "PACKAGE", folder)
    return folder


@pytest.fixture
def store(tmp_path: Path, code: Path) -> Store:
    """An empty store."""
    return Store(tmp_path / "store")


def test_fetched_archive_is_found(store: Store, code: Path) -> None:
    """A second fetch makes nothing."""
    assert store.find("berny") is None
    made = store.fetch("berny")
    assert store.find("berny") == made == store.resolve("berny") == store.verify("berny")
    assert made.sha256 == sha256_file(made.path)
    since = made.path.stat().st_mtime_ns
    assert store.fetch("berny").path.stat().st_mtime_ns == since
    assert not [path for path in made.path.parent.iterdir() if path.name.startswith(".making")]


def test_changed_input_is_another_archive(store: Store, code: Path) -> None:
    """An archive made from yesterday's inputs is not today's."""
    before = store.fetch("berny")
    (code / "runtime" / "spool.py").write_text("changed = True\n")
    assert store.find("berny") is None
    after = store.fetch("berny")
    assert after.path != before.path
    (code / "lab" / "lab.py").write_text("changed = True\n")
    assert store.find("berny") == after, "what only a controller needs restarts nothing on nodes"


def test_same_input_is_the_same_archive(store: Store, tmp_path: Path) -> None:
    """Two controllers install the same bytes."""
    assert store.fetch("berny").sha256 == Store(tmp_path / "other").fetch("berny").sha256


@pytest.mark.parametrize("damage", ["truncated", "removed", "no index", "torn index", "empty index", "zeroed index"])
def test_half_written_archive_is_not_found(store: Store, damage: str) -> None:
    """A fetch that a power cut ended leaves anything: it is made again, and nothing half is installed."""
    made = store.fetch("berny")
    index = next(made.path.parent.glob("*.json"))
    if damage == "truncated":
        os.truncate(made.path, 1000)
    elif damage == "removed":
        made.path.unlink()
    elif damage == "no index":
        index.unlink()
    elif damage == "torn index":
        index.write_text(index.read_text()[:30])
    elif damage == "empty index":
        index.write_text("")
    else:
        index.write_bytes(bytes(100))
    assert store.find("berny") is None
    again = store.fetch("berny")
    assert again.sha256 == made.sha256 == sha256_file(again.path)


def test_archive_without_index_is_not_found(store: Store) -> None:
    """The index is written last."""
    made = store.fetch("berny")
    content = made.path.read_bytes()
    other = Store(store.folder.with_name("other"))
    (other.folder / "berny").mkdir(parents=True)
    (other.folder / "berny" / made.path.name).write_bytes(content)
    assert other.find("berny") is None


def test_damaged_archive_is_found_out(store: Store) -> None:
    """A flipped bit keeps the size: ``verify`` names the file, expected and found, and it is made again."""
    made = store.fetch("berny")
    content = bytearray(made.path.read_bytes())
    content[len(content) // 2] ^= 1
    made.path.write_bytes(content)
    assert store.find("berny") == made, "sizes are compared, not digests"
    with pytest.raises(WrongDigest) as error:
        store.verify("berny")
    assert all(words in str(error.value) for words in (str(made.path), made.sha256, sha256_file(made.path)))
    assert store.find("berny") is None
    assert sha256_file(store.fetch("berny").path) == made.sha256


def test_missing_archive_says_what_to_run(store: Store) -> None:
    """Only Berny's own code is packed on the spot."""
    with pytest.raises(ArtifactMissing, match="berny artifacts fetch kafka"):
        store.resolve("kafka")
    assert store.resolve("berny").path.exists()


def test_unknown_archive_is_told_with_the_known() -> None:
    """A misspelt name is answered with the names."""
    with pytest.raises(SupplyError, match=r"no archive 'kafak'; there are .*kafka"):
        Store().find("kafak")


def test_two_at_once_make_one(store: Store) -> None:
    """Two commands that fetch the same archive wait for each other."""
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: Store(store.folder).fetch("berny"), range(4)))
    assert len(set(made)) == 1
    assert len(list(made[0].path.parent.glob("*.tar.zst"))) == 1


def test_old_archives_are_dropped(store: Store, code: Path) -> None:
    """The store keeps today's and two before it, and no index of what is gone."""
    for number in range(6):
        (code / "runtime" / "spool.py").write_text(f"{number}\n")
        made = store.fetch("berny")
        os.utime(made.path, (number, number))
    kept = list(made.path.parent.glob("*.tar.zst"))
    assert len(kept) == 3
    assert made.path in kept
    for index in made.path.parent.glob("*.json"):
        assert (made.path.parent / json.loads(index.read_text())["file"]) in kept


def test_failed_fetch_leaves_nothing(store: Store, code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive that can't be packed is not there, and its scratch is gone."""

    def fail(*_: object) -> str:
        raise OSError("No space left on device")

    work: Callable[..., str] = fail
    monkeypatch.setattr("berny.controller.artifacts.store.write_archive", work)
    with pytest.raises(OSError, match="No space left"):
        store.fetch("berny")
    assert store.find("berny") is None
    assert [path.name for path in (store.folder / "berny").iterdir()] == [".lock"]


# -- Berny's own code --------------------------------------------------------------------------------------------------


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A checkout with a component and two pipelines."""
    package, role = tmp_path / "src" / "berny", tmp_path / "roles" / "tool"
    for file in (
        *(package / "model" / name for name in ("catalog.py", "__pycache__/catalog.cpython-311.pyc")),
        *(package / "runtime" / name for name in ("stage.py", "probe/load.py", "probe/__pycache__/load.py")),
        *(package / name for name in ("cli.py", "controller/settings.py", "lab/lab.py", "faults/bench.py")),
        *(role / name for name in ("probe.py", "component.yml", "tasks/main.yml", "library/tool.py")),
    ):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("first\n")
    (role / "archives").mkdir()
    (role / "archives" / "berny.yml").write_text("{title: Berny, version: 0.1.0, kind: source}\n")
    for pipeline in ("idfm", "weather"):
        folder = package / "pipelines" / pipeline
        (folder / "controller").mkdir(parents=True)
        (folder / "pipeline.yml").write_text(f"title: The {pipeline}\nstages: {{s: {{on: tool}}}}\n")
        for name in ("__init__.py", "stage.py", "README.md", "controller/simulator.py"):
            (folder / name).write_text("first\n")
    (package / "pipelines" / "unfinished").mkdir()
    (package / "pipelines" / "unfinished" / "stage.py").write_text("no manifest\n")
    monkeypatch.setattr(ways, "PACKAGE", package)
    monkeypatch.setattr(recipes, "ROLES", tmp_path / "roles")
    monkeypatch.setattr(recipes, "PIPELINES", package / "pipelines")
    recipes.load_recipes.cache_clear()
    yield tmp_path
    recipes.load_recipes.cache_clear()


def listed(archive: Path) -> list[str]:
    """Return the names of an archive's members."""
    return subprocess.run(["tar", "-tf", archive], capture_output=True, text=True, check=True).stdout.split()


def test_each_pipeline_is_an_archive(two: Path) -> None:
    """Found by its manifest, with its title and the version of what all nodes have; nobody keeps a list."""
    found = {name: (one.title, one.version, one.kind) for name, one in recipes.load_recipes().items()}
    assert found == {
        "berny": ("Berny", "0.1.0", "source"),
        "berny-idfm": ("The pipeline: The idfm", "0.1.0", "source"),
        "berny-weather": ("The pipeline: The weather", "0.1.0", "source"),
    }
    store = Store(two / "store")
    made = store.fetch("berny-idfm").path
    assert made.name.startswith("berny-idfm-0.1.0-")
    assert listed(made) == [
        f"python/berny/pipelines/idfm/{name}" for name in ("__init__.py", "pipeline.yml", "stage.py")
    ]
    assert listed(store.fetch("berny").path) == [
        "python/berny/model/catalog.py",
        "python/berny/runtime/probe/load.py",
        "python/berny/runtime/stage.py",
        "python/berny_probes/tool.py",
    ]


def test_scripts_of_a_pipeline_are_in_its_archive(two: Path) -> None:
    """Beside its code, for people; other folders stay on the controller."""
    folder = recipes.PIPELINES / "idfm" / "scripts"
    folder.mkdir()
    (folder / "again.sh").write_text("#!/bin/sh\n")
    recipes.load_recipes.cache_clear()
    assert "scripts/again.sh" in listed(Store(two / "store").fetch("berny-idfm").path)


@pytest.mark.parametrize(
    ("changed", "archives"),
    [
        ("src/berny/pipelines/idfm/stage.py", {"berny-idfm"}),
        ("src/berny/pipelines/idfm/pipeline.yml", {"berny-idfm"}),
        ("src/berny/pipelines/idfm/new.py", {"berny-idfm"}),
        ("src/berny/pipelines/weather/__init__.py", {"berny-weather"}),
        ("src/berny/model/catalog.py", {"berny"}),
        ("src/berny/runtime/probe/load.py", {"berny"}),
        ("roles/tool/probe.py", {"berny"}),
        ("src/berny/pipelines/idfm/controller/simulator.py", set()),
        ("src/berny/pipelines/idfm/README.md", set()),
        ("src/berny/pipelines/unfinished/stage.py", set()),
        ("src/berny/cli.py", set()),
        ("src/berny/controller/settings.py", set()),
        ("src/berny/lab/lab.py", set()),
        ("src/berny/faults/bench.py", set()),
        ("roles/tool/component.yml", set()),
        ("roles/tool/tasks/main.yml", set()),
        ("roles/tool/library/tool.py", set()),
    ],
)
def test_change_is_another_archive_of_what_has_it(two: Path, changed: str, archives: set[str]) -> None:
    """Stages are restarted by a change of their pipeline, not of another; by one on the controller's side none is."""
    store = Store(two / "store")
    before = {name: store.fetch(name).sha256 for name in recipes.load_recipes()}
    with (two / changed).open("a") as file:
        file.write("# changed\n")
    recipes.load_recipes.cache_clear()
    assert {name for name in before if not store.find(name)} == archives
    assert {name for name, sha256 in before.items() if store.fetch(name).sha256 != sha256} == archives


IMPORTS = """
import importlib, pathlib, sys
import berny.pipelines.idfm.points, berny.runtime.stage
for folder in sys.path:
    for file in pathlib.Path(folder, "berny_probes").glob("*.py"):
        importlib.import_module(f"berny_probes.{file.stem}")
for name, module in sorted(sys.modules.items()):
    if name.startswith("berny"):
        print(name, *([module.__file__] if module.__file__ else module.__path__))
"""


def test_archives_are_all_that_a_stage_needs(tmp_path: Path) -> None:
    """Unpacked as on a node, with no other code of ours: a pipeline, what it is built on and every probe can be imported."""
    store = Store(tmp_path / "store")
    for name in ("berny", "berny-idfm"):
        unpack(store.fetch(name).path, tmp_path / name)
    own = [str(tmp_path / name / "python") for name in ("berny-idfm", "berny")]

    def python(*path: str) -> subprocess.CompletedProcess[str]:
        # Without the module site no .pth is read, which would add the checkout; -P leaves the working directory out.
        variables = {"PYTHONPATH": ":".join([*path, sysconfig.get_path("purelib")])}
        command = [sys.executable, "-S", "-P", "-c", IMPORTS]
        return subprocess.run(command, capture_output=True, text=True, env=variables, cwd=tmp_path)

    done = python(*own)
    assert done.returncode == 0, done.stderr
    found = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert {name: places for name, places in found.items() if str(tmp_path) not in places} == {}
    assert found["berny"].split() == [f"{folder}/berny" for folder in own]
    assert found["berny.pipelines.idfm.points"] == f"{own[0]}/berny/pipelines/idfm/points.py"
    assert found["berny.runtime.stage"] == f"{own[1]}/berny/runtime/stage.py"
    probes = {name.removeprefix("berny_probes.") for name in found if name.startswith("berny_probes.")}
    assert probes == {file.parent.name for file in recipes.ROLES.glob("*/probe.py")} != set()
    alone = python(own[1])
    assert alone.returncode and "No module named 'berny.pipelines'" in alone.stderr


# -- a vendor's archive, or an operator's ------------------------------------------------------------------------------

HOLDS = ["bin/tool", "public"]


@pytest.fixture
def vendors(
    catalog: Path, tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., str]]:
    """Return a function that serves an archive as its vendor does and returns its digest.

    The recipe of the archive, an optional one, has the digest of what was served last, unless that was put into a ``file``.
    """

    def recipe_of(digest: str) -> None:
        facts = {"title": "A tool", "version": "1.0.0", "kind": "vendor", "optional": True}
        vendor = {"url": server.url, "sha256": digest, "holds": HOLDS}
        (catalog / "tool.yml").write_text(yaml.safe_dump({**facts, "vendor": vendor}))
        recipes.load_recipes.cache_clear()

    def serve(version: str = "v2.0.1", top: str = "tool-v2.0.1", without: str = "", file: Path | None = None) -> str:
        folder = tmp_path / "packed" / top
        shutil.rmtree(folder.parent, ignore_errors=True)
        for name in ("VERSION", "bin/tool", "public/index.html"):
            if name != without:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_text(version if name == "VERSION" else name)
        target = file or tmp_path / "served.tar.gz"
        with tarfile.open(target, "w:gz") as tar:
            tar.add(folder, top)
        digest = sha256_file(target)
        if not file:
            server.body = target.read_bytes()
            recipe_of(digest)
        return digest

    recipe_of("0" * 64)
    monkeypatch.delenv("BERNY_TOOL_ARCHIVE", raising=False)
    monkeypatch.delenv("BERNY_TOOL_SHA256", raising=False)
    monkeypatch.delenv("BERNY_MIRROR", raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    yield serve
    recipes.load_recipes.cache_clear()


def test_vendors_archive_by_its_digest(vendors: Callable[..., str], tmp_path: Path) -> None:
    """Without anybody's help, what is in its one folder; its own version is told."""
    store = Store(tmp_path / "store")
    digest = vendors()
    made = store.fetch("tool")
    assert made.version == "2.0.1" and made.path.name.startswith("tool-2.0.1-")
    listed = subprocess.run(["tar", "--zstd", "-tf", made.path], capture_output=True, text=True, check=True).stdout
    assert listed.split() == ["VERSION", "bin/tool", "public/index.html"]
    assert store.find("tool") == store.resolve("tool") == store.verify("tool") == made
    assert store.find("tool", sha256=digest) == made and store.find("tool", sha256="6" * 64) is None


def test_operators_digest_goes_before_the_catalogs(
    vendors: Callable[..., str], server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has one that the catalog does not know gives it once; who comes later needs none."""
    store = Store(tmp_path / "store")
    first = vendors()
    store.fetch("tool")
    file = tmp_path / "newer.tar.gz"
    monkeypatch.setenv("BERNY_TOOL_SHA256", vendors(version="v2.0.2", file=file))
    server.body = file.read_bytes()
    newer = store.fetch("tool")
    assert newer.version == "2.0.2" and first != sha256_file(file)
    monkeypatch.delenv("BERNY_TOOL_SHA256")
    assert store.resolve("tool") == newer


@pytest.mark.parametrize("away", ["404", "refused"])
def test_optional_archive_whose_vendor_is_away(
    vendors: Callable[..., str], server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, away: str
) -> None:
    """A host without internet access goes on without it; one line says what is missing and how to add it."""
    vendors()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    server.statuses = [404]
    if away == "refused":
        monkeypatch.setattr(server, "port", 9)
        vendors()
    done = CliRunner().invoke(cli.app, ["fetch", "tool"])
    assert done.exit_code == 0, done.output
    told = [line for line in done.output.splitlines() if "NOT RUN: tool (archive not in the store: " in line]
    assert len(told) == 1 and "berny artifacts fetch tool" in told[0] and "BERNY_TOOL_ARCHIVE=FILE_OR_URL" in told[0]
    assert ("responds with 404" if away == "404" else "can't be downloaded") in told[0]
    assert "no (optional)" in CliRunner().invoke(cli.app, ["list"]).output
    assert CliRunner().invoke(cli.app, ["verify"]).exit_code == 0
    with pytest.raises(ArtifactMissing):
        Store().resolve("tool")


def test_wrong_digest_of_an_optional_archive_is_an_error(
    vendors: Callable[..., str], server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Optional is whether it is there, not what it is; the message says where the digest is from."""
    locked = vendors()
    server.body += b"x"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for expected, told_by in ((locked, "tool.yml"), ("1" * 64, "BERNY_TOOL_SHA256")):
        if told_by != "tool.yml":
            monkeypatch.setenv(told_by, expected)
        done = CliRunner().invoke(cli.app, ["fetch", "tool"])
        assert done.exit_code == 1
        for words in (expected, hashlib.sha256(server.body).hexdigest(), told_by, "Nothing was installed."):
            assert words in done.output
    assert Store().find("tool") is None


def test_operators_archive_is_taken_instead(
    vendors: Callable[..., str], server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file, or an address, with its digest; another digest is another archive."""
    store, file = Store(tmp_path / "store"), tmp_path / "own.tar.gz"
    first = vendors(version="9.5.1", top="tool-9.5.1", file=file)
    made = store.resolve("tool", str(file), first)
    assert made.version == "9.5.1" and server.asked == []
    second = vendors(version="11.0.0", top="tool-11")
    assert store.find("tool", server.url, second) is None
    other = store.resolve("tool", f"{server.url}?mirror", second)
    assert other.version == "11.0.0" and other.sha256 != made.sha256
    assert store.find("tool") == other, "what was added last"
    monkeypatch.setenv("BERNY_TOOL_ARCHIVE", str(file))
    monkeypatch.setenv("BERNY_TOOL_SHA256", first)
    assert store.fetch("tool").sha256 == made.sha256


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"sha256": ""}, "give it as BERNY_TOOL_SHA256"),
        ({"archive": "/nowhere/tool.tar.gz"}, "correct BERNY_TOOL_ARCHIVE"),
        ({"archive": "http://127.0.0.1:9/tool.tar.gz"}, "can't be downloaded"),
        ({"sha256": "0" * 64}, "BERNY_TOOL_SHA256"),
        ({"without": "bin/tool"}, "lacks bin/tool"),
        ({"broken": True}, "can't be unpacked"),
    ],
)
def test_operators_archive_that_can_not_be_had_is_an_error(
    vendors: Callable[..., str], tmp_path: Path, given: dict[str, Any], told: str
) -> None:
    """Who names an archive wants it: nothing goes on without."""
    file = tmp_path / "own.tar.gz"
    digest = vendors(file=file, without=given.get("without", ""))
    if given.get("broken"):
        file.write_bytes(b"no archive")
        digest = hashlib.sha256(b"no archive").hexdigest()
    store = Store(tmp_path / "store")
    with pytest.raises(SupplyError, match=told) as error:
        store.resolve("tool", given.get("archive", str(file)), given.get("sha256", digest))
    assert not isinstance(error.value, NotOffered)
    assert store.find("tool") is None


def test_keys_of_others_stay(catalog: Path) -> None:
    """What is optional, how a layout is checked, where an archive is and who vouches for it makes no archive anew."""
    one = recipe(kind="go", vendor={"url": "http://vendor.example/a", "sha256": "1" * 64, "members": {"a": "b"}})
    signature = {"key": "http://vendor.example/key", "fingerprint": "A" * 40}
    changes = {"holds": ["a"], "url": "http://other.example/a", "sha256": None, "signature": signature}
    other = one.model_copy(update={"optional": True, "vendor": one.vendor.model_copy(update=changes)})
    assert ways.key(one) == ways.key(other)
    assert ways.key(one) != ways.key(one.model_copy(update={"version": "2"}))


def test_somebody_vouches_for_every_vendors_archive() -> None:
    """By digest or signature, for the very version; a recipe without either is no recipe."""
    found = {name: one for name, one in recipes.load_recipes().items() if one.vendor}
    assert found.keys() == {"grafana", "influx", "influxdb"}
    for one in found.values():
        assert one.vendor and one.vendor.url.startswith("https://") and one.version in one.vendor.url.rsplit("/", 1)[1]
        assert re.fullmatch("[0-9a-f]{64}", one.vendor.sha256 or "") or one.vendor.signature
    vendor = found["influxdb"].vendor
    assert vendor and vendor.signature and vendor.signature.key.startswith("https://")
    assert f"/v{found['influxdb'].version}/" in vendor.url
    with pytest.raises(ValueError, match="nobody vouches for it"):
        recipe(kind="vendor", vendor={"url": "https://vendor.example/a"})


# -- a vendor's archive by its signature -------------------------------------------------------------------------------

DAY = 86400
YEAR_2024 = 1704067200


class Signer:
    """A vendor with a real key: the primary one only certifies, subkeys sign."""

    def __init__(self, home: Path, name: str) -> None:
        self.home = home
        if not home.exists():
            home.mkdir(mode=0o700)
            self.gpg(
                "--quick-generate-key", f"{name} <{name}@vendor.example>", "ed25519", "cert", "never", at=YEAR_2024
            )
            self.fingerprint = self.named(name)
            self.subkey()
        self.fingerprint = self.named(name)

    def named(self, name: str) -> str:
        """Return the fingerprint of a primary key."""
        listed = self.gpg("--list-keys", "--with-colons", name).decode().splitlines()
        return next(line.split(":")[9] for line in listed if line.startswith("fpr:"))

    def gpg(self, *words: str, at: int = 0, given: bytes = b"") -> bytes:
        """Run gpg, as of a time in seconds since the epoch, and return what it prints."""
        command = ["gpg", "--homedir", str(self.home), "--batch", "--no-tty", "--pinentry-mode", "loopback"]
        command += ["--passphrase", "", *(["--faked-system-time", f"{at}!"] if at else [])]
        return subprocess.run([*command, *words], input=given, capture_output=True, check=True).stdout

    def subkey(self, days: int = 0, at: int = YEAR_2024) -> None:
        """Add a subkey that signs, for some days or for ever; the newest one is what signs."""
        self.gpg(
            "--quick-add-key", self.fingerprint, "ed25519", "sign", f"seconds={days * DAY}" if days else "0", at=at
        )

    def sign(self, content: bytes, at: int = 0) -> bytes:
        """Return a detached signature."""
        return self.gpg("--armor", "--detach-sign", given=content, at=at)

    @property
    def key(self) -> bytes:
        """The public key as a vendor publishes it."""
        return self.gpg("--armor", "--export", self.fingerprint)


@contextlib.contextmanager
def homes() -> Iterator[Path]:
    """Yield a folder for homes of gpg; their paths are short, since its agent has a socket there, and it is ended."""
    path = os.environ["PATH"]
    with tempfile.TemporaryDirectory(prefix="gpg-", dir="/tmp") as folder:
        yield Path(folder)
        for home in Path(folder).iterdir():
            kill = ["gpgconf", "--homedir", home, "--kill", "all"]
            subprocess.run(kill, check=True, env=os.environ | {"PATH": path})


@pytest.fixture(scope="session")
def first_homes() -> Iterator[Path]:
    """Homes with keys as they were made: each is made once, tests work on copies."""
    with homes() as folder:
        yield folder


@pytest.fixture
def signer(first_homes: Path) -> Iterator[Callable[[str], Signer]]:
    """Return a maker of vendors, each with a subkey that signs."""
    with homes() as folder:

        def make(name: str) -> Signer:
            first = Signer(first_homes / name, name)
            shutil.copytree(first.home, folder / name, ignore=lambda _, names: [n for n in names if n.startswith("S.")])
            return Signer(folder / name, name)

        yield make


@pytest.fixture
def signed(
    catalog: Path, tmp_path: Path, server: Server, signer: Callable[[str], Signer], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Signer]:
    """A vendor whose archive lies on the server, signed; its recipe can be built as well, where there are compilers."""
    vendor = signer("vendor")
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "tool").write_bytes(random.Random(3).randbytes(200_000))
    with tarfile.open(tmp_path / "served.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "packed" / "tool", "tool-1.0.0/usr/bin/tool")
    server.body = (tmp_path / "served.tar.gz").read_bytes()
    server.beside = {"/vendor.key": vendor.key, "/tool.tar.gz.asc": vendor.sign(server.body)}
    facts: dict[str, Any] = {"title": "A tool", "version": "1.0.0", "kind": "go"}
    signature = {"key": server.url.replace("tool.tar.gz", "vendor.key"), "fingerprint": vendor.fingerprint}
    members = {"bin/tool": "tool-1.0.0/usr/bin/tool"}
    facts["vendor"] = {"url": server.url, "signature": signature, "members": members}
    (catalog / "tool.yml").write_text(yaml.safe_dump(facts))
    (catalog / "tool").mkdir()
    (catalog / "tool" / "go.mod").write_text("module tool\n\ngo 1.23.0\n")
    recipes.load_recipes.cache_clear()
    for variable in ("BERNY_TOOL_ARCHIVE", "BERNY_TOOL_SHA256", "BERNY_MIRROR"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(download, "ATTEMPTS", 2)
    yield vendor
    recipes.load_recipes.cache_clear()


def test_signed_archive(signed: Signer, server: Server, tmp_path: Path) -> None:
    """Signed by a subkey of the pinned key, which comes first; nobody has to give anything."""
    store = Store(tmp_path / "store")
    made = store.fetch("tool")
    assert server.paths == ["/vendor.key", "/tool.tar.gz.asc", "/tool.tar.gz"]
    unpack(made.path, tmp_path / "out")
    assert (tmp_path / "out" / "bin" / "tool").read_bytes() == (tmp_path / "packed" / "tool").read_bytes()
    assert store.resolve("tool") == made == store.find("tool", sha256=hashlib.sha256(server.body).hexdigest())


def test_signature_by_the_primary_key(
    signed: Signer, server: Server, signer: Callable[[str], Signer], tmp_path: Path
) -> None:
    """A vendor without subkeys, whose key was added to another's file."""
    vendor = signer("old")
    vendor.gpg("--quick-generate-key", "old2 <old2@vendor.example>", "ed25519", "sign", "never")
    primary = vendor.named("old2")
    server.beside = {
        "/vendor.key": signed.key + vendor.gpg("--armor", "--export", primary),
        "/tool.tar.gz.asc": vendor.gpg("--armor", "--local-user", primary, "--detach-sign", given=server.body),
    }
    pin(recipes.recipe_files()["tool"].parent, primary)
    assert Store(tmp_path / "store").fetch("tool").version == "1.0.0"


def pin(catalog: Path, fingerprint: str) -> None:
    """Have another fingerprint in the recipe."""
    facts = yaml.safe_load((catalog / "tool.yml").read_text())
    facts["vendor"]["signature"]["fingerprint"] = fingerprint
    (catalog / "tool.yml").write_text(yaml.safe_dump(facts))
    recipes.load_recipes.cache_clear()


def refused(server: Server, tmp_path: Path) -> str:
    """Fetch what is to be refused; neither is it in the store nor was it built. Return why."""
    store = Store(tmp_path / "store")
    with pytest.raises(WrongSignature, match="Nothing was installed") as error:
        store.fetch("tool")
    assert store.find("tool") is None
    assert [path.name for path in (store.folder / "tool").iterdir()] == [".lock"]
    assert f"http://127.0.0.1:{server.port}/" in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("change", ["bit", "short", "longer", "other"])
def test_archive_that_is_not_what_was_signed(signed: Signer, server: Server, tmp_path: Path, change: str) -> None:
    """Changed by its publisher or on its way, or cut short where the server tells no other length."""
    body = server.body
    server.body = {
        "bit": body[:5000] + bytes([body[5000] ^ 1]) + body[5001:],
        "short": body[:-1000],
        "longer": body + b"x",
        "other": b"<html>Log in</html>",
    }[change]
    why = refused(server, tmp_path)
    assert "is not what was signed" in why and server.url in why and signed.fingerprint in why


def test_truncated_download_goes_on(signed: Signer, server: Server, tmp_path: Path) -> None:
    """Cut off on its way, it is continued, and then verified as a whole."""
    server.cuts = [50_000]
    assert Store(tmp_path / "store").fetch("tool").version == "1.0.0"
    assert server.asked == [None, "bytes=50000-"]


@pytest.mark.parametrize("added", [False, True])
def test_right_signature_by_another_key(
    signed: Signer, server: Server, signer: Callable[[str], Signer], tmp_path: Path, added: bool
) -> None:
    """Also where that key was smuggled into the vendor's file, beside the right one."""
    other = signer("other")
    server.beside["/tool.tar.gz.asc"] = other.sign(server.body)
    if added:
        server.beside["/vendor.key"] += other.key
    why = refused(server, tmp_path)
    assert "is signed by another key" in why and (other.fingerprint in why or not added)


def test_another_key_is_refused_before_anything_else(
    signed: Signer, server: Server, signer: Callable[[str], Signer], tmp_path: Path
) -> None:
    """Both are told, the one that was pinned and the one that came; the archive is not even asked for."""
    other = signer("other")
    server.beside = {"/vendor.key": other.key, "/tool.tar.gz.asc": other.sign(server.body)}
    why = refused(server, tmp_path)
    assert "vendor.key" in why and f"holds the key {other.fingerprint}" in why and signed.fingerprint in why
    assert server.paths == ["/vendor.key"]


@pytest.mark.parametrize("path", ["/vendor.key", "/tool.tar.gz.asc"])
@pytest.mark.parametrize("content", [b"", b"<html>Log in</html>"])
def test_neither_key_nor_signature(signed: Signer, server: Server, tmp_path: Path, path: str, content: bytes) -> None:
    """A proxy's page with status 200."""
    server.beside[path] = content
    why = refused(server, tmp_path)
    assert ("holds no key" if path == "/vendor.key" else "has no signature that can be read") in why


def test_signature_by_a_subkey_that_has_expired_since(signed: Signer, server: Server, tmp_path: Path) -> None:
    """An archive of last year, after its vendor has renewed the subkey."""
    signed.subkey(days=30, at=YEAR_2024 + DAY)
    server.beside["/tool.tar.gz.asc"] = signed.sign(server.body, at=YEAR_2024 + 20 * DAY)
    signed.subkey(at=YEAR_2024 + 40 * DAY)
    server.beside["/vendor.key"] = signed.key
    assert Store(tmp_path / "store").fetch("tool").version == "1.0.0"


def test_signature_after_the_subkey_has_expired(signed: Signer, server: Server, tmp_path: Path) -> None:
    """Whoever found an old subkey can sign with it."""
    signed.subkey(days=30, at=YEAR_2024 + DAY)
    server.beside["/tool.tar.gz.asc"] = signed.sign(server.body, at=YEAR_2024 + 20 * DAY)
    at = YEAR_2024 + 2 * DAY
    signed.gpg("--quick-set-expire", signed.fingerprint, f"seconds={10 * DAY}", "*", at=at)
    server.beside["/vendor.key"] = signed.key
    assert "signed after the key had expired" in refused(server, tmp_path)


def test_signature_by_a_revoked_subkey(signed: Signer, server: Server, tmp_path: Path) -> None:
    """Its vendor has said that nothing by it is to be believed."""
    edit = b"key 1\nrevkey\ny\n1\n\ny\nsave\n"
    signed.gpg("--command-fd", "0", "--edit-key", signed.fingerprint, given=edit)
    server.beside["/vendor.key"] = signed.key
    assert "by a key that is revoked" in refused(server, tmp_path)


def test_without_gpg_one_line_says_what_is_missing(
    signed: Signer, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The vendor can be reached: to build it would be no remedy."""
    tools(tmp_path, monkeypatch)
    with pytest.raises(ToolMissing, match="gpg is not installed; on Debian: apt-get install gpg"):
        Store(tmp_path / "store").fetch("tool")


def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *real: str, **told: str) -> None:
    """Have nothing on the path but these real programs, and others that print what is given."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in real:
        (folder / name).symlink_to(shutil.which(name) or "")
    for name, words in told.items():
        (folder / name).write_text(f"#!/bin/sh\necho '{words}'\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


@pytest.mark.parametrize(
    ("there", "lacking"),
    [
        (
            # As Debian 12 has them.
            {"go": "go version go1.19.8 linux/amd64", "cargo": "cargo 1.65.0", "cc": ""},
            "Go 1.23 or newer (it has 1.19), Cargo 1.80 or newer (it has 1.65)",
        ),
        ({"go": "go version go1.23.0 linux/amd64"}, "Cargo 1.80 or newer, a C compiler (gcc)"),
        ({}, "Go 1.23 or newer, Cargo 1.80 or newer, a C compiler (gcc)"),
    ],
)
@pytest.mark.parametrize("away", ["refused", "404", "signature"])
def test_vendor_away_and_no_compilers(
    signed: Signer,
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    there: dict[str, str],
    lacking: str,
    away: str,
) -> None:
    """One line says who is away, all that the build lacks, and how to do without both."""
    if away == "refused":
        file = recipes.recipe_files()["tool"]
        facts = file.read_text()
        file.write_text(facts.replace(f":{server.port}/", ":9/"))
        recipes.load_recipes.cache_clear()
    elif away == "404":
        server.statuses = [404]
    else:
        del server.beside["/tool.tar.gz.asc"]
        server.statuses = [404]
    tools(tmp_path, monkeypatch, "gpg", **there)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    done = CliRunner().invoke(cli.app, ["fetch", "tool"])
    assert done.exit_code == 1
    (told,) = [line for line in done.output.splitlines() if line.startswith("error:")]
    assert f"to build tool this host lacks {lacking}." in told
    assert ("after 2 attempts" if away == "refused" else "responds with 404") in told
    assert "BERNY_TOOL_ARCHIVE=FILE BERNY_TOOL_SHA256=DIGEST berny artifacts fetch tool" in told


def test_vendor_away_is_built_where_the_compilers_are(
    signed: Signer, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The build is tried, and only then; where it fails both reasons are told."""
    if missing := golang.lacking(recipes.recipe_files()["tool"].with_suffix("") / "go.mod", os.environ):
        pytest.skip(f"NOT RUN: this host lacks {', '.join(missing)}")
    monkeypatch.setenv("GOPROXY", "off")
    server.statuses = [404]
    # The first thing that it does with Go fails: what it is to build is not in this module.
    with pytest.raises(SupplyError, match=r"responds with 404, and go build failed"):
        Store(tmp_path / "store").fetch("tool")


def test_operators_digest_needs_no_signature(
    signed: Signer, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor gpg, nor the key: the digest vouches. Another one is refused, and nothing is built instead."""
    monkeypatch.setenv("BERNY_TOOL_SHA256", hashlib.sha256(server.body).hexdigest())
    store = Store(tmp_path / "store")
    made = store.fetch("tool")
    assert server.paths == ["/tool.tar.gz"]
    monkeypatch.setenv("BERNY_TOOL_SHA256", "0" * 64)
    with pytest.raises(WrongDigest, match="BERNY_TOOL_SHA256"):
        store.fetch("tool")
    server.statuses = [404]
    with pytest.raises(NotOffered, match="responds with 404"):
        store.fetch("tool")
    monkeypatch.delenv("BERNY_TOOL_SHA256")
    assert store.find("tool") == made


def test_operators_file_instead_of_a_signed_archive(
    signed: Signer, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was brought to a host that reaches nobody; one without the wanted file is refused by name."""
    digest = sha256_file(tmp_path / "served.tar.gz")
    made = Store(tmp_path / "store").resolve("tool", str(tmp_path / "served.tar.gz"), digest)
    assert made.version == "1.0.0" and server.paths == []
    with tarfile.open(tmp_path / "other.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "packed" / "tool", "tool-0.9.0/usr/bin/tool")
    with pytest.raises(SupplyError, match=r"lacks tool-1\.0\.0/usr/bin/tool"):
        Store(tmp_path / "store").resolve(
            "tool", str(tmp_path / "other.tar.gz"), sha256_file(tmp_path / "other.tar.gz")
        )


# -- Python environments -------------------------------------------------------------------------------------------------


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A recipe of the kind ``wheels`` with a lock beside it, whose only package is a wheel in a folder. Returns the lock."""
    folder, offered = tmp_path / "roles" / "tool" / "archives", tmp_path / "offered"
    folder.mkdir(parents=True)
    offered.mkdir()
    members = {
        "tool/__init__.py": "WORD = 'works'\n",
        "tool-1.2.dist-info/METADATA": "Metadata-Version: 2.1\nName: tool\nVersion: 1.2\n",
        "tool-1.2.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "tool-1.2.dist-info/RECORD": "tool/__init__.py,,\ntool-1.2.dist-info/RECORD,,\n",
    }
    wheel = offered / "tool-1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        for name, text in members.items():
            file.writestr(name, text)
    (folder / "tool.yml").write_text("{title: A tool, version: '1.2', kind: wheels}\n")
    lock = folder / "tool.lock"
    lock.write_text(f"tool==1.2 \\\n    --hash=sha256:{sha256_file(wheel)}\n")
    monkeypatch.setattr(recipes, "ROLES", tmp_path / "roles")
    for name, value in {"UV_FIND_LINKS": str(offered), "UV_NO_INDEX": "1", "UV_NO_CACHE": "1"}.items():
        monkeypatch.setenv(name, value)
    recipes.load_recipes.cache_clear()
    yield lock
    recipes.load_recipes.cache_clear()


def test_a_lock_beside_a_recipe_is_a_python_environment(environment: Path, tmp_path: Path) -> None:
    """Its packages are in ``python/``, nothing of the nodes' own among them; the lock is an input of the archive."""
    recipe = recipes.load_recipes()["tool"]
    found, _ = ways.members(recipe, tmp_path / "scratch", lambda words: None)
    assert {"python/tool/__init__.py", "python/tool-1.2.dist-info/METADATA"} <= found.keys()
    assert {name.split("/")[1].partition("-")[0] for name in found} == {"tool"}
    before = ways.key(recipe)
    environment.write_text(f"{environment.read_text()}# another\n")
    assert ways.key(recipe) != before


def test_a_package_that_is_not_the_locked_one_is_refused(environment: Path, tmp_path: Path) -> None:
    """By uv, which names it and both digests."""
    environment.write_text(re.sub("sha256:[0-9a-f]{64}", f"sha256:{'0' * 64}", environment.read_text()))
    with pytest.raises(SupplyError, match=r"(?s)tool\.lock can't be obtained: .*tool") as error:
        ways.members(recipes.load_recipes()["tool"], tmp_path / "scratch", lambda words: None)
    assert "0" * 64 in str(error.value)
