"""Supply: what differs is refused by name, what is cut goes on, what is half there is never found."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import json
import os
import random
import shutil
import subprocess
import tarfile
import threading
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

from berny.artifacts import ArtifactMissing, Store, SupplyError, cli, download, maven, recipes, ways
from berny.artifacts.assemble import sha256_file, tree, write_archive
from berny.artifacts.errors import WrongDigest
from berny.artifacts.recipes import LockError, Recipe, read_lock, write_lock

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
    """A recipe without its lock can't be had."""
    with pytest.raises(LockError, match=r"kafka\.lock: missing; `berny artifacts lock`"):
        read_lock(tmp_path / "kafka.lock")


@pytest.mark.parametrize("name", [name for name, recipe in recipes.load_recipes().items() if recipe.roots])
def test_locks_of_the_catalog_hold_their_roots(name: str) -> None:
    """A root that was added without a new lock would silently not be installed."""
    recipe = recipes.load_recipes()[name]
    locked = read_lock(recipe.lock_file)
    assert {*recipe.roots, *(source.split("!")[0] for source in recipe.extra.values())} <= set(locked)
    for excluded in recipe.exclude:
        assert not [coordinate for coordinate in locked if coordinate.startswith(f"{excluded}:")]
    assert all("://" not in coordinate for coordinate in locked)


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
    asked: list[str | None] = field(default_factory=list)
    """The header ``Range`` of each call."""
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
    with pytest.raises(SupplyError, match="the server answers 404"):
        download.download(server.url, tmp_path / "tool", DIGEST)
    assert len(server.asked) == 1
    assert not (tmp_path / "tool").exists()


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
        tar.extractall(tmp_path / "out", filter="data")
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
    folder = tmp_path / "archives"
    folder.mkdir()
    monkeypatch.setattr(recipes, "recipes_folder", lambda: folder)
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
    (folder / "delivery").mkdir(parents=True)
    (folder / "lab").mkdir()
    (folder / "delivery" / "spool.py").write_bytes(random.Random(2).randbytes(200_000))
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
    (code / "delivery" / "spool.py").write_text("changed = True\n")
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
        (code / "delivery" / "spool.py").write_text(f"{number}\n")
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
    monkeypatch.setattr("berny.artifacts.store.write_archive", work)
    with pytest.raises(OSError, match="No space left"):
        store.fetch("berny")
    assert store.find("berny") is None
    assert [path.name for path in (store.folder / "berny").iterdir()] == [".lock"]


# -- a vendor's archive, or an operator's ------------------------------------------------------------------------------

HOLDS = ["bin/tool", "public"]


@pytest.fixture
def vendors(
    catalog: Path, tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., str]]:
    """Serve an archive as its vendor does, have an optional recipe of it, and return a maker of archives' digests."""

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
        server.body = target.read_bytes()
        return hashlib.sha256(server.body).hexdigest()

    facts = {"title": "A tool", "version": "1.0.0", "kind": "vendor", "optional": True}
    (catalog / "tool.yml").write_text(yaml.safe_dump({**facts, "vendor": {"url": server.url, "holds": HOLDS}}))
    recipes.load_recipes.cache_clear()
    monkeypatch.delenv("BERNY_TOOL_ARCHIVE", raising=False)
    monkeypatch.delenv("BERNY_TOOL_SHA256", raising=False)
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    yield serve
    recipes.load_recipes.cache_clear()


def test_vendors_archive_by_its_digest(
    vendors: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in its one folder; its own version is told; whoever comes later needs no digest."""
    store = Store(tmp_path / "store")
    monkeypatch.setenv("BERNY_TOOL_SHA256", vendors())
    made = store.fetch("tool")
    assert made.version == "2.0.1" and made.path.name.startswith("tool-2.0.1-")
    listed = subprocess.run(["tar", "--zstd", "-tf", made.path], capture_output=True, text=True, check=True).stdout
    assert listed.split() == ["VERSION", "bin/tool", "public/index.html"]
    monkeypatch.delenv("BERNY_TOOL_SHA256")
    assert store.find("tool") == store.resolve("tool") == store.verify("tool") == made


def test_optional_archive_that_nobody_vouches_for(
    vendors: Callable[..., str], server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is downloaded without a digest; one line says what is missing and how to add it; it is no failure."""
    vendors()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    done = CliRunner().invoke(cli.app, ["fetch", "tool"])
    assert done.exit_code == 0, done.output
    assert server.asked == []
    told = [line for line in done.output.splitlines() if "NOT RUN: tool (archive not in the store: " in line]
    assert len(told) == 1 and "BERNY_TOOL_SHA256=DIGEST berny artifacts fetch tool" in told[0]
    assert "no (optional)" in CliRunner().invoke(cli.app, ["list"]).output
    assert CliRunner().invoke(cli.app, ["verify"]).exit_code == 0
    with pytest.raises(ArtifactMissing):
        Store().resolve("tool")


def test_optional_archive_whose_vendor_is_away(
    vendors: Callable[..., str], server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A box without internet access goes on without it."""
    monkeypatch.setenv("BERNY_TOOL_SHA256", vendors())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    server.statuses = [404]
    done = CliRunner().invoke(cli.app, ["fetch", "tool"])
    assert done.exit_code == 0 and "answers 404" in done.output and "NOT RUN: tool" in done.output


def test_wrong_digest_of_an_optional_archive_is_an_error(
    vendors: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Optional is whether it is there, not what it is."""
    found = vendors()
    monkeypatch.setenv("BERNY_TOOL_SHA256", "0" * 64)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    done = CliRunner().invoke(cli.app, ["fetch", "tool"])
    assert done.exit_code == 1
    assert "0" * 64 in done.output and found in done.output and "Nothing was installed." in done.output
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
        ({"sha256": "0" * 64}, "BERNY_TOOL_SHA256"),
        ({"without": "bin/tool"}, "lacks bin/tool"),
        ({"broken": True}, "can be unpacked"),
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
    with pytest.raises(SupplyError, match=told):
        store.resolve("tool", given.get("archive", str(file)), given.get("sha256", digest))
    assert store.find("tool") is None


def test_keys_of_others_stay(catalog: Path) -> None:
    """What is optional, and how a layout is checked, makes no archive anew."""
    one = recipe(kind="go", vendor={"url": "http://vendor.example/a", "members": {"a": "b"}})
    other = one.model_copy(update={"optional": True, "vendor": one.vendor.model_copy(update={"holds": ["a"]})})
    assert ways.key(one) == ways.key(other)
