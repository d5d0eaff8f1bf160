"""Converge a service on a host in one round trip, where nothing has to be installed; see modules/berny_converge.py."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template

from berny.controller.artifacts import Store, SupplyError

CONFIGURE = ("packages", "archive", "files")
PHASES = {"configure": CONFIGURE, "all": (*CONFIGURE, "service")}


class ActionModule(ActionBase):
    """Reads the variables of the role ``service`` itself: some follow from the archive, which is resolved here."""

    _requires_connection = True
    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return ``changed``, ``diff``, ``home`` (the folder of the archive), and what the module returns of the service.

        Raises:
            AnsibleActionFail: the archive cannot be had, or a template cannot be rendered.
        """
        result = super().run(tmp, task_vars)
        parts = PHASES[self._task.args["phase"]]
        variables = dict(task_vars or {})
        archives, files = self._action("berny_archive"), self._action("berny_files")
        name, archive, args = self._value("service_archive", variables), None, {}
        if name:
            try:
                archive = Store().resolve(name)
            except SupplyError as error:
                raise AnsibleActionFail(str(error)) from error
            args["archive"] = archives.module_arguments(archive)
        if packages := self._value("service_packages", variables):
            args["packages"] = {**packages, "owner": self._value("service_name", variables)}
        result["home"] = args.get("archive", {}).get("home", "")
        # What follows from the archive's folder is rendered for this one.
        variables["_service_state"] = {"home": result["home"]}
        args["files"] = files.module_arguments(self._files(variables), variables)
        args["service"] = self._service(variables)
        found = self._module({part: args[part] for part in parts if part in args}, task_vars)
        if self._lacks(found, "packages"):
            installed = self._action("berny_packages").install(found["packages"]["missing"], task_vars)
            if installed.get("failed"):
                return result | installed
            found = self._module({part: args[part] for part in parts if part in args}, task_vars)
            found["changed"] = True
            if self._lacks(found, "packages"):
                named = ", ".join(found["packages"]["missing"])
                raise AnsibleActionFail(f"apt installed something else for {named}: name the packages themselves")
        archives.show(found.get("archive", {}), task_vars)
        if self._lacks(found, "archive"):
            assert archive
            sent = archives.send(archive, args["archive"], task_vars)
            if sent.get("failed"):
                return result | sent
            found = self._module({part: args[part] for part in parts if part != "archive"}, task_vars)
            found["changed"] = True
        diffs = [found.get(part, {}).pop("diff", []) for part in ("files", "service")]
        result.update({key: value for key, value in found.items() if key not in PHASES["all"]})
        result.update(found.get("service", {}) | {"changed": found.get("changed", False)})
        result["diff"] = [one for diff in diffs for one in (diff if isinstance(diff, list) else [diff]) if one]
        return result

    def _lacks(self, found: dict[str, Any], part: str) -> bool:
        """Return whether the module stopped because something has to be brought to the node first."""
        return bool(found.get(part, {}).get("missing")) and not found.get("failed") and not self._task.check_mode

    def _files(self, variables: dict[str, Any]) -> dict[str, Any]:
        """Return what berny_files is given."""

        def value(name: str) -> Any:
            return self._value(name, variables)

        return {
            "folder": value("service_conf"),
            "user": value("service_user"),
            "files": value("service_files"),
            "secret_files": value("service_secret_files"),
            "commands": value("service_commands"),
            "others": {**value("service_others"), **value("_service_unit_files")},
            "inputs": f"{value('service_conf')}/inputs",
            "started_from": value("service_started_from"),
            "pipeline": value("service_pipeline"),
        }

    def _service(self, variables: dict[str, Any]) -> dict[str, Any]:
        """Return what berny_service is given."""
        return {
            "name": self._value("service_name", variables),
            "phase": "start",
            "probe": self._value("service_probe", variables),
            "target": self._value("service_part_of", variables),
            "wait": self._value("service_wait_seconds", variables),
        }

    def _module(self, args: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        return dict(self._execute_module(module_name="berny_converge", module_args=args, task_vars=task_vars))

    def _value(self, name: str, variables: dict[str, Any]) -> Any:
        templar = self._templar.copy_with_new_env(available_variables=variables)
        return templar.template(trust_as_template("{{ " + name + " }}"))

    def _action(self, name: str) -> Any:
        """Return another action plugin, for the same task."""
        return self._shared_loader_obj.action_loader.get(
            name,
            task=self._task,
            connection=self._connection,
            play_context=self._play_context,
            loader=self._loader,
            templar=self._templar,
            shared_loader_obj=self._shared_loader_obj,
        )
