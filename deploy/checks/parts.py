"""The processes beside the graders: each is a user of its own, is confined as the graders are, has the time that it needs,
and is found by nobody else's selectors. And who may reach whom, and who may do what in Kafka."""

import re
import tomllib
from ipaddress import ip_network
from urllib.parse import urlsplit

from program import REPOSITORY, behind, demand, durations, image_environment, of_kind, only, options, port_of

# What a pod of that name runs.
COMMANDS = {"memebg-summarizer": "summarize", "memebg-board": "board", "memebg-emr": "emr"}
PROBES = {"livenessProbe": "/livez", "readinessProbe": "/readyz", "startupProbe": "/readyz"}
# How README.md says it where it does not name an option.
WORDS = {
    "frames": "kafka.frames_topic",
    "grades": "kafka.grades_topic",
    "summaries": "summaries.topic",
    "dead letters": "kafka.dead_letters_topic",
}


def check_parts(memebg, name, documents, dockerfile, toml):
    """The configuration of each part, by the name of its pod."""
    graders = only(documents, "Deployment", "memebg")["spec"]["template"]["spec"]
    configs = {}
    for deployment in of_kind(documents, "Deployment"):
        part = deployment["metadata"]["name"]
        if part == "memebg":
            continue
        container = deployment["spec"]["template"]["spec"]["containers"][0]
        variables = container["env"]
        # Object stores take their credentials from the environment alone.
        allowed = [{"secretRef": {"name": "memebg-object-store", "optional": True}}] if part == "memebg-board" else []
        plain = all("value" in variable for variable in variables) and container.get("envFrom", []) == allowed
        demand(plain, f"{name}: {part} has a secret in its environment: mount it as a file")
        environment = image_environment(dockerfile) | {it["name"]: it.get("value", "") for it in variables}
        config = options(memebg, f"{name}: {part}", environment, toml)
        if config:
            check_part(f"{name}: {part}", part, deployment["spec"], graders, config, toml)
            configs[part] = config
    check_selectors(name, documents)
    check_policies(name, documents, configs)
    if "memebg-board" in configs:
        check_ingress(name, documents, configs["memebg-board"]["board"])
    return configs


def check_part(name, part, deployment, graders, config, toml):
    pod = deployment["template"]["spec"]
    container, grader = pod["containers"][0], graders["containers"][0]
    command = COMMANDS.get(part)
    demand(container["args"][0] == command, f"{name} runs {container['args'][0]}, not {command}")
    demand(deployment["replicas"] == 1, f"{name} has {deployment['replicas']} replicas; its comment says why one is enough")
    for place, theirs in ((pod, graders), (container, grader)):
        confined = place["securityContext"] == theirs["securityContext"]
        demand(confined, f"{name} is confined otherwise than the graders: {place['securityContext']}")
    demand(pod["automountServiceAccountToken"] is False, f"{name} has a token of Kubernetes")
    demand(container["image"] == grader["image"], f"{name} is another version than the graders: {container['image']}")
    shared = [volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume]
    theirs = [volume["configMap"]["name"] for volume in graders["volumes"] if "configMap" in volume]
    demand(shared == theirs, f"{name} reads {shared}, the graders read {theirs}")
    user = config["kafka"]["properties"].get("sasl_username")
    demand(user == part, f"{name} speaks to Kafka as {user}: it should have a user of its own")
    patience, grace = patience_seconds(command, config), pod["terminationGracePeriodSeconds"]
    demand(grace > patience, f"{name} has {grace} s to stop, but may take {patience:.0f} s")
    check_ports(name, part, container, config)
    for file, secret in secret_files(part, config, toml).items():
        found = behind(pod, container, file)
        demand(found == secret, f"{name}: {file} is {found}, expected is {secret}")


def patience_seconds(command, config):
    """How long a process may take to end."""
    if command == "serve":
        end = durations("src/service.rs")
        # The source and then the stages have END_TIMEOUT each, beyond the drain.
        return config["kafka"]["drain_timeout_ms"] / 1000 + 2 * end["END_TIMEOUT"] + end["LEAVE_TIMEOUT"]
    if command == "board":
        # A broker that does not answer is asked for two things, one after the other.
        return 2 * durations("src/kafka/watch.rs")["LOOK_UP_TIMEOUT"]
    return config["kafka"]["drain_timeout_ms"] / 1000 + sum(durations(f"src/cli/{command}.rs").values())


def check_ports(name, part, container, config):
    expected = {"metrics": config["telemetry"]["listen"]}
    if part == "memebg-board":
        expected["http"] = config["board"]["listen"]
    for port, address in expected.items():
        demand(not address.startswith("127."), f"{name}: {port} listens on {address}, where nobody reaches it")
    expected = {port: port_of(address) for port, address in expected.items()}
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    demand(ports == expected, f"{name} listens on {expected}, the pod says {ports}")
    for probe, path in PROBES.items():
        asked = container.get(probe, {}).get("httpGet")
        wanted = {"path": path, "port": "metrics"}
        # Only what has to be loaded takes a while to start.
        absent = probe == "startupProbe" and part != "memebg-summarizer"
        demand(asked == (None if absent else wanted), f"{name}: the {probe} asks for {asked}")


def secret_files(part, config, toml):
    """Which secret each file comes from that the part is told to read."""
    board, emr = config["board"], config["emr"]
    files = {
        config["kafka"]["properties"]["ssl.ca.location"]: ("kafka-cluster-ca-cert", "ca.crt"),
        tomllib.loads(toml)["kafka"]["property_files"]["sasl.password"]: (part, "password"),
        board["token_file"]: ("memebg-board-token", "token"),
        emr["token_file"]: ("memebg-emr-server", "token"),
        emr["ca_file"]: ("memebg-emr-server", "ca.crt"),
    }
    return {file: secret for file, secret in files.items() if file}


def check_selectors(name, documents):
    """Every selector finds the pods of its own name and no others, and everything lies in one namespace."""
    pods = {
        deployment["metadata"]["name"]: deployment["spec"]["template"]["metadata"]["labels"]
        for deployment in of_kind(documents, "Deployment")
    }
    selectors = {
        "Deployment": lambda spec: spec["selector"]["matchLabels"],
        "Service": lambda spec: spec["selector"],
        "PodDisruptionBudget": lambda spec: spec["selector"]["matchLabels"],
        "NetworkPolicy": lambda spec: spec["podSelector"]["matchLabels"],
    }
    for kind, selector in selectors.items():
        objects = {document["metadata"]["name"]: selector(document["spec"]) for document in of_kind(documents, kind)}
        expected = {"memebg"} if kind == "PodDisruptionBudget" else set(pods)
        demand(set(objects) == expected, f"{name}: every pod of {expected} needs a {kind}, there are {set(objects)}")
        for owner, wanted in objects.items():
            found = {pod for pod, labels in pods.items() if wanted.items() <= labels.items()}
            demand(found == {owner}, f"{name}: the {kind} {owner} selects {wanted} and finds {found}")
    monitor = only(documents, "ServiceMonitor")["spec"]
    wanted, port = monitor["selector"]["matchLabels"], monitor["endpoints"][0]["port"]
    for service in of_kind(documents, "Service"):
        labels, ports = service["metadata"]["labels"], {port["name"] for port in service["spec"]["ports"]}
        scraped = wanted.items() <= labels.items() and port in ports
        demand(scraped, f"{name}: nobody scrapes {service['metadata']['name']}: {wanted}, {port} and {labels}, {ports}")
    namespaces = {
        document["metadata"].get("namespace") for document in documents if document["kind"] != "Namespace"
    }
    demand(namespaces == {"memebg"}, f"{name}: objects lie in the namespaces {namespaces}")


def check_policies(name, documents, configs):
    """Nobody is reached by everybody; the page of the board by its proxy alone, and the EMR by its feed."""
    for policy in of_kind(documents, "NetworkPolicy"):
        owner, spec = policy["metadata"]["name"], policy["spec"]
        demand(set(spec["policyTypes"]) == {"Ingress", "Egress"}, f"{name}: {owner} is confined in one direction only")
        for rule in spec["ingress"]:
            demand(rule.get("from") and rule.get("ports"), f"{name}: {owner} lets everybody in: {rule}")
        for rule in spec["egress"]:
            demand(rule.get("to") and rule.get("ports"), f"{name}: {owner} lets everything out: {rule}")
        dns = spec["egress"][0]["to"][0].get("podSelector", {}).get("matchLabels")
        demand(dns == {"k8s-app": "kube-dns"}, f"{name}: {owner} looks for the name server as {dns}")
        senders = {}
        for rule in spec["ingress"]:
            for port in rule.get("ports", []):
                senders.setdefault(port["port"], []).extend(rule.get("from", []))
        wanted = {"metrics", "http"} if owner == "memebg-board" else {"metrics"}
        demand(set(senders) == wanted, f"{name}: {owner} lets somebody in to {set(senders)}")
        proxy = senders.get("http", [])
        narrow = len(proxy) <= 1 and all({"namespaceSelector", "podSelector"} <= set(peer) for peer in proxy)
        demand(narrow, f"{name}: more than the pods of one proxy reach the page of the board: {proxy}")
        brokers = configs.get(owner, {}).get("kafka", {}).get("brokers")
        kafka = [rule["ports"] for rule in spec["egress"] if "kafka" in map(namespace_of, rule.get("to", []))]
        fits = brokers is None or kafka == [[{"port": port_of(brokers)}]]
        demand(fits, f"{name}: {owner} reaches {kafka}, the brokers are {brokers}")
    if "memebg-emr" in configs:
        check_way_to_the_emr(name, only(documents, "NetworkPolicy", "memebg-emr"), configs["memebg-emr"]["emr"])


def namespace_of(peer):
    return peer.get("namespaceSelector", {}).get("matchLabels", {}).get("kubernetes.io/metadata.name")


def check_way_to_the_emr(name, policy, emr):
    """One host, on the port of emr.server."""
    ways = [
        (peer["ipBlock"]["cidr"], [port["port"] for port in rule["ports"]])
        for rule in policy["spec"]["egress"]
        for peer in rule.get("to", [])
        if "ipBlock" in peer
    ]
    url = urlsplit(emr["server"])
    ports = [url.port or {"https": 443, "http": 80}.get(url.scheme)]
    single = len(ways) == 1 and ip_network(ways[0][0]).num_addresses == 1
    demand(single and ways[0][1] == ports, f"{name}: emr.server is {emr['server']}, the EMR feed may reach {ways}")
    demand(url.scheme == "https", f"{name}: grades and token go to {emr['server']} in clear")


def check_ingress(name, documents, board):
    """The board is reached under its own names, over TLS, and in no other way."""
    demand(board["auth"] == "token", f"{name}: board.auth is {board['auth']}, and anybody in the cluster may be the proxy")
    ingress = only(documents, "Ingress")
    spec, annotations = ingress["spec"], ingress["metadata"]["annotations"]
    hosts = {rule.get("host") for rule in spec["rules"]}
    demand(hosts == set(board["hosts"]), f"{name}: the ingress is for {hosts}, board.hosts is {board['hosts']}")
    secured = {host for entry in spec.get("tls", []) if entry.get("secretName") for host in entry["hosts"]}
    demand(secured == hosts, f"{name}: the ingress has certificates for {secured}, and answers for {hosts}")
    demand("defaultBackend" not in spec, f"{name}: the ingress answers under any name")
    prefix = "traefik.ingress.kubernetes.io/router"
    only_tls = (annotations.get(f"{prefix}.entrypoints"), annotations.get(f"{prefix}.tls")) == ("websecure", "true")
    demand(only_tls and spec["ingressClassName"] == "traefik", f"{name}: the ingress answers plain HTTP, too: {annotations}")
    for rule in spec["rules"]:
        for path in rule["http"]["paths"]:
            service = path["backend"]["service"]
            leads = service == {"name": "memebg-board", "port": {"name": "http"}}
            demand(leads, f"{name}: the ingress leads to {service}")


def rights_of(documents, user):
    acls = only(documents, "KafkaUser", user)["spec"]["authorization"]["acls"]
    return {
        (acl["resource"]["type"], acl["resource"]["name"], acl["resource"]["patternType"]): set(acl["operations"])
        for acl in acls
    }


def listed_rights(process, config):
    """What README.md lists under Security for a process, with the names of its configuration."""
    rights, subject = {}, None
    for line in (REPOSITORY / "README.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")] if line.startswith("|") else []
        subject = (cells[0].strip("` ") or subject) if len(cells) == 3 else None
        if subject != process:
            continue
        named = re.findall(r"`([a-z_]+\.[a-z_]+)`(?: \+ `([^`]+)`)?", cells[1])
        named = named or [(option, "") for word, option in WORDS.items() if re.search(rf"\b{word}\b", cells[1])]
        for option, suffix in named:
            section, key = option.split(".")
            if config[section][key]:
                kind = "group" if cells[1].startswith("group") else "topic"
                rights[kind, config[section][key] + suffix, "literal"] = set(cells[2].split(", "))
    return rights


def check_rights(documents, configs):
    """Board and EMR feed may do what README.md lists, and nothing else."""
    topics = {topic["metadata"]["name"]: topic["spec"] for topic in of_kind(documents, "KafkaTopic")}
    for part in ("memebg-board", "memebg-emr"):
        if part not in configs:
            continue
        rights, listed = rights_of(documents, part), listed_rights(COMMANDS[part], configs[part])
        demand(listed, f"README.md lists no rights of {COMMANDS[part]}")
        demand(rights == listed, f"strimzi: {part} may {rights}, README.md lists {listed}")
    if "memebg-emr" in configs:
        emr, group = configs["memebg-emr"]["emr"], configs["memebg-emr"]["kafka"]["group_id"]
        group = emr["group_id"] or f"{group}-emr"
        joins = ("group", group, "literal") in rights_of(documents, "memebg-emr")
        demand(joins, f"strimzi: memebg-emr may not join its group {group}")
        demand(not emr["topic"] or emr["topic"] in topics, f"strimzi: emr.topic = {emr['topic']} is not created")
