use super::*;

pub(super) fn settings() -> KafkaSettings {
    KafkaSettings {
        brokers: "localhost:9092".into(),
        group_id: "memebg".into(),
        frames_topic: "incubator.frames.v1".into(),
        grades_topic: "embryo.grades.v1".into(),
        dead_letters_topic: "embryo.frames.dlq.v1".into(),
        delivery: Delivery::AtLeastOnce,
        start_from: StartFrom::Earliest,
        max_value_bytes: 1 << 20,
        max_send_bytes: 2 << 20,
        prefetch_bytes: 1 << 24,
        commit_interval_ms: 1_000,
        drain_timeout_ms: 10_000,
        delivery_timeout_ms: 30_000,
        properties: BTreeMap::new(),
        property_files: BTreeMap::new(),
        consumer_properties: BTreeMap::new(),
        producer_properties: BTreeMap::new(),
    }
}

#[test]
fn a_property_that_the_guarantee_rests_on_is_refused() {
    for property in ["enable.auto.commit", "acks", "enable_idempotence"] {
        let mut settings = settings();
        settings.producer_properties.insert(property.into(), "1".into());
        assert!(settings.validate().unwrap_err().to_string().contains(property));
    }
}

#[test]
fn a_property_that_librdkafka_refuses_is_named_without_its_value() {
    for (property, value) in [("sasl.pasword", "hunter"), ("compression.type", "hunter")] {
        let mut settings = settings();
        settings.properties.insert(property.into(), value.into());
        let error = sink::KafkaSink::new(&settings).err().unwrap();
        assert!(matches!(error, Error::Settings(_)));
        let text = format!("{:#}", anyhow::Error::new(error));
        assert!(text.contains(property) && !text.contains("hunter"), "{text}");
    }
}

#[test]
fn an_older_name_of_a_property_is_the_property() {
    let mut settings = settings();
    settings.producer_properties.insert("compression.codec".into(), "lz4".into());
    let client = settings.producer().unwrap();
    assert_eq!((client.get("compression.type"), client.get("compression.codec")), (Some("lz4"), None));
    settings.producer_properties.insert("request.required.acks".into(), "1".into());
    assert!(settings.validate().is_err());
}

#[test]
fn secrets_come_from_files_and_property_names_from_the_environment() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "not-a-real-password\n").unwrap();
    let mut settings = settings();
    settings.properties.insert("security_protocol".into(), "SASL_SSL".into());
    settings.property_files.insert("sasl.password".into(), file.path().into());
    let client = settings.consumer().unwrap();
    assert_eq!(client.get("security.protocol"), Some("SASL_SSL"));
    assert_eq!(client.get("sasl.password"), Some("not-a-real-password"));
    settings.property_files.insert("sasl.password".into(), "/nonexistent/secret".into());
    assert!(settings.consumer().is_err());
}
