//! The session by itself, with a client of the same library on the other side.

use std::time::UNIX_EPOCH;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::*;
use crate::identity::Identity;

fn file(name: &str) -> Vec<u8> {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tls/listener");
    std::fs::read(directory.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn server() -> Session {
    let now = UNIX_EPOCH + std::time::Duration::from_secs(1_795_500_000);
    let identity = Identity::new(&file("first.pem"), &file("first.key"), now).expect("a pair");
    Session::new(Arc::new(TlsSettings::new(identity.settings())))
}

fn client(version: &'static rustls::SupportedProtocolVersion) -> ClientConnection {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&file("authority.pem")).expect("PEM")).expect("an authority");
    let settings = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[version])
        .expect("a version")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").expect("a name");
    ClientConnection::new(Arc::new(settings), name).expect("a client")
}

fn sent(client: &mut ClientConnection) -> Vec<u8> {
    let mut sealed = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut sealed).expect("written");
    }
    sealed
}

fn takes(client: &mut ClientConnection, mut sealed: &[u8]) {
    while !sealed.is_empty() {
        client.read_tls(&mut sealed).expect("read");
        client.process_new_packets().expect("right");
    }
}

/// Hands `sealed` over in pieces; what comes out.
fn unseal(session: &mut Session, sealed: &[u8], piece: usize) -> Result<Vec<u8>, Failure> {
    let (mut plain, mut all) = (vec![0; READ_BYTES], Vec::new());
    for piece in sealed.chunks(piece) {
        let n = session.unseal(piece, &mut plain)?;
        all.extend_from_slice(&plain[..n]);
        if session.is_ended() {
            session.end()?;
        }
    }
    Ok(all)
}

/// Brings the handshake to its end.
fn established(client: &mut ClientConnection, session: &mut Session, piece: usize) {
    while client.is_handshaking() || session.is_handshaking() {
        assert!(unseal(session, &sent(client), piece).expect("a handshake").is_empty());
        takes(client, &session.output());
    }
}

#[test]
fn bytes_come_out_as_they_went_in_however_they_are_cut() {
    let text: Vec<u8> = (0..100_000u32).map(|n| (n % 251) as u8).collect();
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        for piece in [1, 7, 4096, 5000, SEALED_BYTES] {
            let (mut client, mut session) = (client(version), server());
            assert!(session.is_handshaking() && !session.is_amid_handshake() && session.held_bytes() == 0);
            established(&mut client, &mut session, piece);
            assert_eq!((session.held_bytes(), session.is_ended()), (0, false));
            client.set_buffer_limit(None);
            client.writer().write_all(&text).expect("taken");
            let sealed = sent(&mut client);
            assert!(unseal(&mut session, &sealed, piece).expect("plain bytes") == text);
            assert_eq!(session.held_bytes(), 0);
            // And back.
            takes(&mut client, &session.seal(b"answer").expect("sealed"));
            let mut answer = [0; 10];
            assert_eq!(client.reader().read(&mut answer).expect("an answer"), 6);
            // The peer's end, and ours.
            client.send_close_notify();
            assert!(unseal(&mut session, &sent(&mut client), piece).expect("the end").is_empty());
            assert!(session.is_ended() && session.end().is_ok());
            assert!(session.seal(b"late").is_some(), "one side only");
            assert!(!session.farewell().is_empty());
            assert!(session.farewell().is_empty(), "it is said once");
        }
    }
}

#[test]
fn an_unfinished_record_is_held_and_counted() {
    let (mut client, mut session) = (client(&rustls::version::TLS13), server());
    established(&mut client, &mut session, 4096);
    client.writer().write_all(&[7; 10_000]).expect("taken");
    let sealed = sent(&mut client);
    for cut in [1, 4, 5, 6, 5000, sealed.len() - 1] {
        let mut record = Record::default();
        record.follow(&sealed[..cut]);
        assert_eq!(record.have, cut);
        record.follow(&sealed[cut..]);
        assert_eq!(record.have, 0, "{cut}");
    }
    let mut plain = vec![0; READ_BYTES];
    assert_eq!(session.unseal(&sealed[..6000], &mut plain).expect("a part"), 0);
    assert_eq!(session.held_bytes(), 6000);
    assert_eq!(session.unseal(&sealed[6000..], &mut plain).expect("the rest"), 10_000);
    assert_eq!(session.held_bytes(), 0);
}

#[test]
fn what_is_no_tls_is_told_by_its_first_byte() {
    for (text, plain_http) in
        [(&b"POST / HTTP/1.1\r\n"[..], true), (b"\0\0", false), (b"\x80\x2e\x01", false)]
    {
        let failure = unseal(&mut server(), text, 4096).expect_err("no TLS");
        assert_eq!(matches!(failure, Failure::PlainHttp), plain_http, "{failure}");
        assert!(plain_http || matches!(failure, Failure::NoTls), "{failure}");
    }
    let mut session = server();
    let failure = unseal(&mut session, b"\x16\x03\x01\x00\x05hello", 4096).expect_err("no hello");
    assert!(matches!(failure, Failure::Protocol(_)), "{failure}");
    assert!(session.seal(b"x").is_none() && session.farewell().is_empty());
}

#[test]
fn what_came_before_a_failure_is_handed_over_first() {
    let (mut client, mut session) = (client(&rustls::version::TLS13), server());
    established(&mut client, &mut session, 4096);
    client.writer().write_all(b"whole").expect("taken");
    let mut sealed = sent(&mut client);
    sealed.extend_from_slice(b"\x17\x03\x03\x00\x14twenty bytes of that");
    let mut plain = vec![0; READ_BYTES];
    assert_eq!(session.unseal(&sealed, &mut plain).expect("the first record"), 5);
    assert!(session.is_ended());
    assert!(matches!(session.end(), Err(Failure::Protocol(_))));
}

#[test]
fn much_with_nothing_in_it_is_given_up() {
    // A handshake message that is said to have 60,000 bytes.
    let mut endless = b"\x16\x03\x01\x40\x00\x01\x00\xea\x60".to_vec();
    endless.resize(5 + 16384, 0);
    endless.extend_from_slice(b"\x16\x03\x01\x40\x00");
    endless.resize(2 * (5 + 16384), 0);
    endless.extend_from_slice(b"\x16\x03\x01\x40\x00");
    endless.resize(3 * (5 + 16384), 0);
    let mut session = server();
    let failure = unseal(&mut session, &endless, 4096).expect_err("too much");
    assert!(matches!(failure, Failure::Fruitless), "{failure}");
    assert!(session.held_bytes() <= FRUITLESS_BYTES_MAX + 4096);
}
