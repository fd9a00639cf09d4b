//! A real Apache Kafka broker for tests: `deploy/kafka/run` as a child process, on loopback, in a temporary folder.
//!
//! Needs Java 17 and, the first time only, Maven. Where they lack, tests fail and say so; they are never skipped.
//! A start takes about 3 seconds and the broker about 250 MB, so tests share one where they can.

use std::{
    fs::{self, File},
    hash::{BuildHasher, RandomState},
    io::Write,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    metadata::Metadata,
};
use tempfile::TempDir;

/// Above the first start's download of the jars (about 45 MB) and a busy machine.
const READY_TIMEOUT: Duration = Duration::from_secs(180);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// One running broker. Dropping it, or the end of the test process in any way, kills it and deletes its data.
pub struct Kafka {
    state: TempDir,
    port: u16,
    controller_port: u16,
    /// Of all nodes of its cluster.
    bootstrap: String,
    replicas: i32,
    /// Further arguments of `run`.
    more: Vec<String>,
    process: Child,
}

impl Kafka {
    /// Starts a broker of one's own: for tests that restart it or that must not see another test's groups.
    /// Panics with the broker's own words when it does not come up.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with further arguments of `deploy/kafka/run`.
    pub fn start_with(more: &[String]) -> Self {
        let state = tempfile::Builder::new().prefix("memebg-kafka-").tempdir().expect("a temporary folder");
        let [port, controller_port] = free_ports();
        let process = spawn(state.path(), port, controller_port, more);
        let bootstrap = format!("{}:{port}", Ipv4Addr::LOCALHOST);
        let more = more.to_vec();
        let mut kafka = Self { state, port, controller_port, bootstrap, replicas: 1, more, process };
        kafka.await_ready();
        kafka
    }

    /// Starts three nodes that replicate everything to each other and go on when one of them dies. Dropping one kills
    /// it and deletes its data, as when a machine is lost.
    pub fn cluster() -> [Self; 3] {
        let ports = free_ports::<6>();
        let (brokers, controllers) = ports.split_at(3);
        let list = |ports: &[u16], named: &dyn Fn(usize) -> String| -> String {
            let each = ports.iter().enumerate();
            let each = each.map(|(node, port)| format!("{}{}:{port}", named(node + 1), Ipv4Addr::LOCALHOST));
            each.collect::<Vec<_>>().join(",")
        };
        let bootstrap = list(brokers, &|_| String::new());
        let voters = list(controllers, &|node| format!("{node}@"));
        let mut nodes = [0, 1, 2].map(|node| {
            let state =
                tempfile::Builder::new().prefix("memebg-kafka-").tempdir().expect("a temporary folder");
            let properties = format!(
                "node.id={}\ncontroller.quorum.voters={voters}\nmin.insync.replicas=2\n\
                 offsets.topic.replication.factor=3\ntransaction.state.log.replication.factor=3\n\
                 transaction.state.log.min.isr=2\n",
                node + 1
            );
            let file = state.path().join("node.properties");
            fs::write(&file, properties).expect("a properties file");
            let more = vec![file.to_str().expect("a path in UTF-8").to_owned()];
            let (port, controller_port) = (brokers[node], controllers[node]);
            let process = spawn(state.path(), port, controller_port, &more);
            Self { state, port, controller_port, bootstrap: bootstrap.clone(), replicas: 3, more, process }
        });
        nodes.iter_mut().for_each(Self::await_ready);
        nodes
    }

    /// The broker that all tests of one binary share. Each test names its own topics and groups.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Kafka> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// `host:port` for `bootstrap.servers`, of every node.
    pub fn bootstrap(&self) -> String {
        self.bootstrap.clone()
    }

    /// The folder of its properties, log and data. Gone once the broker has been dropped.
    pub fn state_dir(&self) -> PathBuf {
        self.state.path().to_owned()
    }

    /// A client configuration with this broker as its bootstrap and quick reconnects.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.bootstrap()).set("reconnect.backoff.max.ms", "200");
        config
    }

    /// Creates a topic with topic-level `configs` (such as `max.message.bytes`) and waits until each partition has a
    /// leader, so that the first produce or fetch finds it.
    pub async fn create_topic(&self, name: &str, partitions: usize, configs: &[(&str, &str)]) {
        let admin: AdminClient<DefaultClientContext> = self.client().create().expect("an admin client");
        let mut topic = NewTopic::new(
            name,
            i32::try_from(partitions).expect("few"),
            TopicReplication::Fixed(self.replicas),
        );
        for (key, value) in configs {
            topic = topic.set(key, value);
        }
        let options = AdminOptions::new().operation_timeout(Some(REQUEST_TIMEOUT));
        for result in admin.create_topics([&topic], &options).await.expect("the broker answers") {
            result.unwrap_or_else(|(topic, code)| panic!("topic {topic} was not created: {code}"));
        }
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        let led = |metadata: &Metadata| {
            metadata.topics().iter().any(|topic| {
                topic.partitions().len() == partitions && topic.partitions().iter().all(|p| p.leader() >= 0)
            })
        };
        while !admin.inner().fetch_metadata(Some(name), REQUEST_TIMEOUT).is_ok_and(|metadata| led(&metadata))
        {
            assert!(Instant::now() < deadline, "topic {name} has no leaders after {REQUEST_TIMEOUT:?}");
        }
    }

    /// Sets one topic-level setting; the others go back to their defaults.
    pub async fn set_topic(&self, name: &str, (key, value): (&str, &str)) {
        let admin: AdminClient<DefaultClientContext> = self.client().create().expect("an admin client");
        let topic = AlterConfig::new(ResourceSpecifier::Topic(name)).set(key, value);
        let options = AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT));
        for result in admin.alter_configs([&topic], &options).await.expect("the broker answers") {
            result.unwrap_or_else(|(topic, code)| panic!("{topic:?} was not changed: {code}"));
        }
    }

    /// Stops the broker cleanly and starts it again on the same ports and data: an outage of some 3 seconds.
    pub fn restart(&mut self) {
        self.stop();
        self.start_again();
    }

    /// Stops the broker cleanly and keeps its data.
    pub fn stop(&mut self) {
        let mut stdin = self.process.stdin.take().expect("the pipe that keeps the broker alive");
        stdin.write_all(b"stop and keep the data\n").expect("the broker still runs");
        let status = self.process.wait().expect("the broker's process can be waited for");
        assert!(status.success(), "the broker stopped with {status}:\n{}", self.log());
    }

    /// Starts a stopped broker on the same ports and data.
    pub fn start_again(&mut self) {
        self.process = spawn(self.state.path(), self.port, self.controller_port, &self.more);
        self.await_ready();
    }

    /// Returns once the broker answers a metadata request with every node of its cluster in it.
    fn await_ready(&mut self) {
        let deadline = Instant::now() + READY_TIMEOUT;
        let client: BaseConsumer = self.client().create().expect("a client");
        while !client
            .fetch_metadata(None, Duration::from_secs(1))
            .is_ok_and(|found| found.brokers().len() >= self.replicas as usize)
        {
            let exited = self.process.try_wait().expect("the broker's process can be asked");
            if let Some(status) = exited {
                panic!("the Kafka broker of the tests did not start ({status}):\n{}", self.log());
            }
            assert!(
                Instant::now() < deadline,
                "the Kafka broker is not up after {READY_TIMEOUT:?}:\n{}",
                self.log()
            );
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(log_path(self.state.path())).unwrap_or_else(|error| format!("no log: {error}"))
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        // The end of its stdin tells `run` to kill the broker. Waiting means that its port and files are free after.
        drop(self.process.stdin.take());
        if let Err(error) = self.process.wait() {
            eprintln!("the Kafka broker of the tests could not be waited for: {error}");
        }
    }
}

fn log_path(state: &Path) -> PathBuf {
    state.join("broker.log")
}

fn spawn(state: &Path, port: u16, controller_port: u16, more: &[String]) -> Child {
    let run = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/kafka/run");
    let log = File::options().create(true).append(true).open(log_path(state)).expect("a log file");
    Command::new(run)
        .arg(state)
        .args([port.to_string(), controller_port.to_string()])
        .args(more)
        .stdin(Stdio::piped())
        .stdout(log.try_clone().expect("a second handle of the log"))
        .stderr(log)
        .spawn()
        .unwrap_or_else(|error| panic!("{run} cannot be run (it needs bash): {error}"))
}

/// Free loopback ports below the range from which the system picks ports of outgoing connections: else, while the
/// broker is down, another socket could take its port, or a client that retries could even connect to itself.
pub fn free_ports<const PORTS: usize>() -> [u16; PORTS] {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 12_000;
    let start = RandomState::new().hash_one("a random start, so that parallel test processes seldom meet");
    let offset = u16::try_from(start % u64::from(COUNT)).expect("below COUNT");
    let mut free = (0..COUNT)
        .map(|step| FIRST + (offset + step) % COUNT)
        .filter(|&port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok());
    [(); PORTS].map(|()| free.next().expect("a free port between 20000 and 32000"))
}
