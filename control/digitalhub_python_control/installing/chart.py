"""The same objects as a Helm chart: the manifests with a template's expression wherever a value of theirs stands."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

import digitalhub_runtime_python
from digitalhub_python_control.installing import manifests
from digitalhub_python_control.installing.manifests import Installation
from digitalhub_runtime_python.errors import UsageFault

# Stand-ins that are valid where they stand, and nothing else: value of the chart -> what it is in the manifests.
_STANDINS = {
    "image": "standin.invalid/image:1",
    "storage": "76543Gi",
    "cpu": "76543m",
    "memory": "76543Mi",
    "secret": "standin-secret",
}
_RELEASE = {".Release.Name": "standin-release", ".Release.Namespace": "standin-namespace"}  # fmt: skip

_FORBIDDEN = sorted(manifests.SECRETS | manifests.OWN - {"DHPY_CALLBACK_URL"})
_REFUSAL = (
    f"{{{{- range $name := list {' '.join(json.dumps(name) for name in _FORBIDDEN)} }}}}\n"
    "{{- if hasKey $.Values.settings $name }}\n"
    '{{- fail (printf "%s is no setting of the chart: put secrets into the Secret, and leave out what the chart sets itself" $name) }}\n'
    "{{- end }}\n{{- end }}\n"
)


def files(image: str) -> dict[str, str]:
    """Path -> text of the chart's files.

    Args:
        image: the control plane's, where no value says.
    """
    version = digitalhub_runtime_python.__version__
    chart = {
        "apiVersion": "v2", "name": "digitalhub-python", "type": "application", "version": version.replace("+", "-"),
        "appVersion": version, "description": "The control plane of DigitalHub's Python runtime",
    }  # fmt: skip
    default = Installation(image)
    values = {
        "image": image, "secret": "", "storage": default.storage, "storageClass": "", "cpu": default.cpu,
        "memory": default.memory, "pullSecret": "", "allowFrom": [], "settings": {},
    }  # fmt: skip
    return {
        "Chart.yaml": yaml.safe_dump(chart, sort_keys=False),
        "values.yaml": yaml.safe_dump(values, sort_keys=False),
        "templates/control-plane.yaml": _template(),
    }


def write(folder: Path, image: str) -> None:
    """Write the chart into a folder that is not there yet.

    Raises:
        UsageFault: it is there.
    """
    if folder.exists():
        raise UsageFault("usage/output", f"{folder} is there already.", "Name a new folder, or remove it.")  # fmt: skip
    for name, text in files(image).items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, "utf-8")


def _template() -> str:
    marked = Installation(
        name=_RELEASE[".Release.Name"], namespace=_RELEASE[".Release.Namespace"],
        storage_class="standin-class", pull_secret="standin-pull", allow_from=("standin-from",),  # noqa: S106 - a name
        settings={"DHPY_IMAGES": "standin-settings"}, **_STANDINS,
    )  # fmt: skip
    text = str(yaml.safe_dump_all(manifests.objects(marked), sort_keys=False))
    lines: list[str] = []
    for line in text.splitlines():
        indent = line[: len(line) - len(line.lstrip(" -"))]
        blank = " " * len(indent)
        if "standin-class" in line:
            lines += ["{{- with .Values.storageClass }}", line.replace("standin-class", "{{ . | quote }}"), "{{- end }}"]  # fmt: skip
        elif line.strip() == "imagePullSecrets:":
            lines += ["{{- with .Values.pullSecret }}", line]
        elif "standin-pull" in line:
            lines += [line.replace("standin-pull", "{{ . | quote }}"), "{{- end }}"]
        elif line.strip() == "- namespaceSelector:":
            lines += ["{{- range .Values.allowFrom }}", line]
        elif "standin-from" in line:
            lines += [line.replace("standin-from", "{{ . | quote }}"), "{{- end }}"]
        elif line.strip() == "- name: DHPY_CALLBACK_URL":
            lines += ['{{- if not (hasKey .Values.settings "DHPY_CALLBACK_URL") }}', line]
        elif "http://standin-release" in line:
            lines += [line, "{{- end }}"]
        elif line.strip() == "- name: DHPY_IMAGES":
            lines += ["{{- range $name, $value := .Values.settings }}", f"{indent}name: {{{{ $name }}}}"]  # fmt: skip
        elif "standin-settings" in line:
            lines += [f"{blank}value: {{{{ $value | quote }}}}", "{{- end }}"]
        else:
            lines.append(line)
    made = "\n".join(lines) + "\n"
    for value, standin in _STANDINS.items():
        made = made.replace(standin, f"{{{{ .Values.{value} | quote }}}}" if value != "secret" else "{{ .Values.secret | default .Release.Name | quote }}")  # fmt: skip
    for name, standin in _RELEASE.items():
        # Alone it is quoted: a release may be called 1234.
        made = made.replace(f": {standin}\n", f": {{{{ {name} | quote }}}}\n").replace(standin, f"{{{{ {name} }}}}")  # fmt: skip
    return _REFUSAL + made
