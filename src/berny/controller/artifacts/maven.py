"""Jars from a Maven repository, fetched by the ordinary client and verified against the lock."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from xml.sax.saxutils import escape

from berny.controller.artifacts.assemble import sha256_file
from berny.controller.artifacts.errors import SupplyError, ToolMissing, WrongDigest
from berny.controller.progress import Say, follow

PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"
# POMs of old artifacts name repositories of their own: only the client's default is used.
SETTINGS = """<settings><mirrors><mirror>
<id>nowhere</id><mirrorOf>*,!central</mirrorOf><url>file:///nonexistent</url><blocked>true</blocked>
</mirror></mirrors></settings>
"""


def _pom(coordinates: Iterable[str], exclude: Iterable[str], alone: Container[str]) -> str:
    rows = []
    for coordinate in coordinates:
        group, artifact, version, *classifier = coordinate.split(":")
        exclusions = ["*:*"] if coordinate in alone else list(exclude)
        excluded = "".join(
            f"<exclusion><groupId>{g}</groupId><artifactId>{a}</artifactId></exclusion>"
            for g, a in (e.split(":") for e in exclusions)
        )
        rows.append(
            f"<dependency><groupId>{escape(group)}</groupId><artifactId>{escape(artifact)}</artifactId>"
            f"<version>{escape(version)}</version>"
            + (f"<classifier>{escape(classifier[0])}</classifier>" if classifier else "")
            + f"<exclusions>{excluded}</exclusions></dependency>"
        )
    return (
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
        "<groupId>berny</groupId><artifactId>supply</artifactId><version>1</version><packaging>pom</packaging>"
        f"<dependencies>{''.join(rows)}</dependencies></project>"
    )


def copy_jars(
    coordinates: Iterable[str],
    target: Path,
    *,
    exclude: Iterable[str] = (),
    alone: Iterable[str] | None = None,
    say: Say = lambda words: None,
) -> dict[str, Path]:
    """Copy the jars of ``coordinates`` (``group:artifact:version[:classifier]``) to ``target``; return them by coordinate.

    With ``alone``, the runtime dependencies of those that are not among it are included.

    Raises:
        ToolMissing: Maven is not installed.
        SupplyError: Maven could not fetch something; the message ends with its output.
    """
    if not shutil.which("mvn"):
        raise ToolMissing("mvn", "maven")
    with tempfile.TemporaryDirectory(prefix="berny-maven-") as scratch:
        folder = Path(scratch)
        (folder / "pom.xml").write_text(_pom(coordinates, exclude, set(coordinates if alone is None else alone)))
        (folder / "settings.xml").write_text(SETTINGS)
        command = ["mvn", "-B", "-C", "-s", str(folder / "settings.xml"), "-f", str(folder / "pom.xml")]
        command += ["-Daether.dependencyCollector.impl=bf", "-Dmaven.artifact.threads=8"]
        command += [f"{PLUGIN}:copy-dependencies", f"-DoutputDirectory={target}", "-DincludeScope=runtime"]
        command += ["-Dmdep.useRepositoryLayout=true", "-Dmdep.copyPom=false"]
        downloaded = 0

        def each(line: str) -> None:
            nonlocal downloaded
            if line.startswith("[INFO] Downloaded") and ".jar " in line:
                downloaded += 1
                say(f"{downloaded} jars downloaded")

        # Two clients that write to one repository concurrently leave truncated files.
        with _cached_repository() as repository:
            code, last = follow([*command, f"-Dmaven.repo.local={repository}"], each)
        if code:
            words = [line for line in last if "[ERROR]" in line] or last
            raise SupplyError(f"Maven could not get the jars: {' '.join(words[:3])[:1200]}")
    return {_coordinate(jar, target): jar for jar in target.rglob("*.jar")}


@contextmanager
def _cached_repository() -> Iterator[Path]:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "berny" / "maven"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield folder


def _coordinate(jar: Path, root: Path) -> str:
    *group, artifact, version, name = jar.relative_to(root).parts
    classifier = name.removeprefix(f"{artifact}-{version}").removesuffix(".jar").lstrip("-")
    return ":".join([".".join(group), artifact, version, *([classifier] if classifier else [])])


def check(found: Mapping[str, Path], locked: Mapping[str, str], lock_file: Path) -> None:
    """Verify jars against the lock.

    Raises:
        WrongDigest: a jar is not the locked one; names file, expected and found.
        SupplyError: a locked jar is missing.
    """
    for coordinate, digest in locked.items():
        if coordinate not in found:
            raise SupplyError(f"{coordinate}: locked in {lock_file.name}, but not delivered")
        is_digest = sha256_file(found[coordinate])
        if is_digest != digest:
            raise WrongDigest(coordinate, digest, is_digest, lock_file)
