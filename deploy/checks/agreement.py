"""Whether the deployment files agree with the program and with each other.

    agreement.py --memebg BINARY --cpu RENDERED --gpu RENDERED --people RENDERED --strimzi RENDERED --compose RENDERED
"""

import argparse
import re
import sys
import tomllib
from pathlib import Path

from compose import check_compose
from parts import check_parts, check_rights, patience_seconds, rights_of
from program import REPOSITORY, demand, faults, image_environment, of_kind, only, options, port_of, read


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
        return None, {}
    demand(config["model"]["device"] == device, f"{name}: the models run on {config['model']['device']}, not {device}")
    wants_gpu = "nvidia.com/gpu" in container["resources"]["limits"]
    demand(wants_gpu == (device == "cuda"), f"{name}: device {device}, but the limits are {container['resources']['limits']}")
    patience = patience_seconds("serve", config)
    grace = pod["terminationGracePeriodSeconds"]
    demand(grace > patience, f"{name}: a grace period of {grace} s, but draining and ending may take {patience:.0f} s")
    port = port_of(config["telemetry"]["listen"])
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
    trigger = only(documents, "ScaledObject")["spec"]["triggers"][0]["metadata"]
    demand(trigger["consumerGroup"] == kafka["group_id"], f"{name}: KEDA looks at another group")
    demand(trigger["topic"] == kafka["frames_topic"], f"{name}: KEDA looks at another topic")
    demand(trigger["offsetResetPolicy"] == kafka["start_from"], f"{name}: KEDA counts another lag at the start")
    demand(trigger["bootstrapServers"] == kafka["brokers"], f"{name}: KEDA asks other brokers")
    return config, check_parts(memebg, name, documents, dockerfile, toml)


def check_topics(documents, config, scaled):
    """Topics and rights are those that the configuration needs."""
    kafka = config["kafka"]
    topics = {topic["metadata"]["name"]: topic["spec"] for topic in of_kind(documents, "KafkaTopic")}
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
    for name in ("memebg", "cpu", "gpu", "people", "strimzi", "compose"):
        arguments.add_argument(f"--{name}", type=Path, required=True)
    arguments = arguments.parse_args()
    check_runtime()
    cpu, gpu = read(arguments.cpu), read(arguments.gpu)
    config, _ = check_pods(arguments.memebg, "cpu", cpu, "Dockerfile", "cpu")
    check_pods(arguments.memebg, "gpu", gpu, "Dockerfile.cuda", "cuda")
    _, parts = check_pods(arguments.memebg, "people", read(arguments.people), "Dockerfile", "cpu")
    for part in ("memebg-summarizer", "memebg-board", "memebg-emr"):
        demand(part in parts, f"people: nothing is known of {part}")
    if config:
        strimzi = read(arguments.strimzi)
        check_topics(strimzi, config, only(cpu, "ScaledObject")["spec"])
        check_rights(strimzi, parts)
    check_compose(arguments.memebg, read(arguments.compose)[0])
    for fault in faults:
        print(fault, file=sys.stderr)
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
