"""Holds rendered manifests against the schemas of the kinds they name; an unknown field fails. Then breaks each of them
and demands that this is seen, so that no kind passes because nobody looks at it.

    manifests.py --crds FILE... --strimzi JARS -- FILE...
"""

import argparse
import copy
import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import kubernetes_validate
import yaml

# The oldest and the newest version that the manifests are for.
KUBERNETES = ("1.33", kubernetes_validate.latest_version())
STRIMZI = "kafka.strimzi.io/"


class Definitions(yaml.CSafeLoader):
    """Reads a lone `=`, an operator in the schemas of alerts, as the text that it is."""


Definitions.add_constructor("tag:yaml.org,2002:value", lambda loader, node: node.value)


def closed(schema):
    """A schema of a custom resource in which, as with `kubectl apply --validate=strict`, unknown fields are errors."""
    if isinstance(schema, list):
        return [closed(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: closed(inner) for key, inner in schema.items()}
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        schema.setdefault("additionalProperties", False)
    if schema.get("x-kubernetes-int-or-string"):
        schema.pop("type", None)
    return schema


def custom_resources(paths):
    """Schemas by (apiVersion, kind)."""
    schemas = {}
    for path in paths:
        definition = yaml.load(path.read_text(), Definitions)["spec"]
        for version in definition["versions"]:
            schema = closed(version["schema"]["openAPIV3Schema"])
            # Kubernetes itself checks these three.
            schema["properties"] |= {"apiVersion": {}, "kind": {}, "metadata": {"type": "object"}}
            schemas[f"{definition['group']}/{version['name']}", definition["names"]["kind"]] = schema
    return schemas


def faults(document, schemas):
    """What is wrong with one object; None where no schema is known for it."""
    schema = schemas.get((document["apiVersion"], document["kind"]))
    if schema:
        errors = jsonschema.Draft202012Validator(schema).iter_errors(document)
        return [f"{error.json_path}: {error.message}" for error in errors]
    for version in KUBERNETES:
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            return [f"{error.json_path}: {error.message} (Kubernetes {version})"]
        except kubernetes_validate.SchemaNotFoundError:
            return None
    return []


def strimzi_faults(documents, jars):
    script = Path(__file__).with_name("strimzi.groovy")
    command = ["java", "-cp", f"{jars}/*", "groovy.ui.GroovyMain", str(script)]
    # Its logging facade complains on standard error that nothing is bound to it.
    asked = subprocess.run(command, input=json.dumps(documents), capture_output=True, text=True)
    if asked.returncode:
        sys.exit(f"Strimzi's classes could not be asked: {asked.stderr[-2000:]}")
    return json.loads(asked.stdout)


def broken(document):
    """The object with a field that nobody knows, as deep as `spec` where it has one."""
    document = copy.deepcopy(document)
    place = document.get("spec", document)
    place["replicasss"] = 1
    return document


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--crds", type=Path, nargs="+", required=True)
    arguments.add_argument("--strimzi", type=Path, required=True)
    arguments.add_argument("files", type=Path, nargs="+")
    arguments = arguments.parse_args()
    schemas = custom_resources(arguments.crds)
    documents = [
        (file, document)
        for file in arguments.files
        for document in yaml.safe_load_all(file.read_text())
        if document
    ]
    theirs = [document for _, document in documents if document["apiVersion"].startswith(STRIMZI)]
    strimzi = iter(strimzi_faults(theirs + [broken(document) for document in theirs], arguments.strimzi))
    # In the order of `theirs`, the objects first and then the broken ones.
    judged = {id(document): [next(strimzi), None] for document in theirs}
    for document in theirs:
        judged[id(document)][1] = next(strimzi)
    failed = False
    for file, document in documents:
        name = f"{file.stem}: {document['kind']} {document['metadata']['name']}"
        sound, unsound = judged.get(id(document)) or (faults(document, schemas), faults(broken(document), schemas))
        if sound is None:
            complaint = [f"no schema for {document['apiVersion']}"]
        else:
            complaint = sound or ([] if unsound else ["an unknown field is not noticed: this check is blind here"])
        failed = failed or bool(complaint)
        for line in complaint:
            print(f"{name}: {line}", file=sys.stderr)
    print(f"{len(documents)} objects in {len(arguments.files)} renderings, each also broken once")
    sys.exit(failed)


if __name__ == "__main__":
    main()
