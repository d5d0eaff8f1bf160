"""Converge what a role gives a host, and its services, in one round trip where nothing has to be installed.

See modules/berny_converge.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template

from berny.controller.artifacts import Store, SupplyError

CONFIGURE = ("packages", "archive", "files")
PHASES = {"configure": CONFIGURE, "all": (*CONFIGURE, "service")}
OWNER = "node"


class ActionModule(ActionBase):
    """Reads the variables of the role ``service`` itself: each service has its own, and some follow from its archive."""

    _requires_connection = True
    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return ``changed``, ``diff``, the folders of ``archives``, and by service what came of it and how it is restarted.

        Raises:
            AnsibleActionFail: an archive cannot be had, or a template cannot be rendered.
        """
        result = super().run(tmp, task_vars)
        variables = dict(task_vars or {})
        phase, only = self._task.args.get("phase"), self._task.args.get("only")
        parts = PHASES[phase] if phase else ()
        result["archives"] = variables["_service_archives"] = {}
        calls, restarts = self._everywhere(variables), {}
        for name, own in self._services(variables).items() if phase else ():
            scope = {**variables, "service_name": name, **own}
            here = variables["inventory_hostname"] in variables["groups"].get(self._value("service_group", scope), ())
            if here and (not only or name in only):
                call, restarts[name] = self._call(scope)
                calls.append({"name": name, **{part: call[part] for part in parts if part in call}})
        result["services"], result["diff"] = {}, []
        changed, installed = False, ("", "")
        secrets = {
            path: text for call in calls for path, text in call.get("files", {}).pop("secret_contents", {}).items()
        }
        while calls:
            arguments = {"services": calls, "secrets": secrets}
            found = self._execute_module(module_name="berny_converge", module_args=arguments, task_vars=task_vars)
            for name, one in found.get("services", {}).items():
                self._action("berny_archive").show(one.get("archive", {}), task_vars)
                result["diff"] += _diffs(one)
                own = {"changed": one["changed"], "written": one.get("files", {}).get("written", []), **_installs(one)}
                result["services"][name] = restarts.get(name, {}) | one.get("service", {}) | own
            changed = changed or found.get("changed", False)
            missing = found.get("missing")
            if found.get("failed") or not missing:
                result.update(
                    {key: value for key, value in found.items() if key not in ("services", "missing", "found")}
                )
                break
            calls = [call for call in calls if call["name"] not in found["services"]]
            if (missing["name"], missing["part"]) == installed:
                named = ", ".join(found["found"]["packages"]["missing"])
                raise AnsibleActionFail(f"apt installed something else for {named}: name the packages themselves")
            installed = missing["name"], missing["part"]
            done = self._install(missing["part"], calls[0], found["found"], task_vars)
            if done.get("failed"):
                return result | done
            changed = True
            calls = [_without(call, missing["part"], calls[0]) for call in calls]
        result["changed"] = changed
        return result

    def _services(self, variables: dict[str, Any]) -> Mapping[str, Any]:
        """Return each service's variables by its name, not rendered yet: they need one another."""
        given = variables.get("services")
        return given if isinstance(given, Mapping) else dict(self._value("services", variables))

    def _everywhere(self, variables: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the calls for what a host gets whether it runs a service or not; note the folders of its archives."""
        args, calls = self._task.args, []
        if args.get("packages"):
            calls.append({"name": "packages", "packages": {"names": args["packages"], "owner": OWNER}})
        for name in args.get("archives") or ():
            archive = self._archive(name)
            variables["_service_archives"][name] = archive["home"]
            calls.append({"name": f"archive {name}", "archive": archive})
        if args.get("clients"):
            files = self._action("berny_files").module_arguments(args["clients"], variables)
            calls.append({"name": f"clients of {files['owner']}", "files": files})
        return calls

    def _archive(self, name: str) -> dict[str, Any]:
        """Return the module's arguments for an archive of the store."""
        try:
            return dict(self._action("berny_archive").module_arguments(Store().resolve(name)))
        except SupplyError as error:
            raise AnsibleActionFail(str(error)) from error

    def _call(self, variables: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the module's arguments for a service, and how it is restarted."""
        name, args = self._value("service_archive", variables), {}
        if name:
            args["archive"] = self._archive(name)
        if packages := self._value("service_packages", variables):
            args["packages"] = {**packages, "owner": self._value("service_name", variables)}
        # What follows from the archive's folder is rendered for this one.
        variables["_service_home"] = args.get("archive", {}).get("home", "")
        args["files"] = self._action("berny_files").module_arguments(self._files(variables), variables)
        args["service"] = self._service(variables)
        component = self._value("(catalog.services[service_name] | default({})).component | default('')", variables)
        restart = {word: args["service"][word] for word in ("name", "probe", "wait")}
        return args, {**restart, "gate": self._value("service_gate", variables), "component": component}

    def _install(
        self, part: str, call: dict[str, Any], found: dict[str, Any], task_vars: dict[str, Any] | None
    ) -> dict[str, Any]:
        """Install the packages, or send the archive, that a service's first call found missing; return what came of it."""
        if part == "packages":
            return dict(self._action("berny_packages").install(found["packages"]["missing"], task_vars))
        archives = self._action("berny_archive")
        archives.show(found["archive"], task_vars)
        archive = Store().resolve(call["archive"]["link"].rpartition("/")[2])
        return dict(archives.send(archive, call["archive"], task_vars))

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
            "timer": bool(self._value("service_calendar", variables)),
            "probe": self._value("service_probe", variables),
            "target": self._value("service_part_of", variables),
            "beside": self._value("service_beside", variables),
            "wait": self._value("service_wait_seconds", variables),
        }

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


def _diffs(one: Mapping[str, Any]) -> list[Any]:
    found = []
    for part in ("packages", "files", "service"):
        diff = one.get(part, {}).pop("diff", [])
        found += diff if isinstance(diff, list) else [diff]
    return [diff for diff in found if diff]


def _installs(one: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a dry run found to be installed for a call: names of packages, and the folder of an archive."""
    packages, archive = one.get("packages", {}).get("missing"), one.get("archive", {})
    found = {"installs": packages, "unpacks": archive.get("missing") and archive["home"]}
    return {key: value for key, value in found.items() if value}


def _without(call: dict[str, Any], part: str, first: dict[str, Any]) -> dict[str, Any]:
    """Return a call without what was sent for the first one; packages are looked at again: apt may have others."""
    return {key: value for key, value in call.items() if key != part or part == "packages" or value != first[part]}
