use std::path::Path;

use super::*;

fn traits(name: &str, kind: Kind, address: &str) -> Traits {
    let address = match address.parse() {
        Ok(address) => Address::Net(address),
        Err(_) => Address::Path(address.into()),
    };
    Traits { fd: 3, name: name.to_owned(), kind, address }
}

fn config() -> Config {
    let mut config = Config::default();
    config.listen.unix_path = Some("/run/a.sock".into());
    config.control_socket = Some("/run/c.sock".into());
    config
}

#[test]
fn a_name_of_ours_decides_whatever_the_address() {
    let (config, mut tcp) = (config(), config());
    tcp.vault.audit_protocol = AuditProtocol::Tcp;
    for (name, role) in ROLES {
        let config = if role == Role::Tcp { &tcp } else { &config };
        let address = match role.kind() {
            Kind::Unix => "/run/c.sock",
            _ => "192.0.2.1:9",
        };
        assert_eq!(traits(name, role.kind(), address).role(config), Ok(role));
    }
}

#[test]
fn without_one_kind_and_address_do() {
    let config = config();
    for (kind, address, role) in [
        (Kind::Tcp, "127.0.0.1:1270", Role::Http),
        (Kind::Tcp, "127.0.0.1:1271", Role::Admin),
        (Kind::Udp, "127.0.0.1:1269", Role::Udp),
        (Kind::Unix, "/run/a.sock", Role::Unix),
        (Kind::Unix, "/run/c.sock", Role::Control),
    ] {
        assert_eq!(traits("x.socket", kind, address).role(&config), Ok(role), "{address}");
    }
    // The protocol that the configuration does not have, another port, another host.
    for (kind, address) in [
        (Kind::Tcp, "127.0.0.1:1269"),
        (Kind::Udp, "127.0.0.1:1270"),
        (Kind::Tcp, "127.0.0.2:1270"),
        (Kind::Tcp, "[::]:1270"),
        (Kind::Unix, "/run/b.sock"),
        (Kind::Connection, "127.0.0.1:1270"),
    ] {
        traits("", kind, address).role(&config).expect_err(address);
    }
}

#[test]
fn every_interface_is_every_interface_in_both_families() {
    let address = Address::Net("[::]:1270".parse().expect("an address"));
    assert!(address.is("0.0.0.0:1270") && address.is("[::]:1270"));
    assert!(!address.is("127.0.0.1:1270") && !address.is("0.0.0.0:1271") && !address.is("no address"));
    assert!(Address::Path(Path::new("/a").into()).is("/a"));
    assert!(!Address::Unnamed.is(""));
}

#[test]
fn names_are_as_many_as_sockets_or_none() {
    assert_eq!(names(None, 2).expect("none"), ["", ""]);
    assert_eq!(names(Some("http:tcp"), 2).expect("two"), ["http", "tcp"]);
    assert_eq!(names(Some(""), 0).expect("systemd sets it all the same"), Vec::<String>::new());
    let error = names(Some("http"), 2).expect_err("one for two");
    assert!(error.contains("1 names for the 2 sockets"), "{error}");
}

#[test]
fn the_name_of_a_connection_is_that_of_its_listener() {
    for source in [Source::Http, Source::Tcp, Source::Unix] {
        let name = connection_name(source).expect("kept");
        assert_eq!(name, format!("{}-connection", source.label()));
    }
    assert_eq!((connection_name(Source::Admin), connection_name(Source::Udp)), (None, None));
}
