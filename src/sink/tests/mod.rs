mod classes;
mod forward;
mod http;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::testing::{HttpServer, PATIENCE};
use super::*;
use crate::clock;
use crate::config::{LogFile, MessageFormat, Messaging, MessagingKind, RuleGroup, SyncPolicy};
use crate::secret::Secret;

pub(crate) const RECORD: &str = r#"{"time":"2026-11-24T07:17:23.939774021Z","type":"response","auth":{"client_token":"hmac-sha256:59fb2f9c689b4d48d93a65c31d2a897021865fbce3c42b3fad84309deaf5f2d9","display_name":"ldap-jane","policies":["admin","default"],"policy_results":{"allowed":true}},"request":{"id":"587719dc-58df-0462-883e-f7c6cf0857b1","operation":"delete","mount_type":"kv","namespace":{"id":"n1","path":"team-a/"},"path":"secret/data/app","remote_address":"10.0.0.7"}}"#;

/// Words that must never be seen outside of a request.
pub(crate) const TOKEN: &str = "xoxb-s3cr3t-t0ken";
pub(crate) const PATH: &str = "/services/T0S3CR3T/B0S3CR3T";

pub(crate) fn task(record: &str) -> Task {
    Task::new(
        "critical".into(),
        record.as_bytes().into(),
        "http",
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000),
    )
}

pub(crate) fn in_time() -> Instant {
    clock::now() + PATIENCE
}

pub(crate) fn group(kind: MessagingKind, format: MessageFormat, template: &str) -> RuleGroup {
    RuleGroup {
        name: "critical".into(),
        rules: Vec::new(),
        log_file: Some(LogFile {
            file_path: "/var/log/critical.log".into(),
            max_size: 100,
            max_backups: 0,
            max_age: 0,
            compress: false,
            sync: SyncPolicy::Never,
        }),
        forwarding: None,
        messaging: Some(Messaging {
            kind,
            template: template.into(),
            template_line: 7,
            format,
            rate_per_s: 1.0,
            digest_window: Duration::from_secs(60),
        }),
    }
}

pub(crate) fn kinds(server: &HttpServer) -> Vec<MessagingKind> {
    let token = || Secret::new(TOKEN);
    let webhook_url = || Secret::new(server.url(PATH));
    vec![
        MessagingKind::Slack { url: server.url("/api/"), token: token(), channel: "C1".into() },
        MessagingKind::SlackWebhook { webhook_url: webhook_url() },
        MessagingKind::Mattermost { url: server.url(""), token: token(), channel: "c9".into() },
        MessagingKind::MattermostWebhook { webhook_url: webhook_url() },
        MessagingKind::Webhook { webhook_url: webhook_url(), token: token() },
    ]
}

pub(crate) fn sink(kind: MessagingKind, format: MessageFormat, template: &str) -> Arc<dyn Sink> {
    let specs = build(&[group(kind, format, template)], &HttpClient::new()).expect("a sink");
    Arc::clone(&specs[0].sink)
}

pub(crate) fn text_sink(kind: MessagingKind) -> Arc<dyn Sink> {
    sink(kind, MessageFormat::Text, "")
}

/// No secret and no byte of the record may be in an error.
pub(crate) fn assert_harmless(error: &DeliveryError) {
    let shown = format!("{error} {error:?}");
    for secret in [TOKEN, "S3CR3T", "s3cr3t", "ldap-jane", "secret/data/app"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    assert!(!shown.contains(char::is_control), "{shown}");
    assert!(error.message().chars().count() <= ERROR_CHARS_MAX);
}

#[test]
fn errors_are_printable_and_bounded() {
    let long = format!("a\nb\u{1b}[31m\u{202e}{}", "ä".repeat(1000));
    let error = DeliveryError::new(Class::Transient, long);
    assert!(error.message().starts_with("a\\u{a}b\\u{1b}[31m\\u{202e}ää"), "{error}");
    assert!(error.message().ends_with('…'));
    assert_harmless(&error);
}

#[test]
fn what_is_wrong_with_a_configuration_is_said_without_secrets() {
    let hook = |url: &str| MessagingKind::SlackWebhook { webhook_url: Secret::new(url) };
    let slack = |token: &str, channel: &str| MessagingKind::Slack {
        url: "https://slack.example/api/".into(),
        token: Secret::new(token),
        channel: channel.into(),
    };
    let mattermost = |token: &str, channel: &str| MessagingKind::Mattermost {
        url: "https://chat.example".into(),
        token: Secret::new(token),
        channel: channel.into(),
    };
    let sign = |token: &str| MessagingKind::Webhook {
        webhook_url: Secret::new("https://h.example"),
        token: Secret::new(token),
    };
    for (kind, expected) in [
        (hook(""), "the URL is empty"),
        (hook("hooks.example/S3CR3T"), "the URL must start with https:// or http://"),
        (hook("ftp://hooks.example/S3CR3T"), "the URL must start with https:// or http://"),
        (hook("https://hooks example/S3CR3T"), "not a URL; write https://HOST/PATH"),
        (slack("", "C"), "the token is empty"),
        (slack("S3CR3T", ""), "the channel is empty"),
        (mattermost("", "C"), "the token is empty"),
        (mattermost("S3CR3T", ""), "the channel is empty"),
        (sign("whsec_!S3CR3T"), "the token after whsec_ is not base64"),
    ] {
        let errors =
            build(&[group(kind, MessageFormat::Text, "")], &HttpClient::new()).err().expect(expected);
        assert_eq!(errors.len(), 1);
        assert_eq!(errors[0].to_string(), format!("group \"critical\": messaging: {expected}"));
    }
    let kind = hook("https://hooks.example/S3CR3T");
    let errors =
        build(&[group(kind, MessageFormat::Text, "a {{ b")], &HttpClient::new()).err().expect("unclosed");
    assert!(
        errors[0].to_string().starts_with("line 7: group \"critical\": messaging.template: at byte 2"),
        "{}",
        errors[0]
    );
}

#[test]
fn sinks_know_their_names_and_destinations() {
    let server = HttpServer::start(super::testing::Reply::status(200));
    let groups: Vec<RuleGroup> =
        kinds(&server).into_iter().map(|kind| group(kind, MessageFormat::Text, "")).collect();
    let specs = build(&groups, &HttpClient::new()).expect("all good");
    let names: Vec<&str> = specs.iter().map(|s| s.sink.name()).collect();
    assert_eq!(names, ["slack", "slack_webhook", "mattermost", "mattermost_webhook", "webhook"]);
    assert_eq!(specs[0].destination, format!("{} C1", server.url("/api/chat.postMessage")));
    assert_eq!(specs[2].destination, format!("{} c9", server.url("/api/v4/posts")));
    assert_eq!(specs[1].destination, server.url(PATH));
    assert_eq!(specs[1].destination, specs[3].destination);
    assert_eq!(specs[4].digest, Some((Duration::from_secs(60), Some("/var/log/critical.log".into()))));
}
