"""What the checks of the deployment files have in common: complaints, rendered objects, and how memebg is asked."""

import os
import re
import subprocess
import tempfile
import tomllib
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
faults = []


def demand(holds, complaint):
    if not holds:
        faults.append(complaint)


def options(memebg, name, environment, toml="", arguments=()):
    """What the program makes of a file and an environment. An option that it does not know is a fault."""
    ours = {key: value for key, value in environment.items() if key.startswith("MEMEBG__")}
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(toml)
        file.flush()
        shown = {}
        for command in ("check", "show"):
            asked = subprocess.run(
                [memebg, "--config", file.name, *arguments, "config", command],
                env={"PATH": os.environ["PATH"]} | ours,
                capture_output=True,
                text=True,
            )
            demand(asked.returncode == 0, f"{name}: memebg config {command}: {asked.stderr.strip()}")
            shown = tomllib.loads(asked.stdout) if command == "show" and asked.returncode == 0 else shown
        return shown


def image_environment(dockerfile):
    text = (REPOSITORY / "deploy/docker" / dockerfile).read_text().replace("\\\n", " ")
    return dict(pair.split("=", 1) for line in re.findall(r"^ENV (.*)$", text, re.M) for pair in line.split())


def durations(source):
    """The constants of a source file that are whole seconds."""
    text = (REPOSITORY / source).read_text()
    found = re.findall(r"^(?:pub\S* )?const (\w+): Duration = Duration::from_secs\((\d+)\)", text, re.M)
    return {name: int(value) for name, value in found}


def port_of(address):
    return int(address.rsplit(":", 1)[1])


def read(path):
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def of_kind(documents, kind):
    return [document for document in documents if document["kind"] == kind]


def only(documents, kind, name=None):
    found = [document for document in of_kind(documents, kind) if name in (None, document["metadata"]["name"])]
    if len(found) != 1:
        raise SystemExit(f"expected one {kind} {name or ''}, found {len(found)}")
    return found[0]


def behind(pod, container, file):
    """Secret or ConfigMap and key that a path in a container shows; None where nothing is mounted there."""
    for mount in container["volumeMounts"]:
        if file.startswith(f"{mount['mountPath']}/"):
            volume = next(volume for volume in pod["volumes"] if volume["name"] == mount["name"])
            secret = volume.get("secret")
            inside = file.removeprefix(f"{mount['mountPath']}/")
            keys = [item["key"] for item in (secret or {}).get("items", []) if item["path"] == inside]
            return (secret["secretName"], keys[0]) if secret and keys else None
    return None
