"""Whether the deployment files agree with the program and with each other.

    agreement.py --memebg BINARY --cpu RENDERED --gpu RENDERED --strimzi RENDERED --compose RENDERED
"""

import argparse
import json
import os
import re
import subprocess
import sys
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


def settling_seconds():
    """How long src/service.rs may take to end, without the drain itself."""
    text = (REPOSITORY / "src/service.rs").read_text()
    seconds = {
        name: int(value)
        for name, value in re.findall(r"const (\w+_TIMEOUT): Duration = Duration::from_secs\((\d+)\)", text)
    }
    # The source and then the stages have END_TIMEOUT each, beyond the drain.
    return 2 * seconds["END_TIMEOUT"] + seconds["LEAVE_TIMEOUT"]


def seconds(text):
    """A duration of the compose specification, as `1m10s`."""
    parts = re.findall(r"(\d+)(h|m|s)", text)
    return sum(int(number) * {"h": 3600, "m": 60, "s": 1}[unit] for number, unit in parts)


def read(path):
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def only(documents, kind, name=None):
    found = [
        document
        for document in documents
        if document["kind"] == kind and name in (None, document["metadata"]["name"])
    ]
    if len(found) != 1:
        sys.exit(f"expected one {kind}, found {len(found)}")
    return found[0]


def check_pods(memebg, name, documents, dockerfile, device):
    deployment = only(documents, "Deployment", "memebg")
    pod = deployment["spec"]["template"]["spec"]
    container = pod["containers"][0]
    environment = image_environment(dockerfile)
    environment |= {variable["name"]: variable["value"] for variable in container.get("env", [])}
    toml = next(
        document["data"]["memebg.toml"]
        for document in documents
        if document["kind"] == "ConfigMap" and "memebg.toml" in document["data"]
    )
    config = options(memebg, name, environment, toml)
    if not config:
        return None
    demand(config["model"]["device"] == device, f"{name}: the models run on {config['model']['device']}, not {device}")
    wants_gpu = "nvidia.com/gpu" in container["resources"]["limits"]
    demand(wants_gpu == (device == "cuda"), f"{name}: device {device}, but the limits are {container['resources']['limits']}")
    patience = config["kafka"]["drain_timeout_ms"] / 1000 + settling_seconds()
    grace = pod["terminationGracePeriodSeconds"]
    demand(grace > patience, f"{name}: a grace period of {grace} s, but draining and ending may take {patience:.0f} s")
    port = int(config["telemetry"]["listen"].rsplit(":", 1)[1])
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    demand(ports == {"metrics": port}, f"{name}: memebg listens on {port}, the pod says {ports}")
    demand(
        not config["telemetry"]["listen"].startswith("127."), f"{name}: the kubelet cannot reach the loopback address"
    )
    mounted = [mount["mountPath"] for mount in container["volumeMounts"]]
    kafka = config["kafka"]
    files = [
        config["model"]["bundle"],
        kafka["properties"]["ssl.ca.location"],
        *tomllib.loads(toml)["kafka"]["property_files"].values(),
    ]
    for file in files:
        demand(any(file.startswith(f"{place}/") for place in mounted), f"{name}: nothing is mounted where {file} is")
    check_selectors(name, documents, deployment["spec"]["template"]["metadata"]["labels"])
    check_summarizer(memebg, name, documents, dockerfile, toml)
    trigger = only(documents, "ScaledObject")["spec"]["triggers"][0]["metadata"]
    demand(trigger["consumerGroup"] == kafka["group_id"], f"{name}: KEDA looks at another group")
    demand(trigger["topic"] == kafka["frames_topic"], f"{name}: KEDA looks at another topic")
    demand(trigger["offsetResetPolicy"] == kafka["start_from"], f"{name}: KEDA counts another lag at the start")
    demand(trigger["bootstrapServers"] == kafka["brokers"], f"{name}: KEDA asks other brokers")
    return config


def check_selectors(name, documents, labels):
    """Every selector that is about our own pods finds them, and everything lies in one namespace."""
    selectors = {
        "Deployment": lambda spec: spec["selector"]["matchLabels"],
        "Service": lambda spec: spec["selector"],
        "PodDisruptionBudget": lambda spec: spec["selector"]["matchLabels"],
        "NetworkPolicy": lambda spec: spec["podSelector"]["matchLabels"],
    }
    for kind, selector in selectors.items():
        wanted = selector(only(documents, kind, "memebg")["spec"])
        demand(wanted and wanted.items() <= labels.items(), f"{name}: the {kind} selects {wanted}, pods are {labels}")
    wanted = only(documents, "ServiceMonitor")["spec"]["selector"]["matchLabels"]
    for part in ("memebg", "memebg-summarizer"):
        service = only(documents, "Service", part)["metadata"]["labels"]
        demand(wanted.items() <= service.items(), f"{name}: the ServiceMonitor selects {wanted}, the service is {service}")
        dns = only(documents, "NetworkPolicy", part)["spec"]["egress"][0]["to"][0]["podSelector"]["matchLabels"]
        demand(dns == {"k8s-app": "kube-dns"}, f"{name}: the name server is looked for as {dns}")
    namespaces = {
        document["metadata"].get("namespace") for document in documents if document["kind"] != "Namespace"
    }
    demand(namespaces == {"memebg"}, f"{name}: objects lie in the namespaces {namespaces}")


def check_summarizer(memebg, name, documents, dockerfile, toml):
    """The summarizer reads the same file as a user of its own, has the time it needs, and nobody else's selectors find it."""
    deployment = only(documents, "Deployment", "memebg-summarizer")["spec"]
    pod = deployment["template"]["spec"]
    container = pod["containers"][0]
    environment = image_environment(dockerfile)
    environment |= {variable["name"]: variable["value"] for variable in container["env"]}
    config = options(memebg, f"{name}: summarizer", environment, toml)
    if not config:
        return
    kafka = config["kafka"]
    demand(
        kafka["properties"]["sasl_username"] == "memebg-summarizer", f"{name}: the summarizer has the user of the graders"
    )
    text = (REPOSITORY / "src/cli/summarize.rs").read_text()
    after = sum(int(value) for value in re.findall(r"^const \w+: Duration = Duration::from_secs\((\d+)\)", text, re.M))
    patience, grace = kafka["drain_timeout_ms"] / 1000 + after, pod["terminationGracePeriodSeconds"]
    demand(grace > patience, f"{name}: the summarizer has {grace} s to stop, but may take {patience:.0f} s")
    port = int(config["telemetry"]["listen"].rsplit(":", 1)[1])
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    demand(ports == {"metrics": port}, f"{name}: the summarizer listens on {port}, the pod says {ports}")
    mounted = [mount["mountPath"] for mount in container["volumeMounts"]]
    for file in (kafka["properties"]["ssl.ca.location"], *tomllib.loads(toml)["kafka"]["property_files"].values()):
        demand(any(file.startswith(f"{place}/") for place in mounted), f"{name}: summarizer: nothing is mounted for {file}")
    labels = deployment["template"]["metadata"]["labels"]
    for selector in (
        deployment["selector"]["matchLabels"],
        only(documents, "Service", "memebg-summarizer")["spec"]["selector"],
        only(documents, "NetworkPolicy", "memebg-summarizer")["spec"]["podSelector"]["matchLabels"],
    ):
        demand(selector.items() <= labels.items(), f"{name}: {selector} does not select the summarizer, {labels}")
    graders = only(documents, "Deployment", "memebg")["spec"]["selector"]["matchLabels"]
    demand(not graders.items() <= labels.items(), f"{name}: the graders' selectors find the summarizer, too")


def rights_of(documents, user):
    acls = only(documents, "KafkaUser", user)["spec"]["authorization"]["acls"]
    return {
        (acl["resource"]["type"], acl["resource"]["name"], acl["resource"]["patternType"]): set(acl["operations"])
        for acl in acls
    }


def check_topics(documents, config, scaled):
    """Topics and rights are those that the configuration needs."""
    kafka = config["kafka"]
    topics = {
        document["metadata"]["name"]: document["spec"] for document in documents if document["kind"] == "KafkaTopic"
    }
    shadow_topic = config["shadow"]["topic"]
    for option in ("frames_topic", "grades_topic", "dead_letters_topic"):
        demand(kafka[option] in topics, f"strimzi: kafka.{option} = {kafka[option]} is not created")
    demand(shadow_topic in topics, f"strimzi: shadow.topic = {shadow_topic} is not created")
    summaries, reviews = config["summaries"]["topic"], config["reviews"]["topic"]
    for option, topic in (("summaries.topic", summaries), ("reviews.topic", reviews)):
        demand(topic in topics, f"strimzi: {option} = {topic} is not created")
    if faults:
        return
    for option, topic in (("max_value_bytes", "frames_topic"), ("max_send_bytes", "dead_letters_topic")):
        limit = topics[kafka[topic]]["config"]["max.message.bytes"]
        demand(limit >= kafka[option], f"strimzi: kafka.{option} = {kafka[option]}, the {topic} takes {limit}")
    partitions = topics[kafka["frames_topic"]]["partitions"]
    most = scaled["maxReplicaCount"]
    demand(most <= partitions, f"KEDA starts up to {most} pods for {partitions} partitions")
    for topic in (summaries, reviews):
        count, grades = topics[topic]["partitions"], topics[kafka["grades_topic"]]["partitions"]
        demand(count == grades, f"strimzi: {topic} has {count} partitions and the grades {grades}")
    demand(topics[summaries]["config"]["cleanup.policy"] == "compact", "strimzi: the summaries are not compacted")
    demand(topics[reviews]["config"]["retention.ms"] == -1, "strimzi: reviews are deleted after a time")
    group = config["summaries"]["group_id"] or f"{kafka['group_id']}-summaries"
    rights = rights_of(documents, "memebg-summarizer")
    needed = {
        ("topic", kafka["grades_topic"], "literal"): {"Read", "Describe"},
        ("topic", reviews, "literal"): {"Read", "Describe"},
        ("topic", summaries, "literal"): {"Read", "Write", "Describe"},
        ("topic", kafka["dead_letters_topic"], "literal"): {"Write", "Describe"},
        ("group", group, "literal"): {"Read"},
        ("transactionalId", f"{group}-", "prefix"): {"Write", "Describe"},
    }
    demand(rights == needed, f"strimzi: the summarizer may {rights}, it needs {needed}")
    rights = rights_of(documents, "memebg")
    needed = {
        ("topic", kafka["frames_topic"], "literal"): {"Read", "Describe"},
        ("topic", kafka["grades_topic"], "literal"): {"Write", "Describe"},
        ("topic", kafka["dead_letters_topic"], "literal"): {"Write", "Describe"},
        ("topic", shadow_topic, "literal"): {"Write", "Describe"},
        ("group", kafka["group_id"], "literal"): {"Read"},
        ("transactionalId", f"{kafka['group_id']}-", "prefix"): {"Write", "Describe"},
    }
    demand(rights == needed, f"strimzi: the user may {rights}, it needs {needed}")
    demand(kafka["properties"]["sasl.username"] == "memebg", "kafka.properties: the user is not Strimzi's")


def check_compose(memebg, project):
    pom = (REPOSITORY / "deploy/kafka/pom.xml").read_text()
    kafka = re.search(r"<kafka.version>(.*)</kafka.version>", pom)[1]
    broker = project["services"]["kafka"]["image"]
    demand(broker == f"apache/kafka:{kafka}", f"compose: the broker is {broker}, the tests run against {kafka}")
    for name, service in project["services"].items():
        for port in service.get("ports", []):
            demand(port.get("host_ip") == "127.0.0.1", f"compose: {name} publishes {port} beyond this machine")
        for volume in service.get("volumes", []):
            there = Path(volume["source"]).exists() if volume["type"] == "bind" else volume["source"] in project["volumes"]
            demand(there, f"compose: {name} mounts {volume['source']}, which is not there")
        # The loader leaves these to the engine.
        for other, how in (service.get("depends_on") or {}).items():
            demand(other in project["services"], f"compose: {name} waits for {other}, which is not there")
            health = project["services"].get(other, {}).get("healthcheck", {})
            checked = how["condition"] != "service_healthy" or "test" in health
            demand(checked, f"compose: {name} waits for {other} to be healthy, which nobody checks")
        if not service.get("image", "").startswith("memebg"):
            continue
        environment = image_environment("Dockerfile") | (service.get("environment") or {})
        config = options(memebg, f"compose: {name}", environment)
        if config and "serve" in (service.get("command") or ["serve"]):
            patience = config["kafka"]["drain_timeout_ms"] / 1000 + settling_seconds()
            grace = seconds(service.get("stop_grace_period") or "10s")
            demand(grace > patience, f"compose: {name} has {grace} s to stop, but may take {patience:.0f} s")


def check_grafana(project):
    """Grafana finds its dashboards, and they find their data, where compose.yaml has them."""
    provisioning = REPOSITORY / "deploy/grafana/provisioning"
    provider = read(provisioning / "dashboards/memebg.yaml")[0]["providers"][0]
    mounted = {volume["target"] for volume in project["services"]["grafana"]["volumes"]}
    path = provider["options"]["path"]
    demand(path in mounted, f"grafana: dashboards are looked for in {path}, mounted are {mounted}")
    source = read(provisioning / "datasources/prometheus.yaml")[0]["datasources"][0]
    host = source["url"].split("/")[2].split(":")[0]
    demand(host in project["services"], f"grafana: no service {host} to ask")
    for path in sorted((REPOSITORY / "deploy/grafana/dashboards").glob("*.json")):
        text = path.read_text()
        # A variable offers the sources of a type, of which the provisioned one is the default.
        offered = {
            f"${{{variable['name']}}}": variable["query"]
            for variable in json.loads(text)["templating"]["list"]
            if variable["type"] == "datasource"
        }
        for uid in set(re.findall(r'"type": *"prometheus",\s*"uid": *"([^"]+)"', text)):
            known = uid == source["uid"] or (offered.get(uid) == source["type"] and source["isDefault"])
            demand(known, f"grafana: {path.name} asks {uid}, provisioned is {source['uid']}")


def check_runtime():
    """The images hold the ONNX Runtime that the program would fetch."""
    runtime = (REPOSITORY / "src/model/runtime.rs").read_text()
    version = re.search(r'const VERSION: &str = "(.*)";', runtime)[1]
    digests = set(re.findall(r'\bsha256: "([0-9a-f]{64})"', runtime))
    for dockerfile, package in (("Dockerfile", "onnxruntime"), ("Dockerfile.cuda", "onnxruntime-gpu")):
        text = (REPOSITORY / "deploy/docker" / dockerfile).read_text()
        demand(f"'{package}=={version}'" in text, f"{dockerfile}: memebg expects {package} {version}")
    pinned = set(re.findall(r"--hash=sha256:([0-9a-f]{64})", (REPOSITORY / "deploy/docker/Dockerfile").read_text()))
    demand(pinned == digests, f"Dockerfile: the wheels' digests are not those of src/model/runtime.rs: {pinned ^ digests}")
    rust = re.search(r'^rust-version = "(.*)"', (REPOSITORY / "Cargo.toml").read_text(), re.M)[1]
    for dockerfile in ("Dockerfile", "Dockerfile.cuda"):
        text = (REPOSITORY / "deploy/docker" / dockerfile).read_text()
        demand(f"FROM rust:{rust}-bookworm" in text, f"{dockerfile}: Cargo.toml wants Rust {rust}")


def main():
    arguments = argparse.ArgumentParser()
    for name in ("memebg", "cpu", "gpu", "strimzi", "compose"):
        arguments.add_argument(f"--{name}", type=Path, required=True)
    arguments = arguments.parse_args()
    check_runtime()
    cpu, gpu = read(arguments.cpu), read(arguments.gpu)
    config = check_pods(arguments.memebg, "cpu", cpu, "Dockerfile", "cpu")
    check_pods(arguments.memebg, "gpu", gpu, "Dockerfile.cuda", "cuda")
    if config:
        check_topics(read(arguments.strimzi), config, only(cpu, "ScaledObject")["spec"])
    check_compose(arguments.memebg, read(arguments.compose)[0])
    check_grafana(read(arguments.compose)[0])
    for fault in faults:
        print(fault, file=sys.stderr)
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
