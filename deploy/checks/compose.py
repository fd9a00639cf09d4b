"""compose.yaml: its services start after what they need, reach each other, and are reached from this machine alone."""

import json
import re
from pathlib import Path

from parts import COMMANDS, patience_seconds
from program import REPOSITORY, demand, image_environment, options, port_of, read

# Processes that others ask.
SERVING = {"serve", *COMMANDS.values()}


def seconds(text):
    """A duration of the compose specification, as `1m10s`."""
    parts = re.findall(r"(\d+)(h|m|s)", text)
    return sum(int(number) * {"h": 3600, "m": 60, "s": 1}[unit] for number, unit in parts)


def check_compose(memebg, project):
    pom = (REPOSITORY / "deploy/kafka/pom.xml").read_text()
    kafka = re.search(r"<jars.version>(.*)</jars.version>", pom)[1]
    broker = project["services"]["kafka"]["image"]
    demand(broker == f"apache/kafka:{kafka}", f"compose: the broker is {broker}, the tests run against {kafka}")
    scraped = scraped_ports()
    for name, service in project["services"].items():
        check_service(f"compose: {name}", service, project)
        if not service.get("image", "").startswith("memebg") or service.get("entrypoint"):
            continue
        # The image's own is to serve.
        command = (service.get("command") or ["serve"])[0]
        environment = image_environment("Dockerfile") | (service.get("environment") or {})
        config = options(memebg, f"compose: {name}", environment)
        if config:
            check_process(f"compose: {name}", command, service, config, scraped.pop(name, None))
            check_topics(f"compose: {name}", command, config, "\n".join(project["services"]["topics"]["command"]))
    demand(not scraped, f"compose: Prometheus asks {scraped}, which nobody is")
    check_grafana(project)


def scraped_ports():
    """Which port of which service Prometheus asks."""
    (prometheus,) = read(REPOSITORY / "deploy/docker/prometheus.yml")
    found = [source for job in prometheus["scrape_configs"] for source in job["dns_sd_configs"]]
    return {name: source["port"] for source in found for name in source["names"]}


def check_service(name, service, project):
    for port in service.get("ports", []):
        demand(port.get("host_ip") == "127.0.0.1", f"{name} publishes {port} beyond this machine")
    for volume in service.get("volumes", []):
        there = Path(volume["source"]).exists() if volume["type"] == "bind" else volume["source"] in project["volumes"]
        demand(there, f"{name} mounts {volume['source']}, which is not there")
    # The loader leaves these to the engine.
    for other, how in (service.get("depends_on") or {}).items():
        demand(other in project["services"], f"{name} waits for {other}, which is not there")
        health = project["services"].get(other, {}).get("healthcheck", {})
        checked = how["condition"] != "service_healthy" or "test" in health
        demand(checked, f"{name} waits for {other} to be healthy, which nobody checks")


def check_process(name, command, service, config, scraped):
    if command not in SERVING:
        return
    patience, grace = patience_seconds(command, config), seconds(service.get("stop_grace_period") or "10s")
    demand(grace > patience, f"{name} has {grace} s to stop, but may take {patience:.0f} s")
    reached = {config["telemetry"]["listen"]: scraped}
    if command == "board":
        (published,) = service["ports"]
        reached[config["board"]["listen"]] = published["target"]
        folders = [volume["target"] for volume in service["volumes"]]
        token = config["board"]["token_file"]
        demand(any(token.startswith(f"{it}/") for it in folders), f"{name}: {token} is on none of {folders}")
    for address, port in reached.items():
        there = not address.startswith("127.") and port_of(address) == port
        demand(there, f"{name} listens on {address}, and is asked on port {port}")


def check_topics(name, command, config, created):
    """What memebg reads and writes is created before."""
    topics = [value for key, value in config["kafka"].items() if key.endswith("_topic")]
    if command in COMMANDS.values():
        topics += [config["summaries"]["topic"], config["reviews"]["topic"]]
    for topic in topics:
        demand(f" {topic} " in created, f"{name} needs {topic}, which nobody creates")


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
