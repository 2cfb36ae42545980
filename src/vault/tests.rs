//! The client against an API of the tests' own.

use std::time::Duration;

use super::fake::Api;
use super::*;

fn options(address: String) -> Options {
    Options { address, ca_cert: None, client_cert: None, timeout: Duration::from_secs(10) }
}

fn client(api: &Api) -> Client {
    let mut client = Client::new(&options(api.address() + "/"), "").expect("no certificates");
    client.set_token(Secret::new("t0ken"));
    client
}

#[test]
fn logins_send_what_each_method_wants() {
    let api = Api::start(|_| (200, r#"{"auth":{"client_token":"new"}}"#.into()));
    for (login, wanted) in [
        (
            Login::AppRole { role_id: "r".into(), secret_id: Secret::new("s") },
            json!({ "role_id": "r", "secret_id": "s" }),
        ),
        (Login::AppRole { role_id: "r".into(), secret_id: Secret::default() }, json!({ "role_id": "r" })),
        (Login::Jwt { role: "r".into(), jwt: Secret::new("j") }, json!({ "role": "r", "jwt": "j" })),
        (Login::Certificate { name: "c".into() }, json!({ "name": "c" })),
        (Login::Certificate { name: String::new() }, json!({})),
    ] {
        let mut client = Client::new(&options(api.address()), "ns").expect("no certificates");
        client.login("mount", &login).expect("accepted");
        let request = api.requests().pop().expect("a request");
        assert_eq!(request.line, "POST /v1/auth/mount/login HTTP/1.1");
        assert_eq!(serde_json::from_str::<Value>(&request.body).expect("JSON"), wanted);
        assert_eq!(request.header("x-vault-namespace"), Some("ns"));
        assert_eq!(request.header("x-vault-token"), None);
        client.revoke_self().expect("accepted");
        let request = api.requests().pop().expect("a request");
        assert_eq!(request.header("x-vault-token"), Some("new"));
        assert_eq!(
            (request.header("content-length"), request.header("transfer-encoding")),
            (Some("0"), None)
        );
        assert!(!format!("{client:?}").contains("new"));
    }
}

#[test]
fn devices_are_read_from_either_shape() {
    let there = r#""a/":{"type":"file","description":"d","options":{"file_path":"x","n":5}}"#;
    for body in [
        format!("{{\"data\":{{{there}}},{there}}}"),
        format!("{{{there},\"request_id\":\"r\",\"auth\":null}}"),
    ] {
        let api = Api::start(move |_| (200, body.clone()));
        let devices = client(&api).audit_devices().expect("a list");
        let device = &devices["a"];
        assert_eq!((devices.len(), device.kind.as_str(), device.description.as_str()), (1, "file", "d"));
        assert_eq!(device.options["file_path"], "x");
    }
}

#[test]
fn errors_are_the_servers_own_words_on_one_line() {
    for (status, body, wanted) in [
        (
            400,
            r#"{"errors":["1 error occurred:\n\t* bad\n\n","more"]}"#,
            "sys/audit: the server answered 400: 1 error occurred: * bad; more",
        ),
        (
            502,
            "<html>\u{1b}[31mBad gateway</html>",
            "sys/audit: the server answered 502: <html>\\u{1b}[31mBad gateway</html>",
        ),
        (500, "", "sys/audit: the server answered 500"),
        (403, r#"{"errors":[]}"#, "sys/audit: the server answered 403"),
        (
            200,
            "<html>",
            "sys/audit: the answer is not JSON (expected value at line 1 column 1); is this the API of Vault or OpenBao?",
        ),
        (307, "", "the server redirects to \"http://active.example:8200/\""),
    ] {
        let api = Api::start(move |_| (status, body.to_owned()));
        let error = client(&api).audit_devices().expect_err(body);
        assert_eq!(error.to_string(), wanted);
    }
    let long = "x".repeat(100_000);
    let api = Api::start(move |_| (500, long.clone()));
    let error = client(&api).audit_devices().expect_err("500").to_string();
    assert!(error.len() < 300, "{}", error.len());
    let api = Api::start(|_| (200, r#"{"auth":null}"#.into()));
    let error = client(&api).login("m", &Login::Certificate { name: String::new() }).expect_err("no token");
    assert_eq!(error.to_string(), "auth/m/login: no token in the answer");
}

#[test]
fn an_endless_answer_is_cut() {
    let api = Api::start(|_| (200, "[".repeat(BODY_BYTES_MAX as usize + 10)));
    let error = client(&api).audit_devices().expect_err("too long");
    assert!(matches!(error, VaultError::Transport { .. }), "{error}");
}

#[test]
fn nothing_listens_and_nothing_answers() {
    // Bound and not listening: nobody else gets the port meanwhile.
    let bound = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    bound.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
    let free = bound.local_addr().expect("bound").as_socket().expect("an address");
    let address = format!("http://user:SeCrEtVaLuE@{free}");
    let client = Client::new(&options(address), "").expect("no certificates");
    let error = client.audit_devices().expect_err("refused").to_string();
    assert!(error.starts_with(&format!("no answer from http://{free}: ")), "{error}");
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let mut options = options(format!("http://{}", silent.local_addr().expect("bound")));
    options.timeout = Duration::from_millis(100);
    let error = Client::new(&options, "").expect("no certificates").audit_devices().expect_err("silent");
    assert!(error.to_string().contains("timeout"), "{error}");
    let mut broken = Client::new(&options, "a\nb").expect("no certificates");
    broken.set_token(Secret::new("a\nb"));
    let error = broken.audit_devices().expect_err("no header value");
    assert!(error.to_string().starts_with("the request cannot be sent"), "{error}");
}
