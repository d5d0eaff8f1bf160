"""Keeps what Ansible compiles on the controller from one run to the next: modules' archives, and templates.

Each task runs in a process of its own, which compiles its templates again, and each run builds the archives of all modules
again: about half of what an unchanged run costs the controller. The cache is in the user's cache folder, and its name holds
the digest of all that the result depends on. A missing or damaged entry is compiled again.
"""

from __future__ import annotations

import hashlib
import marshal
import os
import pickle
import platform
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import CodeType
from typing import Any

from ansible import constants
from ansible._internal._templating import _jinja_bits
from ansible.release import __version__ as ansible_version
from jinja2 import __version__ as jinja_version

from berny.model.topology import CHECKOUT

INPUTS = ("requirements/dev.txt", "ansible.cfg", "ansible/plugins/**/*.py", "roles/*/library/*.py")
"""What is sent to nodes or decides how a template is compiled, below the checkout; the lock stands for all packages."""
KEEP_SECONDS = 7 * 86400
"""After which a cache for other inputs is removed, from its last use."""
Compile = Callable[..., CodeType | str]


def key(checkout: Path = CHECKOUT) -> str:
    """Return the digest of the inputs and of the versions that are installed."""
    digest = hashlib.sha256(f"{ansible_version} {jinja_version} {platform.python_version()}\n".encode())
    for pattern in INPUTS:
        for path in sorted(checkout.glob(pattern)):
            digest.update(f"{path.relative_to(checkout)}\n".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def enable(parent: Path) -> None:
    """Use the cache below ``parent`` in this process and in those that it forks; without a folder to write to, use none."""
    folder = parent / key()
    with suppress(OSError):
        for name in ("modules", "templates"):
            (folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        os.utime(folder)
        remove_unused(parent)
        link_modules(folder / "modules", Path(constants.DEFAULT_LOCAL_TMP))  # type: ignore[attr-defined]
        environment = _jinja_bits.AnsibleEnvironment
        if not isinstance(environment.__dict__.get("compile"), Templates):
            environment.compile = Templates(folder / "templates", environment.compile)  # type: ignore[method-assign]


def remove_unused(parent: Path) -> None:
    """Remove caches for other inputs that have not been used for ``KEEP_SECONDS``."""
    for folder in parent.iterdir():
        if time.time() - folder.stat().st_mtime > KEEP_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)


def link_modules(folder: Path, temporary: Path) -> None:
    """Have Ansible keep the archives of modules in ``folder``, instead of in the run's own temporary folder.

    Archives that cannot be read, as after a power cut, are removed.
    """
    for path in folder.iterdir():
        try:
            pickle.loads(path.read_bytes()) if path.suffix != ".lock" else None
        except Exception:  # whatever damaged bytes lead to
            path.unlink(missing_ok=True)
    with suppress(FileExistsError):
        (temporary / "ansiballz_cache").symlink_to(folder)


class Templates:
    """``Environment.compile`` with a cache of its results: code objects, each in a file with its digest."""

    def __init__(self, folder: Path, compile_template: Compile) -> None:
        self._folder, self._compile = folder, compile_template

    def __get__(self, environment: Any, owner: type) -> Callable[..., Any]:
        """Bind as a method does."""
        return lambda *words, **options: self.code(environment, *words, **options)

    def code(self, environment: Any, source: Any, *words: Any, **options: Any) -> CodeType | str:
        """Return the code of a template; anything but a text alone is compiled without the cache."""
        if not isinstance(source, str) or words or options:
            return self._compile(environment, source, *words, **options)
        file = self._folder / hashlib.sha256(repr((*settings(environment), str(source))).encode()).hexdigest()
        with suppress(OSError, ValueError, EOFError, TypeError):
            content = file.read_bytes()
            if hashlib.sha256(content[32:]).digest() == content[:32]:
                return marshal.loads(content[32:])
        compiled = self._compile(environment, source)
        with suppress(OSError, ValueError):
            code = marshal.dumps(compiled)
            beside = file.with_suffix(f".{os.getpid()}")
            beside.write_bytes(hashlib.sha256(code).digest() + code)
            beside.rename(file)
        return compiled


def settings(environment: Any) -> tuple[Any, ...]:
    """Return what decides how a template is compiled beside its text: the syntax, and how backslashes are read."""
    context = _jinja_bits._TemplateCompileContext.current(optional=True)
    syntax = (getattr(environment, name) for name in _jinja_bits._TEMPLATE_OVERRIDE_FIELD_NAMES)
    return (*syntax, bool(context and context.escape_backslashes))
