//! What is sent, and what a hostile or broken server can do.

use std::io::{Read as _, Write as _};

use base64::Engine as _;

use super::super::testing::Reply;
use super::*;

#[test]
fn each_kind_sends_what_its_service_expects() {
    let server = HttpServer::start(Reply::json(200, r#"{"ok":true}"#));
    let text_of = |key: &str, n: usize| server.wait_for(n)[n - 1].json()[key].as_str().expect(key).to_owned();
    let t = task(RECORD);
    for kind in kinds(&server) {
        text_sink(kind).deliver(&t, in_time()).expect("delivered");
    }
    let all = server.wait_for(5);
    assert!(all.iter().all(|r| r.method == "POST"));
    for r in &all {
        assert_eq!(r.header("user-agent"), Some(concat!("vault-audit-filter/", env!("CARGO_PKG_VERSION"))));
        assert!(r.header("content-type").is_some_and(|c| c.starts_with("application/json")));
        assert_eq!(r.header("idempotency-key"), Some(&*t.id.to_string()));
    }
    let targets: Vec<&str> = all.iter().map(|r| r.target.as_str()).collect();
    assert_eq!(targets, ["/api/chat.postMessage", PATH, "/api/v4/posts", PATH, PATH]);
    assert_eq!(all[0].header("authorization"), Some(&*format!("Bearer {TOKEN}")));
    assert_eq!(all[2].header("authorization"), Some(&*format!("Bearer {TOKEN}")));
    assert!(all[1].header("authorization").is_none() && all[3].header("authorization").is_none());
    assert_eq!(all[0].json()["channel"], "C1");
    assert_eq!(all[2].json()["channel_id"], "c9");
    assert_eq!(all[2].json()["pending_post_id"], t.id.to_string());
    let lines = "who: `ldap-jane`, policies `admin, default`, from `10.0.0.7`\n\
        when: `2026-11-24T07:17:23.939774021Z`, `response`, mount `kv`, request id `587719dc-58df-0462-883e-f7c6cf0857b1`";
    let slack = format!("*critical*: `delete` `team-a/secret/data/app` allowed\n{lines}");
    assert_eq!(text_of("text", 1), slack);
    assert_eq!(text_of("text", 2), slack);
    let mattermost = format!("**critical**: `delete` `team-a/secret/data/app` allowed\n{lines}");
    assert_eq!(text_of("message", 3), mattermost);
    assert_eq!(text_of("text", 4), mattermost);
    let webhook = all[4].json();
    assert_eq!(webhook["text"].as_str().expect("text"), slack.replace(['`', '*'], ""));
    assert_eq!(webhook["type"], "audit.record");
    assert_eq!(webhook["id"], t.id.to_string());
    assert_eq!(webhook["group"], "critical");
    assert_eq!(webhook["listener"], "http");
    assert_eq!(webhook["timestamp"], "2027-01-15T08:00:00Z");
    assert!(all[4].text().ends_with(&format!(",\"data\":{RECORD}}}")));
}

#[test]
fn urls_are_taken_with_and_without_the_method() {
    let server = HttpServer::start(Reply::json(200, r#"{"ok":true}"#));
    let slack = |url| MessagingKind::Slack { url, token: Secret::new("t"), channel: "C".into() };
    let mattermost = |url| MessagingKind::Mattermost { url, token: Secret::new("t"), channel: "C".into() };
    for (kind, target) in [
        (slack(server.url("/api/")), "/api/chat.postMessage"),
        (slack(server.url("/api")), "/api/chat.postMessage"),
        (slack(server.url("/api/chat.postMessage")), "/api/chat.postMessage"),
        (slack(server.url("/api/chat.postMessage/")), "/api/chat.postMessage"),
        (mattermost(server.url("")), "/api/v4/posts"),
        (mattermost(server.url("/mm/")), "/mm/api/v4/posts"),
        (mattermost(server.url("/api/v4")), "/api/v4/posts"),
        (mattermost(server.url("/api/v4/posts")), "/api/v4/posts"),
    ] {
        text_sink(kind).deliver(&task(RECORD), in_time()).expect("delivered");
        assert_eq!(server.received().last().expect("a request").target, target);
    }
}

#[test]
fn webhooks_are_signed_as_the_standard_says() {
    let server = HttpServer::start(Reply::status(204));
    let key = b"0123456789abcdef0123456789abcdef";
    let encoded = base64::engine::general_purpose::STANDARD.encode(key);
    for (token, key) in [(format!("whsec_{encoded}"), &key[..]), ("plain secret".into(), b"plain secret")] {
        let kind =
            MessagingKind::Webhook { webhook_url: Secret::new(server.url("/h")), token: Secret::new(token) };
        let t = task(RECORD);
        text_sink(kind).deliver(&t, in_time()).expect("delivered");
        let r = server.received().pop().expect("a request");
        let id = r.header("webhook-id").expect("an id");
        assert_eq!(id, t.id.to_string());
        assert_eq!(r.header("idempotency-key"), Some(id));
        assert_eq!(r.header("x-delivery-attempt"), Some("1"));
        let timestamp = r.header("webhook-timestamp").expect("a time");
        assert!(timestamp.parse::<u64>().expect("seconds") > 1_700_000_000);
        let signed = [format!("{id}.{timestamp}.").as_bytes(), &r.body].concat();
        let mac = r.header("webhook-signature").and_then(|s| s.strip_prefix("v1,")).expect("a signature");
        let mac = base64::engine::general_purpose::STANDARD.decode(mac).expect("base64");
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key);
        ring::hmac::verify(&key, &signed, &mac).expect("the right signature");
    }
    let unsigned =
        MessagingKind::Webhook { webhook_url: Secret::new(server.url("/h")), token: Secret::default() };
    text_sink(unsigned).deliver(&task(RECORD), in_time()).expect("delivered");
    assert_eq!(server.received().pop().expect("a request").header("webhook-signature"), None);
}

/// The example of the standard's reference libraries.
#[test]
fn the_signature_of_the_reference() {
    let secret =
        base64::engine::general_purpose::STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("base64");
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &secret);
    let signature = super::super::webhook::sign(
        &key,
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "1614265330",
        br#"{"test": 2432232314}"#,
    );
    assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
}

#[test]
fn raw_is_the_record_as_it_came() {
    let server = HttpServer::start(Reply::json(200, r#"{"ok":true}"#));
    for kind in kinds(&server) {
        sink(kind, MessageFormat::Raw, "").deliver(&task(RECORD), in_time()).expect("delivered");
    }
    let all = server.wait_for(5);
    for (i, key) in ["text", "text", "message", "text"].into_iter().enumerate() {
        assert_eq!(all[i].json()[key], RECORD);
    }
    assert_eq!(all[4].text(), RECORD);
}

#[test]
fn what_is_no_json_goes_as_text() {
    let server = HttpServer::start(Reply::status(200));
    let torn = &RECORD[..100];
    text_sink(kinds(&server)[4].clone()).deliver(&task(torn), in_time()).expect("delivered");
    let body = server.wait_for(1)[0].json();
    assert_eq!(body["data"], torn);
    assert_eq!(body["text"], "critical: a record of 100 bytes that cannot be read");
}

#[test]
fn texts_of_the_program_itself_are_delivered_too() {
    let server = HttpServer::start(Reply::json(200, r#"{"ok":true}"#));
    let id = TaskId::from_bits(7);
    for kind in kinds(&server) {
        text_sink(kind).deliver_text(id, "412 more <records> of @all", in_time()).expect("delivered");
    }
    let all = server.wait_for(5);
    assert_eq!(all[0].json()["text"], "412 more &lt;records&gt; of @all");
    assert_eq!(all[2].json()["message"], "412 more <\u{200b}records> of @\u{200b}all");
    assert_eq!(all[4].json()["text"], "412 more <records> of @all");
    assert_eq!(all[4].json()["type"], "audit.digest");
    assert_eq!(all[4].header("webhook-id"), Some("00000000000000000000000000000007"));
}

#[test]
fn redirects_are_not_followed() {
    let other = HttpServer::start(Reply::status(200));
    let server = HttpServer::start(Reply::status(200));
    for kind in kinds(&server) {
        for status in [301, 302, 303, 307, 308] {
            server.then(Reply::Full(status, vec![("Location", other.url("/S3CR3T"))], String::new()));
            let error = text_sink(kind.clone()).deliver(&task(RECORD), in_time()).expect_err("no success");
            assert_eq!(error.class, Class::Permanent, "{error}");
            assert_harmless(&error);
        }
    }
    assert!(other.received().is_empty());
}

#[test]
fn nothing_outlasts_its_deadline() {
    let server = HttpServer::start(Reply::Hang);
    for kind in kinds(&server) {
        for reply in [Reply::Hang, Reply::Drip] {
            server.then(reply.clone());
            let started = clock::now();
            let deadline = started + Duration::from_millis(150);
            let result = text_sink(kind.clone()).deliver(&task(RECORD), deadline);
            let took = clock::now() - started;
            assert!(took < PATIENCE / 2, "{kind:?} {reply:?} took {took:?}");
            // A status of 200 has come where the body drips: only Slack's API says more in its body.
            let answered = matches!(reply, Reply::Drip) && !matches!(kind, MessagingKind::Slack { .. });
            match result {
                Ok(()) => assert!(answered, "{kind:?} {reply:?}"),
                Err(error) => {
                    assert!(!answered, "{kind:?} {reply:?} {error}");
                    assert_eq!(error.class, Class::Transient, "{error}");
                    assert_harmless(&error);
                }
            }
        }
    }
    let late =
        text_sink(kinds(&server)[1].clone()).deliver(&task(RECORD), clock::now()).expect_err("no time");
    assert_eq!(late.class, Class::Transient);
}

#[test]
fn answers_that_are_not_http_are_transient() {
    let server = HttpServer::start(Reply::Close);
    let sink = text_sink(kinds(&server)[4].clone());
    for reply in [
        Reply::Close,
        Reply::Bytes(b"SSH-2.0-OpenSSH_9.7\r\n\r\n".to_vec()),
        Reply::Bytes(b"HTTP/1.1 200 OK\r\nContent-".to_vec()),
        Reply::Bytes([b"HTTP/1.1 200 OK\r\nX: ".to_vec(), vec![b'x'; 200_000]].concat()),
        Reply::Bytes(vec![0; 4096]),
    ] {
        server.then(reply.clone());
        let error = sink.deliver(&task(RECORD), in_time()).expect_err("no success");
        assert_eq!(error.class, Class::Transient, "{reply:?} {error}");
        assert_harmless(&error);
    }
}

#[test]
fn a_refused_connection_and_a_wrong_protocol_are_transient() {
    // Bound and not listening: nobody else gets the port meanwhile.
    let bound = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    bound.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
    let closed = bound.local_addr().expect("bound").as_socket().expect("an address");
    let server = HttpServer::start(Reply::Close);
    for url in [format!("http://{closed}/S3CR3T"), format!("https://{}/S3CR3T", server.address)] {
        let kind = MessagingKind::SlackWebhook { webhook_url: Secret::new(url) };
        let error = text_sink(kind)
            .deliver(&task(RECORD), clock::now() + Duration::from_secs(2))
            .expect_err("no success");
        assert_eq!(error.class, Class::Transient, "{error}");
        assert_harmless(&error);
    }
}

/// Serves one request over TLS with that certificate of the test data.
fn tls_server(name: &str) -> (std::net::SocketAddr, std::thread::JoinHandle<()>) {
    let data = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tls");
    let read = |name: &str| std::fs::read(data.join(name)).expect(name);
    let certificate = rustls::pki_types::CertificateDer::from(read(&format!("{name}.crt.der")));
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(read(&format!("{name}.key.der")));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key.into())
        .expect("a certificate");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let thread = crate::threads::spawn("test-tls", move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut session = rustls::ServerConnection::new(Arc::new(config)).expect("a session");
        let mut tls = rustls::Stream::new(&mut session, &mut stream);
        let mut request = [0; 4096];
        if tls.read(&mut request).is_ok() {
            let answered =
                tls.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
            answered.expect("the answer is sent");
        }
    })
    .expect("a thread");
    (address, thread)
}

#[test]
fn a_certificate_that_nobody_vouches_for_blocks() {
    let (address, thread) = tls_server("self_signed");
    let url = format!("https://localhost:{}/S3CR3T", address.port());
    let kind = MessagingKind::SlackWebhook { webhook_url: Secret::new(url) };
    let error = text_sink(kind).deliver(&task(RECORD), in_time()).expect_err("no success");
    assert_eq!(error.class, Class::Blocked, "{error}");
    assert!(error.message().contains("certificate"), "{error}");
    assert_harmless(&error);
    let _ = thread.join();
}

#[test]
fn a_certificate_that_a_trusted_authority_vouches_for_is_taken_and_by_others_not() {
    let bundle = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tls/authority.pem");
    let environment = crate::config::Environment::from_iter([(crate::trust::BUNDLE_VARIABLE, bundle)]);
    let authorities = crate::trust::system(&environment).expect("a bundle");
    for (client, trusts) in [(HttpClient::trusting(authorities.as_deref()), true), (HttpClient::new(), false)]
    {
        let (address, thread) = tls_server("vouched_for");
        let url = format!("https://localhost:{}/S3CR3T", address.port());
        let kind = MessagingKind::SlackWebhook { webhook_url: Secret::new(url) };
        let specs = build(&[group(kind, MessageFormat::Text, "")], &client).expect("a sink");
        let delivered = specs[0].sink.deliver(&task(RECORD), in_time());
        assert_eq!(delivered.is_ok(), trusts, "{delivered:?}");
        let _ = thread.join();
    }
}

#[test]
fn names_are_looked_up_and_unknown_ones_are_transient() {
    let server = HttpServer::start(Reply::text(200, "ok"));
    let hook = |url: String| text_sink(MessagingKind::SlackWebhook { webhook_url: Secret::new(url) });
    let known = hook(format!("http://localhost:{}{PATH}", server.address.port()));
    (0..2).for_each(|_| known.deliver(&task(RECORD), in_time()).expect("delivered"));
    for scheme in ["http", "https"] {
        let error = hook(format!("{scheme}://no-such-host.invalid{PATH}"))
            .deliver(&task(RECORD), in_time())
            .expect_err("no such host");
        assert_eq!(error.class, Class::Transient, "{error}");
        assert!(error.message().starts_with(&format!("{scheme}://no-such-host.invalid: ")), "{error}");
        assert_harmless(&error);
    }
}

#[test]
fn a_token_that_http_does_not_allow_blocks() {
    let server = HttpServer::start(Reply::status(200));
    let kind =
        MessagingKind::Slack { url: server.url("/"), token: Secret::new("a\nS3CR3T"), channel: "C".into() };
    let error = text_sink(kind).deliver(&task(RECORD), in_time()).expect_err("no success");
    assert_eq!(error.class, Class::Blocked, "{error}");
    assert_harmless(&error);
    assert!(server.received().is_empty());
}

#[test]
fn huge_bodies_are_read_in_part() {
    let server = HttpServer::start(Reply::status(200));
    let huge = format!("{{\"ok\":true,\"x\":\"{}\"}}", "x".repeat(1 << 20));
    server.then(Reply::json(200, &huge));
    let error = text_sink(kinds(&server)[0].clone()).deliver(&task(RECORD), in_time()).expect_err("cut off");
    assert!(error.message().contains("broke off"), "{error}");
    server.then(Reply::json(200, &huge));
    text_sink(kinds(&server)[4].clone()).deliver(&task(RECORD), in_time()).expect("the status says it");
}

#[test]
fn connections_are_kept_and_stale_ones_cost_no_failure() {
    let server = HttpServer::start(Reply::status(200));
    let sink = text_sink(kinds(&server)[4].clone());
    for _ in 0..10 {
        sink.deliver(&task(RECORD), in_time()).expect("delivered");
    }
    assert_eq!(server.connections(), 1);
    // The race that a check of the idle connection cannot win: the server closes right behind each answer.
    server.always(Reply::FullThenClose(200, String::new()));
    for _ in 0..200 {
        sink.deliver(&task(RECORD), in_time()).expect("delivered");
    }
}

#[test]
fn a_closed_connection_is_tried_once_more_with_the_same_id() {
    let server = HttpServer::start(Reply::Close);
    let sink = text_sink(kinds(&server)[4].clone());
    server.then(Reply::Close).then(Reply::status(200));
    let t = task(RECORD);
    sink.deliver(&t, in_time()).expect("the second try");
    let all = server.wait_for(2);
    assert_eq!(all[0].header("idempotency-key"), all[1].header("idempotency-key"));
    assert_ne!(all[0].connection, all[1].connection);
    sink.deliver(&t, in_time()).expect_err("closed again and again");
    assert_eq!(server.received().len(), 4);
}

#[test]
fn abort_ends_what_is_under_way() {
    let server = HttpServer::start(Reply::Hang);
    let sink = text_sink(kinds(&server)[4].clone());
    let (done, ended) = crossbeam_channel::bounded(1);
    let other = Arc::clone(&sink);
    let thread = crate::threads::spawn("test-deliver", move || {
        let _ = done.send(other.deliver(&task(RECORD), in_time()).map_err(|e| e.class));
    })
    .expect("a thread");
    server.wait_for(1);
    sink.abort();
    let result = ended.recv_timeout(PATIENCE / 2).expect("well before the deadline");
    assert_eq!(result, Err(Class::Transient));
    let _ = thread.join();
}
