"""Unpack an archive of the controller's store on a node; see modules/berny_archive.py."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from berny.controller.artifacts import ArtifactMissing, Store, SupplyError
from berny.controller.artifacts.recipes import not_run
from berny.controller.artifacts.store import Archive

ROOT = "/opt/berny/archives"


class ActionModule(ActionBase):
    """Transfers the archive only where its folder (named version and digest) is missing."""

    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return ``changed`` and ``home``, the folder of the unpacked archive: empty where an optional one is not there."""
        result = super().run(tmp, task_vars)
        name, store = self._task.args["name"], Store()
        named = self._task.args.get("archive") or "", self._task.args.get("archive_sha256") or ""
        try:
            archive = store.resolve(name, *named)
        except ArtifactMissing as error:
            recipe = store.recipe(name)
            if not recipe.optional:
                raise AnsibleActionFail(str(error)) from error
            # One that was installed before, from another controller's store, goes on being configured.
            look = {"link": f"/opt/berny/{name}"}
            result.update(self._execute_module(module_name="berny_archive", module_args=look, task_vars=task_vars))
            if not result.get("home") and not result.get("failed"):
                self._display.display(not_run(recipe))
            return result
        except SupplyError as error:
            raise AnsibleActionFail(str(error)) from error
        args = self.module_arguments(archive)
        result.update(self._execute_module(module_name="berny_archive", module_args=args, task_vars=task_vars))
        self.show(result, task_vars)
        damage = result.get("damage", [])
        if result.get("missing") and not result.get("failed") and not self._task.check_mode:
            result.update(self.send(archive, args, task_vars))
        result.pop("missing", None)
        result["damage"] = damage
        result["home"] = args["home"]
        result["version"] = archive.version
        return result

    def module_arguments(self, archive: Archive) -> dict[str, Any]:
        """Return the arguments of the module for an archive of the store."""
        home = f"{ROOT}/{archive.name}-{archive.version}-{archive.sha256[:12]}"
        return {"home": home, "link": f"/opt/berny/{archive.name}"}

    def show(self, found: dict[str, Any], task_vars: dict[str, Any] | None) -> None:
        """Show what the module has found damaged."""
        for line in found.get("damage", []):
            self._display.display(f"{(task_vars or {}).get('inventory_hostname')}: {line}")

    def send(self, archive: Archive, args: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        """Send an archive to the node and unpack it there; return what the module does."""
        tmpdir = self._connection._shell.tmpdir or self._make_tmp_path()
        source = self._connection._shell.join_path(tmpdir, archive.path.name)
        try:
            self._transfer_file(str(archive.path), source)
            args = {**args, "source": source, "sha256": archive.sha256}
            return dict(self._execute_module(module_name="berny_archive", module_args=args, task_vars=task_vars))
        finally:
            self._remove_tmp_path(tmpdir)
