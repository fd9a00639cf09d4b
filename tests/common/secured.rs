//! A broker as a hospital runs one: TLS, SCRAM-SHA-512, and nobody may do what no ACL allows.
//!
//! The tests themselves use a second listener, without either, whose user is a super user.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::common::kafka::{Kafka, free_ports};

/// The one user there is.
pub const USER: &str = "grader";
pub const PASSWORD: &str = "Correct-Horse_7";
const STORE_PASSWORD: &str = "store-of-the-tests";

/// What an ACL is about, with Kafka's number of it.
#[derive(Clone, Copy)]
pub enum Resource {
    Topic = 2,
    Group = 3,
    TransactionalId = 5,
}

/// What an ACL allows, with Kafka's number of it.
#[derive(Clone, Copy)]
pub enum Operation {
    Read = 3,
    Write = 4,
    Describe = 8,
}

/// The broker, and the files that clients need.
pub struct Secured {
    pub kafka: Kafka,
    port: u16,
    files: TempDir,
}

impl Secured {
    /// The one that all tests of a binary share: each names its own topics and groups, and grants access to them.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Secured> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    fn start() -> Self {
        let files = tempfile::Builder::new().prefix("memebg-tls-").tempdir().expect("a temporary folder");
        certificate(files.path(), "broker");
        certificate(files.path(), "stranger");
        let [port] = free_ports();
        let properties = files.path().join("secured.properties");
        std::fs::write(&properties, secured_properties(files.path(), port)).expect("written");
        let user = format!("SCRAM-SHA-512=[name={USER},password={PASSWORD}]");
        let more = [path(&properties), "--add-scram".to_owned(), user];
        Self { kafka: Kafka::start_with(&more), port, files }
    }

    /// `host:port` of the listener with TLS and SCRAM.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The certificate that signed the broker's: itself.
    pub fn authority(&self) -> String {
        path(&self.files.path().join("broker.pem"))
    }

    /// A certificate that has nothing to do with this broker.
    pub fn foreign_authority(&self) -> String {
        path(&self.files.path().join("stranger.pem"))
    }

    /// A file that holds `secret`, with the newline that editors leave at its end.
    pub fn secret(&self, secret: &str) -> String {
        let mut file = tempfile::NamedTempFile::new_in(self.files.path()).expect("a file");
        writeln!(file, "{secret}").expect("written");
        path(&file.into_temp_path().keep().expect("kept until the folder goes"))
    }

    /// What [`USER`] has to set to be let in.
    pub fn options(&self) -> Vec<(&'static str, String)> {
        vec![
            ("kafka.brokers", self.bootstrap()),
            ("kafka.properties.security_protocol", "SASL_SSL".to_owned()),
            ("kafka.properties.sasl_mechanism", "SCRAM-SHA-512".to_owned()),
            ("kafka.properties.sasl_username", USER.to_owned()),
            ("kafka.property_files.sasl_password", self.secret(PASSWORD)),
            ("kafka.properties.ssl_ca_location", self.authority()),
        ]
    }

    /// Lets [`USER`] do this. A name that ends with `*` is a prefix.
    pub fn allow(&self, resource: Resource, name: &str, operations: &[Operation]) {
        let (name, pattern) = name.strip_suffix('*').map_or((name, 3_u8), |prefix| (prefix, 4));
        // CreateAcls, version 1, of client "".
        let mut request = vec![0, 30, 0, 1, 0, 0, 0, 7, 0, 0];
        request.extend(u32::try_from(operations.len()).expect("few").to_be_bytes());
        for operation in operations {
            request.push(resource as u8);
            request.extend(text(name));
            request.push(pattern);
            request.extend(text(&format!("User:{USER}")));
            request.extend(text("*"));
            // The last byte says ALLOW.
            request.extend([*operation as u8, 3]);
        }
        let mut broker = TcpStream::connect(self.kafka.bootstrap()).expect("the broker listens");
        let length = u32::try_from(request.len()).expect("short").to_be_bytes();
        broker.write_all(&[&length[..], &request].concat()).expect("written");
        let mut length = [0; 4];
        broker.read_exact(&mut length).expect("an answer");
        let mut answer = vec![0; u32::from_be_bytes(length) as usize];
        broker.read_exact(&mut answer).expect("a whole answer");
        // Correlation id, throttle time, number of results; then an error code and an empty text for each.
        assert_eq!(answer[12..], vec![0; 4 * operations.len()], "the broker does not take the ACL");
    }
}

/// A text as Kafka's protocol has it.
fn text(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).expect("short").to_be_bytes();
    [&length[..], text.as_bytes()].concat()
}

fn path(path: &Path) -> String {
    path.to_str().expect("a path in UTF-8").to_owned()
}

fn secured_properties(files: &Path, port: u16) -> String {
    let key_store = path(&files.join("broker.p12"));
    format!(
        "listeners=PLAINTEXT://127.0.0.1:@BROKER_PORT@,SASL_SSL://127.0.0.1:{port},CONTROLLER://127.0.0.1:@CONTROLLER_PORT@
advertised.listeners=PLAINTEXT://127.0.0.1:@BROKER_PORT@,SASL_SSL://127.0.0.1:{port}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL
sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
ssl.keystore.type=PKCS12
ssl.keystore.location={key_store}
ssl.keystore.password={STORE_PASSWORD}
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
allow.everyone.if.no.acl.found=false
"
    )
}

/// A key for loopback with a certificate that it has signed itself: `name.p12`, and `name.pem` for clients. Java brings
/// the tool.
fn certificate(folder: &Path, name: &str) {
    let store: PathBuf = folder.join(format!("{name}.p12"));
    let distinguished = format!("CN={name}");
    let keytool = |arguments: &[&str]| {
        let ran = Command::new("keytool")
            .args(arguments)
            .args(["-keystore", &path(&store), "-storepass", STORE_PASSWORD, "-alias", name])
            .output()
            .expect("keytool comes with Java");
        assert!(ran.status.success(), "keytool: {}", String::from_utf8_lossy(&ran.stdout));
        ran.stdout
    };
    let subject = ["-dname", &distinguished, "-ext", "san=ip:127.0.0.1", "-validity", "7"];
    keytool(&[&["-genkeypair", "-keyalg", "EC", "-storetype", "PKCS12"], &subject[..]].concat());
    let exported = keytool(&["-exportcert", "-rfc"]);
    std::fs::write(folder.join(format!("{name}.pem")), exported).expect("written");
}
