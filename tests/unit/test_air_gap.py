"""Air gap: one file with all archives and its way back, and an operator's mirror over real HTTP."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from berny.controller.artifacts import Store, SupplyError, download, recipes, ways
from berny.controller.artifacts.assemble import sha256_file, write_archive
from berny.controller.artifacts.bundle import apt_names, load_bundle, os_packages, write_bundle
from berny.controller.artifacts.errors import ArtifactMissing, WrongDigest
from berny.controller.artifacts.recipes import write_lock
from berny.model.topology import CHECKOUT

JARS = {"lib/tool-1.jar": b"a tool", "lib/other-2-linux.jar": b"another", "webapps/index.html": b"a page"}
LOCK = {
    "org:tool:1": hashlib.sha256(b"a tool").hexdigest(),
    "org.sub:other:2:linux": hashlib.sha256(b"another").hexdigest(),
    "org:pages:1:tests": "0" * 64,
}


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Recipes of two archives instead of the checkout's: jars by a lock, and packages."""
    folder = tmp_path / "roles" / "x" / "archives"
    folder.mkdir(parents=True)
    tool = {"title": "A tool", "version": "1", "kind": "jars", "roots": ["org:tool:1"]}
    (folder / "tool.yml").write_text(yaml.safe_dump(tool | {"extra": {"webapps": "org:pages:1:tests!webapps"}}))
    write_lock(folder / "tool.lock", LOCK, "tool 1")
    (folder / "packages.yml").write_text(yaml.safe_dump({"title": "Packages", "version": "3", "kind": "wheels"}))
    (tmp_path / "os_packages.yml").write_text("- zstd\n")
    monkeypatch.setattr("berny.controller.artifacts.bundle.SHARED", tmp_path)
    monkeypatch.setattr(recipes, "ROLES", tmp_path / "roles")
    monkeypatch.delenv("BERNY_MIRROR", raising=False)
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    recipes.load_recipes.cache_clear()
    yield folder
    recipes.load_recipes.cache_clear()


def put(store: Store, name: str, members: dict[str, bytes]) -> Path:
    """Have an archive in a store as ``fetch`` leaves it, and return it."""
    folder = store.folder / name
    source = folder.with_name(f"{name}-members")
    for member, content in members.items():
        (source / member).parent.mkdir(parents=True, exist_ok=True)
        (source / member).write_bytes(content)
    folder.mkdir(parents=True, exist_ok=True)
    digest = write_archive({member: source / member for member in members}, folder / "made")
    version = store.recipe(name).version
    target = (folder / "made").rename(folder / f"{name}-{version}-{digest[:12]}.tar.zst")
    facts = {"file": target.name, "sha256": digest, "bytes": target.stat().st_size, "version": version}
    (folder / f"{ways.key(store.recipe(name))}.json").write_text(json.dumps(facts))
    return target


@pytest.fixture
def full(tmp_path: Path, catalog: Path) -> Store:
    """A store with both archives."""
    store = Store(tmp_path / "full")
    put(store, "tool", JARS)
    put(store, "packages", {"python/module.py": b"pass\n"})
    return store


@pytest.fixture
def empty(tmp_path: Path, catalog: Path) -> Store:
    """The store of a controller without internet access."""
    return Store(tmp_path / "empty")


def bundle(store: Store, target: Path) -> Path:
    """Write a bundle of both archives."""
    digest = write_bundle(store, ["tool", "packages"], target, lambda words: None)
    assert digest == sha256_file(target)
    return target


def rewrite(file: Path, change: dict[str, bytes | None], sums: bool = True) -> None:
    """Write a bundle anew with other members; with ``sums`` its digests are made right again."""
    with tarfile.open(file) as tar:
        members = {m.name: tar.extractfile(m).read() for m in tar.getmembers()}  # type: ignore[union-attr]
    for name, content in change.items():
        if content is None:
            del members[name]
        else:
            members[name] = content
    if sums:
        lines = [f"{hashlib.sha256(c).hexdigest()}  {n}\n" for n, c in members.items() if n != "SHA256SUMS"]
        members["SHA256SUMS"] = "".join(lines).encode()
    with tarfile.open(file, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def found(store: Store) -> set[str]:
    """Return the archives that the store has, hashed again; no half of one may be left anywhere."""
    left = [
        path for path in store.folder.rglob("*") if path.is_file() and path.suffix not in (".json", ".zst", ".lock")
    ]
    assert [path for path in left if path.name != ".lock"] == []
    return {name for name in recipes.load_recipes() if store.find(name) and store.verify(name)}


# -- one file ----------------------------------------------------------------------------------------------------------


def test_bundle_comes_back_as_it_was(full: Store, empty: Store, tmp_path: Path) -> None:
    """The same bytes under the same index, so that nodes see the same archives."""
    file = bundle(full, tmp_path / "berny.tar")
    loaded, lacking = load_bundle(empty, file, lambda words: None)
    assert {archive.name for archive in loaded} == found(empty) == {"tool", "packages"} and lacking == []
    for name in ("tool", "packages"):
        assert empty.resolve(name).sha256 == full.resolve(name).sha256
    load_bundle(empty, file, lambda words: None)
    assert found(empty) == {"tool", "packages"}


def test_bundle_holds_locks_and_packages_and_checks_by_hand(full: Store, tmp_path: Path) -> None:
    """Whoever carries it over can look into it and check it with what any Debian has."""
    file = bundle(full, tmp_path / "berny.tar")
    subprocess.run(["tar", "-C", tmp_path, "-xf", file], check=True)
    assert (tmp_path / "recipes" / "tool.lock").read_text().count("\n") == 4
    assert (tmp_path / "os-packages.txt").read_text().splitlines() == list(os_packages())
    subprocess.run(["sha256sum", "--quiet", "--strict", "-c", "SHA256SUMS"], cwd=tmp_path, check=True)


def test_incomplete_store_is_not_bundled(full: Store, tmp_path: Path) -> None:
    """The way back can't fetch what is missing."""
    full.resolve("packages").path.unlink()
    with pytest.raises(ArtifactMissing, match="run `berny artifacts fetch packages`"):
        bundle(full, tmp_path / "berny.tar")
    assert not [path for path in tmp_path.iterdir() if "berny.tar" in path.name]


def test_damaged_archive_is_not_bundled(full: Store, tmp_path: Path) -> None:
    """A flipped bit keeps the size: it is hashed again."""
    path = full.resolve("tool").path
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(WrongDigest, match="tool-1"):
        bundle(full, tmp_path / "berny.tar")
    assert not [path for path in tmp_path.iterdir() if "berny.tar" in path.name]


@pytest.mark.parametrize(
    "damage", ["bit", "short", "shorter", "empty", "garbage", "no sums", "member gone", "sums gone"]
)
def test_damaged_bundle_loads_nothing(full: Store, empty: Store, tmp_path: Path, damage: str) -> None:
    """Cut short by a full stick, or changed on its way: named, and nothing of it is found."""
    file = bundle(full, tmp_path / "berny.tar")
    content = file.read_bytes()
    archive = f"tool/{full.resolve('tool').path.name}"
    if damage == "bit":
        at = content.index(full.resolve("tool").path.read_bytes()) + 20
        file.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    elif damage in ("short", "shorter"):
        last = content.index(full.resolve("packages").path.read_bytes()) + 20
        file.write_bytes(content[: last if damage == "short" else 700])
    elif damage in ("empty", "garbage"):
        file.write_bytes(b"" if damage == "empty" else os.urandom(20000))
    elif damage == "no sums":
        rewrite(file, {"SHA256SUMS": b"not a digest\n"}, sums=False)
    elif damage == "member gone":
        rewrite(file, {archive: None}, sums=False)
    else:
        rewrite(file, {"SHA256SUMS": None}, sums=False)
    with pytest.raises(SupplyError) as error:
        load_bundle(empty, file, lambda words: None)
    assert str(file) in str(error.value)
    if damage == "bit":
        assert isinstance(error.value, WrongDigest) and archive in str(error.value)
    assert found(empty) == set()


def test_bundle_of_another_version_says_what_is_lacking(
    full: Store, empty: Store, tmp_path: Path, catalog: Path
) -> None:
    """An archive made from other locks is not this checkout's."""
    file = bundle(full, tmp_path / "berny.tar")
    write_lock(catalog / "tool.lock", LOCK | {"org:new:1": "1" * 64}, "tool 1")
    loaded, lacking = load_bundle(empty, file, lambda words: None)
    assert [archive.name for archive in loaded] == ["packages"] and lacking == ["tool"]


@pytest.mark.parametrize("name", ["../../outside.tar.zst", "/tmp/outside.tar.zst", "a/b.tar.zst", ".hidden.tar.zst"])
def test_index_can_not_lead_out_of_the_store(full: Store, empty: Store, tmp_path: Path, name: str) -> None:
    """What a stick brings is not trusted with paths."""
    file = bundle(full, tmp_path / "berny.tar")
    key = f"tool/{ways.key(full.recipe('tool'))}.json"
    facts = {"file": name, "sha256": "0" * 64, "bytes": 6, "version": "1"}
    rewrite(file, {key: json.dumps(facts).encode(), f"tool/{name}": b"outside"})
    with pytest.raises(SupplyError, match="is not an index"):
        load_bundle(empty, file, lambda words: None)
    assert "tool" not in found(empty)


@pytest.mark.parametrize("change", ["other", "missing", "more"])
def test_jars_are_held_against_the_lock(full: Store, empty: Store, tmp_path: Path, change: str) -> None:
    """Whoever makes a bundle can make its digests right; the lock of this checkout is not theirs."""
    jars = dict(JARS)
    if change == "other":
        jars["lib/tool-1.jar"] = b"another tool"
    elif change == "missing":
        del jars["lib/other-2-linux.jar"]
    else:
        jars["lib/zzz-1.jar"] = b"one more"
    (full.folder / "tool-members" / "lib" / "tool-1.jar").unlink()
    put(full, "tool", jars)
    with pytest.raises(SupplyError) as error:
        load_bundle(empty, bundle(full, tmp_path / "berny.tar"), lambda words: None)
    named = {"other": "org:tool:1", "missing": "org.sub:other:2:linux", "more": "lib/zzz-1.jar"}[change]
    assert named in str(error.value) and "tool.lock" in str(error.value)
    assert "tool" not in found(empty)


# -- the mirror --------------------------------------------------------------------------------------------------------


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder and notes what it is asked."""

    asked: list[str]

    def do_GET(self) -> None:
        type(self).asked.append(self.path)
        super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def mirror(full: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A web server on loopback whose root is an unpacked bundle; ``Handler.asked`` has the paths."""
    root = tmp_path / "www" / "berny"
    root.mkdir(parents=True)
    subprocess.run(["tar", "-C", root, "-xf", bundle(full, tmp_path / "berny.tar")], check=True)
    Handler.asked = []
    handler = functools.partial(Handler, directory=str(root.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("BERNY_MIRROR", f"http://127.0.0.1:{server.server_port}/berny/")
        yield root
        server.shutdown()


@pytest.fixture
def next_way(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The way after the mirror packs one file; returns the archives that it was asked for."""
    asked: list[str] = []
    (tmp_path / "made.py").write_text("made = True\n")

    def members(recipe: recipes.Recipe, *_: object) -> tuple[dict[str, Path], str]:
        asked.append(recipe.name)
        return {"python/made.py": tmp_path / "made.py"}, ""

    monkeypatch.setattr(ways, "members", members)
    return asked


def test_archives_come_from_the_mirror(full: Store, empty: Store, mirror: Path, next_way: list[str]) -> None:
    """The same bytes, and no other way is asked; what the store has is not asked for again."""
    for name in ("tool", "packages"):
        assert empty.fetch(name).sha256 == full.resolve(name).sha256
    assert found(empty) == {"tool", "packages"} and next_way == []
    asked = len(Handler.asked)
    empty.fetch("tool")
    assert asked == len(Handler.asked) == 4


def test_what_the_mirror_lacks_is_had_by_the_next_way(empty: Store, mirror: Path, next_way: list[str]) -> None:
    """An archive of another version lies under another key."""
    for index in (mirror / "packages").glob("*.json"):
        index.unlink()
    said: list[str] = []
    empty.fetch("packages", said.append)
    assert next_way == ["packages"] and any("responds with 404; trying the next way" in words for words in said)


def test_unreachable_mirror_is_passed_over(empty: Store, next_way: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing listens there."""
    monkeypatch.setenv("BERNY_MIRROR", "http://127.0.0.1:9/berny")
    said: list[str] = []
    empty.fetch("packages", said.append)
    assert next_way == ["packages"] and any("trying the next way" in words for words in said)


@pytest.mark.parametrize("damage", ["bit", "jar"])
def test_wrong_file_on_the_mirror_ends_it(
    full: Store, empty: Store, mirror: Path, next_way: list[str], damage: str
) -> None:
    """A wrong digest is an error by name: no other way hides it."""
    if damage == "bit":
        archive = next((mirror / "tool").glob("*.tar.zst"))
        archive.write_bytes(archive.read_bytes()[:-1] + b"!")
        named = archive.name
    else:
        (full.folder / "tool-members" / "lib" / "tool-1.jar").unlink()
        made = put(full, "tool", JARS | {"lib/tool-1.jar": b"another tool"})
        for path in (made, *made.parent.glob("*.json")):
            (mirror / "tool" / path.name).write_bytes(path.read_bytes())
        named = "org:tool:1"
    with pytest.raises(WrongDigest) as error:
        empty.fetch("tool")
    assert named in str(error.value) and next_way == [] and found(empty) == set()


def test_malformed_index_of_the_mirror_is_told(empty: Store, mirror: Path, next_way: list[str]) -> None:
    """A proxy's login page with status 200 is no index."""
    for index in (mirror / "packages").glob("*.json"):
        index.write_text("<html>Log in</html>")
    said: list[str] = []
    empty.fetch("packages", said.append)
    assert next_way == ["packages"] and any("is not an index" in words for words in said)


def test_cut_download_is_continued(empty: Store, full: Store, mirror: Path, next_way: list[str]) -> None:
    """What an earlier fetch left is not fetched again; a server without ranges sends all of it."""
    path = full.resolve("tool").path
    (empty.folder / "tool").mkdir(parents=True)
    (empty.folder / "tool" / f".{path.name}.part").write_bytes(path.read_bytes()[:50])
    assert empty.fetch("tool").sha256 == full.resolve("tool").sha256


def test_own_code_stays_at_home(catalog: Path, full: Store, empty: Store, tmp_path: Path) -> None:
    """It is packed from the checkout there, with a pipeline's as well, which has no recipe of its own: nothing is lacking."""
    (catalog / "berny.yml").write_text(yaml.safe_dump({"title": "Berny", "version": "1", "kind": "source"}))
    recipes.load_recipes.cache_clear()
    assert {"berny", "berny-idfm"} < set(recipes.load_recipes())
    file = bundle(full, tmp_path / "all.tar")
    with tarfile.open(file) as tar:
        names = set(tar.getnames())
    assert "recipes/berny.yml" in names and not [name for name in names if name.startswith("berny")]
    loaded, lacking = load_bundle(empty, file, lambda words: None)
    assert {one.name for one in loaded} == {"tool", "packages"} and not lacking


# -- optional and vendors' archives ------------------------------------------------------------------------------------


@pytest.fixture(params=["vendor", "go"])
def page(catalog: Path, full: Store, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Store:
    """A store that has an optional archive as well, made from the vendor's: by a digest of the catalog, or signed."""
    vendor: dict[str, object] = {"url": "http://127.0.0.1:9/page.tar.gz"}
    if request.param == "vendor":
        vendor |= {"sha256": "4" * 64, "holds": ["bin/page"]}
    else:
        signature = {"key": "http://127.0.0.1:9/key", "fingerprint": "A" * 40}
        vendor |= {"signature": signature, "members": {"bin/page": "bin/page"}}
    facts = {"title": "A page", "version": "1", "kind": request.param, "optional": True, "vendor": vendor}
    (catalog / "page.yml").write_text(yaml.safe_dump(facts))
    recipes.load_recipes.cache_clear()
    for word in ("SHA256", "ARCHIVE"):
        monkeypatch.delenv(f"BERNY_PAGE_{word}", raising=False)
    made = put(full, "page", {"bin/page": b"page"})
    (index,) = made.parent.glob("*.json")
    index.write_text(json.dumps(json.loads(index.read_text()) | {"source": "5" * 64}))
    return full


def test_optional_archive_goes_along_where_it_is(page: Store, empty: Store, tmp_path: Path) -> None:
    """With what its vendor's archive hashes to, by which it is found; a bundle without it lacks nothing."""
    write_bundle(page, ["tool", "packages", "page"], tmp_path / "all.tar", lambda words: None)
    loaded, lacking = load_bundle(empty, tmp_path / "all.tar", lambda words: None)
    assert {one.name for one in loaded} == {"tool", "packages", "page"} and not lacking
    assert empty.find("page", sha256="5" * 64) and not empty.find("page", sha256="6" * 64)
    loaded, lacking = load_bundle(Store(tmp_path / "other"), bundle(page, tmp_path / "two.tar"), lambda words: None)
    assert len(loaded) == 2 and not lacking


def test_another_vendors_archive_is_not_taken(
    page: Store, empty: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator who gives a digest wants that archive and no other."""
    write_bundle(page, ["page"], tmp_path / "page.tar", lambda words: None)
    monkeypatch.setenv("BERNY_PAGE_SHA256", "6" * 64)
    with pytest.raises(SupplyError, match=f"made from an archive with sha256 {'5' * 64}, expected is {'6' * 64}"):
        load_bundle(empty, tmp_path / "page.tar", lambda words: None)
    assert "page" not in found(empty)


# -- operating system packages -----------------------------------------------------------------------------------------


def test_every_package_that_a_role_installs_is_listed() -> None:
    """The catalog's, and those that roles install by name; no role may compute another name."""
    listed = os_packages()
    assert set(yaml.safe_load((CHECKOUT / "ansible/os_packages.yml").read_text())) <= set(listed)
    assert listed["chrony"] == "virtual machines"
    for file in sorted((CHECKOUT / "roles").glob("*/tasks/*.yml")):
        for name in apt_names(yaml.safe_load(file.read_text()) or []):
            assert name in listed or name == "{{ node_packages }}", f"{file}: {name}: which packages are these?"


def test_commands_say_what_is_wrong(tmp_path: Path) -> None:
    """One line, no traceback, and the exit code of a failure."""
    (tmp_path / "broken.tar").write_bytes(b"x" * 3000)
    command = [sys.executable, "-m", "berny.cli", "artifacts", "load", str(tmp_path / "broken.tar")]
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 1 and "is not a bundle" in done.stdout and "Traceback" not in done.stdout + done.stderr
