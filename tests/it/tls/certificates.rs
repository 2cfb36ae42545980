//! The pair of files: what is wrong with it, and another one while connections are open.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use nix::sys::signal::Signal;

use super::{
    EVERYTHING, HTTPS, StopAtEnd, certificate, client_settings, connect, handshake, install, plan, post,
    presented, raw, start,
};
use crate::harness::{Daemon, HTTP_ONLY, Plan, entry};
use crate::support::wait_until;

/// `reload` of the configuration in place: exit code, and what it said on both streams.
fn reload(daemon: &Daemon) -> (Option<i32>, String) {
    let ended = daemon.run_as_is(&["reload"]);
    (ended.status.code(), ended.stdout + &ended.stderr)
}

/// Writes the configuration that the next reload reads.
fn write(daemon: &Daemon, yaml: &str) {
    std::fs::write(daemon.path("config.yaml"), daemon.fill(yaml)).expect("written");
}

#[test]
fn another_certificate_is_used_for_new_handshakes_and_nobody_is_disturbed() {
    const PAIRS: [[&str; 2]; 2] = [["first.pem", "first.key"], ["second.pem", "second.key"]];
    let mut daemon = start("");
    let directory = daemon.path("");
    let (port, stop, acked) = (daemon.http(), AtomicBool::new(false), AtomicUsize::new(0));
    let mut old = connect(port);
    std::thread::scope(|scope| {
        let (stop, acked) = (&stop, &acked);
        scope.spawn(move || {
            let mut kept = connect(port);
            while !stop.load(Ordering::Relaxed) {
                post(
                    &mut kept,
                    &entry(&format!("kept-{}", acked.fetch_add(1, Ordering::Relaxed)), "read", "a"),
                );
            }
        });
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                post(
                    &mut connect(port),
                    &entry(&format!("new-{}", acked.fetch_add(1, Ordering::Relaxed)), "read", "a"),
                );
            }
        });
        let _stop = StopAtEnd(stop);
        for round in 0..10 {
            let pair = PAIRS[(round + 1) % 2];
            install(&directory, pair[0], pair[1]);
            if round % 3 == 0 {
                daemon.signal(Signal::SIGHUP);
                wait_until("the other one is presented", || {
                    presented(&connect(port)) == certificate(pair[0])
                });
            } else {
                let (code, said) = reload(&daemon);
                assert_eq!(code, Some(0), "{said}");
                assert!(said.contains("listen.http.tls is changed"), "{said}");
                assert_eq!(presented(&connect(port)), certificate(pair[0]), "round {round}");
            }
            post(&mut old, &entry(&format!("old-{}", acked.fetch_add(1, Ordering::Relaxed)), "read", "a"));
            assert_eq!(presented(&old), certificate("first.pem"));
        }
    });
    assert_eq!(daemon.lines("everything.log").len(), acked.into_inner());
    assert!(
        daemon
            .stderr()
            .contains("listen.http.tls: another certificate is in use, until 2126-01-01T00:00:00Z")
    );
    // The same files read again are no change.
    let (code, said) = reload(&daemon);
    assert!(code == Some(0) && !said.contains("listen.http.tls"), "{said}");
    assert!(daemon.is_alive());
}

/// Tickets are resumed, but not across a change of the certificate: a client would go on with the one that it has seen.
#[test]
fn sessions_are_resumed_until_the_certificate_changes() {
    let daemon = start("");
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        install(&daemon.path(""), "first.pem", "first.key");
        assert_eq!(reload(&daemon).0, Some(0));
        let settings = client_settings(version, &["http/1.1"]);
        let kind = || {
            let mut client = handshake(&settings, raw(daemon.http())).expect("a handshake");
            // The tickets come with the answer at the latest.
            post(&mut client, &entry("a", "read", "a"));
            (client.stream().conn.handshake_kind(), presented(&client))
        };
        assert_eq!(kind(), (Some(rustls::HandshakeKind::Full), certificate("first.pem")));
        assert_eq!(kind(), (Some(rustls::HandshakeKind::Resumed), certificate("first.pem")));
        assert_eq!(reload(&daemon).0, Some(0));
        assert_eq!(kind().0, Some(rustls::HandshakeKind::Resumed), "after a reload of the same");
        install(&daemon.path(""), "second.pem", "second.key");
        assert_eq!(reload(&daemon).0, Some(0));
        assert_eq!(kind(), (Some(rustls::HandshakeKind::Full), certificate("second.pem")));
    }
}

#[test]
fn a_wrong_pair_leaves_the_old_one_in_use() {
    let mut daemon = start("");
    let directory = daemon.path("");
    for (certificate_name, key, why) in [
        ("second.pem", "first.key", "listen.http.tls.key"),
        ("expired.pem", "first.key", "ended at 2021-01-01T00:00:00Z"),
        ("first.key", "first.key", "holds no certificate"),
    ] {
        install(&directory, certificate_name, key);
        let (code, said) = reload(&daemon);
        assert_ne!(code, Some(0), "{said}");
        assert!(said.contains(why), "{said}");
        assert_eq!(daemon.metric("config_last_reload_success"), 0.0);
        let mut client = connect(daemon.http());
        assert_eq!(presented(&client), certificate("first.pem"));
        post(&mut client, &entry("a", "read", "a"));
    }
    std::fs::remove_file(directory.join("tls.pem")).expect("removed");
    let (code, said) = reload(&daemon);
    assert!(code != Some(0) && said.contains("listen.http.tls.certificate: cannot read"), "{said}");
    // TLS is not switched off by a reload, but named.
    let plain = HTTPS.lines().filter(|line| !line.contains("tls:")).collect::<Vec<_>>().join("\n");
    write(&daemon, &format!("{plain}\n{EVERYTHING}"));
    let (code, said) = reload(&daemon);
    assert!(code == Some(0) && said.contains("listen.http.tls"), "{said}");
    assert!(daemon.stderr().contains("listen.http.tls: the running value stays until a restart"));
    assert_eq!(presented(&connect(daemon.http())), certificate("first.pem"));
    assert!(daemon.is_alive());
}

#[test]
fn tls_is_not_switched_on_by_a_reload() {
    let daemon =
        Daemon::start(&format!("{HTTP_ONLY}control: {{ socket: \"{{dir}}/c.sock\" }}\n{EVERYTHING}"));
    install(&daemon.path(""), "first.pem", "first.key");
    write(&daemon, &format!("{HTTPS}{EVERYTHING}"));
    let (code, said) = reload(&daemon);
    assert!(code == Some(0) && said.contains("listen.http.tls"), "{said}");
    assert_eq!(daemon.post(&entry("plain", "read", "a")), 204);
    assert!(!daemon.admin("/metrics").text().contains("tls_certificate_expiry"), "there is none");
}

/// What `check` says with these files in place, and its exit code. `serve` must say the same and bind nothing.
#[track_caller]
fn check(plan: &Plan) -> (Option<i32>, String) {
    let ended = plan.run(&["check"]);
    let served = (ended.status.code() != Some(0)).then(|| plan.run(&["serve"]));
    if let Some(served) = served {
        assert_eq!(served.status.code(), Some(2), "{}", served.stderr);
        for line in ended.stderr.lines().filter(|line| line.contains("listen.http.tls")) {
            assert!(served.stderr.contains(line), "serve says {line} too: {}", served.stderr);
        }
    }
    (ended.status.code(), ended.stderr)
}

#[test]
fn check_tells_what_is_wrong_with_the_pair() {
    let plan = plan(&format!("{HTTPS}{EVERYTHING}"));
    let directory = plan.path("");
    assert_eq!(check(&plan).0, Some(0));
    for (pair, wanted) in [
        (
            ["first.pem", "second.key"],
            &["listen.http.tls.key: ", "is not the key of the certificate; name"][..],
        ),
        (["first.pem", "first.encrypted.key"], &["listen.http.tls.key: ", "encrypted", "openssl pkey"]),
        (
            ["expired.pem", "first.key"],
            &["listen.http.tls.certificate: ", "ended at 2021-01-01T00:00:00Z; renew"],
        ),
        (["authority.pem", "README.md"], &["listen.http.tls.key: ", "holds no private key in PEM form"]),
        (
            ["first.key", "first.pem"],
            &["listen.http.tls.certificate: ", "listen.http.tls.key: ", "holds no cert"],
        ),
    ] {
        let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
        let key = if pair[1] == "README.md" { readme.display().to_string() } else { pair[1].to_owned() };
        install(&directory, pair[0], &key);
        let (code, said) = check(&plan);
        assert_eq!(code, Some(1), "{pair:?}: {said}");
        for word in wanted {
            assert!(said.contains(word), "{pair:?}: {word}: {said}");
        }
        assert!(said.contains("config.yaml:6: "), "{pair:?}: {said}");
        assert!(!said.contains("PRIVATE"), "{said}");
    }
    install(&directory, "first.pem", "first.key");
    std::fs::write(directory.join("tls.pem"), [0x30, 0x82, 0xff, 0x80]).expect("written");
    let (code, said) = check(&plan);
    assert!(code == Some(1) && said.contains("listen.http.tls.certificate: "), "{said}");
    std::fs::remove_file(directory.join("tls.key")).expect("removed");
    let (code, said) = check(&plan);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("listen.http.tls.key: cannot read") && said.contains("PEM file"), "{said}");
}

#[test]
fn what_is_odd_about_the_pair_is_a_warning() {
    use std::os::unix::fs::PermissionsExt;
    let plan = plan(&format!("{HTTPS}{EVERYTHING}"));
    let directory = plan.path("");
    let readable = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(directory.join("tls.key"), readable).expect("its mode");
    let (code, said) = check(&plan);
    assert!(
        code == Some(0) && said.contains("listen.http.tls.key: everybody on this machine may read"),
        "{said}"
    );
    install(&directory, "future.pem", "first.key");
    let (code, said) = check(&plan);
    assert!(code == Some(0) && said.contains("not valid before 2100-01-01T00:00:00Z"), "{said}");
    install(&directory, "first.pem", "first.key");
    let (code, said) = check(&plan);
    assert!(code == Some(0) && !said.contains("listen.http.tls"), "{said}");
}

#[test]
fn the_pair_may_lie_among_the_credentials_of_the_service() {
    let yaml = HTTPS.replace("{dir}/tls.", "${CREDENTIALS_DIRECTORY}/tls.");
    let without = plan(&format!("{yaml}{EVERYTHING}"));
    let (code, said) = check(&without);
    assert!(code == Some(1) && said.contains("CREDENTIALS_DIRECTORY is not set"), "{said}");
    let with = plan(&format!("{yaml}{EVERYTHING}"));
    let directory = with.path("").display().to_string();
    let daemon = with.env("CREDENTIALS_DIRECTORY", directory).start();
    post(&mut connect(daemon.http()), &entry("a", "read", "a"));
}

#[test]
fn tls_does_not_stand_for_tokens() {
    let yaml = HTTPS.replace("127.0.0.1:{http}", "0.0.0.0:{http}");
    let plan = plan(&format!("{yaml}{EVERYTHING}"));
    let (code, said) = check(&plan);
    assert!(code == Some(1) && said.contains("listen.http.tokens_file"), "{said}");
}

#[test]
fn setup_prints_an_address_with_tls() {
    let plan = plan(&format!("{HTTPS}{EVERYTHING}"));
    let ended = plan.run(&["setup", "--print", "hcl"]);
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    let address = format!("https://127.0.0.1:{}/v1/audit", plan.ports()[0]);
    assert!(ended.stdout.contains(&address), "{}", ended.stdout);
}
