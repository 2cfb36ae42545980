//! Every kind of answer, from a real server.

use super::super::testing::Reply;
use super::*;

/// What a delivery is expected to come to.
type Verdict = Result<(), Class>;
const OK: Verdict = Ok(());
const TRANSIENT: Verdict = Err(Class::Transient);
const PERMANENT: Verdict = Err(Class::Permanent);
const BLOCKED: Verdict = Err(Class::Blocked);

fn check(kind: &MessagingKind, server: &HttpServer, rows: Vec<(Reply, Verdict)>) {
    let sink = text_sink(kind.clone());
    for (reply, expected) in rows {
        server.then(reply.clone());
        let result = sink.deliver(&task(RECORD), in_time());
        assert_eq!(
            result.as_ref().map(|_| ()).map_err(|e| e.class),
            expected,
            "{kind:?} {reply:?}: {result:?}"
        );
        if let Err(error) = result {
            assert_harmless(&error);
            if let Reply::Full(status, ..) = reply {
                assert_eq!(error.status, Some(status));
                assert!(error.message().contains(&status.to_string()), "{error}");
            }
            assert!(error.message().starts_with(&server.url("")), "{error}");
        }
    }
}

#[test]
fn slack_api() {
    let server = HttpServer::start(Reply::status(500));
    let said = |error: &str| Reply::json(200, &format!("{{\"ok\":false,\"error\":\"{error}\"}}"));
    let mut rows = vec![
        (Reply::json(200, r#"{"ok":true,"channel":"C1","ts":"1503435956.000247"}"#), OK),
        (Reply::json(200, r#"{"ok":false}"#), TRANSIENT),
        (said("something_new"), TRANSIENT),
        (said("xoxb-s3cr3t leaks: no code"), TRANSIENT),
        (Reply::json(200, "{}"), TRANSIENT),
        (Reply::json(200, "[]"), TRANSIENT),
        (Reply::text(200, "ok"), TRANSIENT),
        (Reply::text(200, "<html>log in</html>"), TRANSIENT),
        (Reply::json(401, r#"{"ok":true}"#), BLOCKED),
        (Reply::json(400, r#"{"ok":false,"error":"invalid_auth"}"#), BLOCKED),
        (Reply::json(429, r#"{"ok":false,"error":"invalid_auth"}"#), TRANSIENT),
        (Reply::json(503, r#"{"ok":false,"error":"no_text"}"#), TRANSIENT),
    ];
    for (verdict, errors) in [
        (
            TRANSIENT,
            "ratelimited rate_limited internal_error fatal_error service_unavailable request_timeout team_added_to_org org_login_required",
        ),
        (
            PERMANENT,
            "msg_too_long msg_blocks_too_long no_text invalid_blocks invalid_attachments too_many_attachments invalid_payload invalid_arguments invalid_json invalid_charset",
        ),
        (
            BLOCKED,
            "invalid_auth not_authed account_inactive token_revoked token_expired missing_scope no_permission not_allowed_token_type ekm_access_denied channel_not_found not_in_channel is_archived restricted_action restricted_action_read_only_channel no_service invalid_token",
        ),
    ] {
        rows.extend(errors.split(' ').map(|e| (said(e), verdict)));
    }
    check(&kinds(&server)[0], &server, rows);
}

#[test]
fn slack_webhook() {
    let server = HttpServer::start(Reply::status(500));
    let rows = vec![
        (Reply::text(200, "ok"), OK),
        (Reply::json(200, r#"{"success":true}"#), OK),
        (Reply::text(200, "no_text"), PERMANENT),
        (Reply::json(200, r#"{"ok":false,"error":"no_service"}"#), BLOCKED),
        (
            Reply::Full(200, vec![("Content-Type", "text/html; charset=utf-8".into())], "log in".into()),
            TRANSIENT,
        ),
        (Reply::text(400, "invalid_payload"), PERMANENT),
        (Reply::text(400, "no_text"), PERMANENT),
        (Reply::text(400, "too_many_attachments"), PERMANENT),
        (Reply::text(400, "whatever it is: S3CR3T"), PERMANENT),
        (Reply::text(413, ""), PERMANENT),
        (Reply::text(403, "action_prohibited"), BLOCKED),
        (Reply::text(403, "posting_to_general_channel_denied"), BLOCKED),
        (Reply::text(403, "invalid_token"), BLOCKED),
        (Reply::text(404, "channel_not_found"), BLOCKED),
        (Reply::text(404, "no_service"), BLOCKED),
        (Reply::text(404, "no_service_id"), BLOCKED),
        (Reply::text(404, "no_team"), BLOCKED),
        (Reply::text(404, "team_disabled"), BLOCKED),
        (Reply::text(404, "no_active_hooks"), BLOCKED),
        (Reply::text(410, "channel_is_archived"), BLOCKED),
        (Reply::text(401, ""), BLOCKED),
        (Reply::text(500, "rollup_error"), TRANSIENT),
        (Reply::text(500, "no_text"), TRANSIENT),
        (Reply::json(429, r#"{"retry_after":1,"ok":false,"error":"rate_limited"}"#), TRANSIENT),
    ];
    check(&kinds(&server)[1], &server, rows);
}

fn mattermost_error(status: u16, id: &str) -> Reply {
    let body = serde_json::json!({
        "id": id, "message": "S3CR3T", "detailed_error": "ldap-jane", "request_id": "r", "status_code": status
    });
    Reply::json(status, &body.to_string())
}

#[test]
fn mattermost() {
    let server = HttpServer::start(Reply::status(500));
    let rows = vec![
        (Reply::json(201, r#"{"id":"p1"}"#), OK),
        (Reply::Full(200, vec![("Content-Type", "text/html".into())], "log in".into()), TRANSIENT),
        (mattermost_error(400, "model.post.is_valid.message_length.app_error"), PERMANENT),
        (mattermost_error(401, "api.context.session_expired.app_error"), BLOCKED),
        (mattermost_error(403, "api.context.permissions.app_error"), BLOCKED),
        (mattermost_error(404, "app.channel.get.existing.app_error"), BLOCKED),
        (mattermost_error(413, "x"), PERMANENT),
        (mattermost_error(500, "api.post.deduplicate_create_post.pending"), TRANSIENT),
        (mattermost_error(500, "app.post.save.app_error"), TRANSIENT),
        (Reply::Full(429, vec![("X-RateLimit-Reset", "1".into())], "limit exceeded".into()), TRANSIENT),
        (Reply::text(502, "bad gateway"), TRANSIENT),
    ];
    check(&kinds(&server)[2], &server, rows);
}

#[test]
fn mattermost_webhook() {
    let server = HttpServer::start(Reply::status(500));
    let rows = vec![
        (Reply::text(200, "ok"), OK),
        (mattermost_error(400, "web.incoming_webhook.invalid.app_error"), BLOCKED),
        (mattermost_error(400, "web.incoming_webhook.text.app_error"), PERMANENT),
        (mattermost_error(403, "web.incoming_webhook.channel_locked.app_error"), BLOCKED),
        (mattermost_error(404, "web.incoming_webhook.channel.app_error"), BLOCKED),
        (mattermost_error(501, "web.incoming_webhook.disabled.app_error"), BLOCKED),
        (mattermost_error(500, "web.incoming_webhook.whatever"), TRANSIENT),
    ];
    check(&kinds(&server)[3], &server, rows);
}

#[test]
fn webhook() {
    let server = HttpServer::start(Reply::status(500));
    let mut rows = vec![(Reply::status(204), OK)];
    for (verdict, statuses) in [
        (OK, vec![200, 201, 202]),
        (PERMANENT, vec![300, 301, 302, 303, 307, 308, 400, 402, 405, 406, 409, 411, 413, 415, 422, 451]),
        (TRANSIENT, vec![408, 425, 429, 500, 501, 502, 503, 504, 507, 599]),
        (BLOCKED, vec![401, 403, 404, 410]),
    ] {
        rows.extend(statuses.into_iter().map(|s| (Reply::text(s, "S3CR3T ldap-jane"), verdict)));
    }
    check(&kinds(&server)[4], &server, rows);
}

#[test]
fn pauses_are_read_from_headers_and_bodies() {
    let server = HttpServer::start(Reply::status(500));
    let sink = text_sink(kinds(&server)[1].clone());
    let later = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(100);
    let date =
        jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&later).expect("a date");
    let header = |value: &str| Reply::Full(503, vec![("Retry-After", value.to_owned())], String::new());
    for (reply, least_s, most_s) in [
        (header("7"), 7.0, 7.0),
        (header("1.5"), 1.5, 1.5),
        (header(&date), 90.0, 101.0),
        (header("Sun, 06 Nov 1994 08:49:37 GMT"), 0.0, 0.0),
        (header("99999999999999999999999999"), 1e9, f64::MAX),
        (Reply::json(429, r#"{"retry_after":2.5}"#), 2.5, 2.5),
    ] {
        server.then(reply.clone());
        let error = sink.deliver(&task(RECORD), in_time()).expect_err("a failure");
        let pause = error.retry_after.expect("a pause").as_secs_f64();
        assert!(pause >= least_s && pause <= most_s, "{reply:?}: {pause}");
    }
    for reply in [
        header("soon"),
        header("-1"),
        header(""),
        Reply::json(503, r#"{"retry_after":2.5}"#),
        Reply::json(429, r#"{"retry_after":-2}"#),
        Reply::Full(400, vec![("Retry-After", "7".into())], String::new()),
    ] {
        server.then(reply.clone());
        let error = sink.deliver(&task(RECORD), in_time()).expect_err("a failure");
        assert_eq!(error.retry_after, None, "{reply:?}");
    }
}
