//! The readable default: who did what, where, and whether it was let happen. Only what the record holds is said.

use crate::record::{DecodeScratch, Decoder, FieldPlan, Node, Record, Slot, SlotId, json};

use super::super::escape::Markup;

/// Most characters of one value in a message.
const VALUE_CHARS_MAX: usize = 300;
/// Most policies that are named.
const POLICIES_MAX: usize = 8;
/// What hashed values start with.
const HMAC: &str = "hmac-sha256:";
/// Hexadecimal digits that stay of a hash: enough to see that two are the same.
const HMAC_DIGITS_KEPT: usize = 8;

/// The fields that the default text names, and the decoder that finds them.
pub(super) struct DefaultText {
    decoder: Decoder,
    time: SlotId,
    kind: SlotId,
    error: SlotId,
    operation: SlotId,
    path: SlotId,
    namespace: SlotId,
    request_id: SlotId,
    remote_address: SlotId,
    mount_type: SlotId,
    display_name: SlotId,
    entity_id: SlotId,
    policies: SlotId,
    allowed: SlotId,
}

impl DefaultText {
    pub(super) fn new() -> Self {
        let mut plan = FieldPlan::new();
        let mut want = |path: &str| plan.want(&path.split('.').collect::<Vec<_>>());
        let (time, kind, error) = (want("time"), want("type"), want("error"));
        let (operation, path) = (want("request.operation"), want("request.path"));
        let (namespace, request_id) = (want("request.namespace.path"), want("request.id"));
        let (remote_address, mount_type) = (want("request.remote_address"), want("request.mount_type"));
        let (display_name, entity_id) = (want("auth.display_name"), want("auth.entity_id"));
        let (policies, allowed) = (want("auth.policies"), want("auth.policy_results.allowed"));
        DefaultText {
            decoder: plan.build(),
            time,
            kind,
            error,
            operation,
            path,
            namespace,
            request_id,
            remote_address,
            mount_type,
            display_name,
            entity_id,
            policies,
            allowed,
        }
    }

    /// `request.id`, if the record has one.
    pub(super) fn request_id(&self, record: &[u8]) -> Option<String> {
        let mut scratch = DecodeScratch::default();
        let record = self.decoder.decode(record, &mut scratch).ok()?;
        string(&record, self.request_id).map(tidy)
    }

    /// The message, and the request's id.
    pub(super) fn render(&self, markup: Markup, group: &str, bytes: &[u8]) -> (String, Option<String>) {
        let mut scratch = DecodeScratch::default();
        let mut head = String::new();
        markup.push_value(&mut head, group);
        let head = markup.bold(&head);
        let Ok(record) = self.decoder.decode(bytes, &mut scratch) else {
            return (format!("{head}: a record of {} bytes that cannot be read", bytes.len()), None);
        };
        let get = |slot| string(&record, slot).map(tidy);
        let code = |value: &str| markup.code(value);
        let mut lines = vec![format!("{head}: {}", self.what(&record, markup))];
        lines.extend(get(self.error).map(|e| format!("error: {}", code(&e))));

        let who = get(self.display_name).map(|n| code(&n));
        let who = who.or_else(|| get(self.entity_id).map(|id| format!("entity {}", code(&id))));
        let policies = self.policies(&record).map(|p| format!("policies {}", code(&p)));
        let from = get(self.remote_address).map(|a| format!("from {}", code(&a)));
        push_line(&mut lines, "who: ", [who, policies, from]);

        let time = get(self.time).map(|t| code(&t));
        let kind = get(self.kind).map(|k| code(&k));
        let mount = get(self.mount_type).map(|m| format!("mount {}", code(&m)));
        let request_id = get(self.request_id);
        let id = request_id.as_ref().map(|id| format!("request id {}", code(id)));
        push_line(&mut lines, "when: ", [time, kind, mount, id]);
        (lines.join("\n"), request_id)
    }

    /// Operation, path with its namespace, and the outcome.
    fn what(&self, record: &Record<'_>, markup: Markup) -> String {
        let mut words = Vec::new();
        let get = |slot| string(record, slot).map(tidy);
        words.extend(get(self.operation).map(|o| markup.code(&o)));
        if let Some(path) = get(self.path) {
            let namespace = get(self.namespace).unwrap_or_default();
            words.push(markup.code(&limit(&format!("{namespace}{path}"))));
        }
        if words.is_empty() {
            words.push("a record without operation and path".to_owned());
        }
        words.extend(self.outcome(record).map(str::to_owned));
        words.join(" ")
    }

    /// What became of the request. An error tells more than the policies: on paths that need no token these allow what is then refused.
    fn outcome(&self, record: &Record<'_>) -> Option<&'static str> {
        let allowed = match record.slot(self.allowed) {
            Slot::Bool(allowed) => Some(allowed),
            _ => None,
        };
        match (string(record, self.error), allowed) {
            (Some(error), _) if error.contains("permission denied") => Some("denied"),
            (_, Some(false)) => Some("denied"),
            (Some(_), _) => Some("failed"),
            (None, Some(true)) => Some("allowed"),
            (None, None) => None,
        }
    }

    fn policies(&self, record: &Record<'_>) -> Option<String> {
        let Slot::Json(array) = record.slot(self.policies) else { return None };
        let mut names = json::elements(array).filter_map(|node| match node {
            Node::Str(name) => Some(tidy(&name.to_cow())),
            _ => None,
        });
        let mut shown: Vec<String> = names.by_ref().take(POLICIES_MAX).collect();
        let more = names.count();
        if more > 0 {
            shown.push(format!("and {more} more"));
        }
        (!shown.is_empty()).then(|| limit(&shown.join(", ")))
    }
}

fn push_line<const N: usize>(lines: &mut Vec<String>, label: &str, parts: [Option<String>; N]) {
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if !parts.is_empty() {
        lines.push(format!("{label}{}", parts.join(", ")));
    }
}

/// A string or number field that is there and not empty.
fn string<'s>(record: &Record<'s>, slot: SlotId) -> Option<&'s str> {
    match record.slot(slot) {
        Slot::Str(text) | Slot::Number(text) if !text.trim().is_empty() => Some(text),
        _ => None,
    }
}

/// One line, hashes shortened, not too long.
fn tidy(text: &str) -> String {
    // Errors of Go programs come with line breaks and tabs in them.
    let words: Vec<&str> = text.split_whitespace().collect();
    limit(&shorten_hmacs(&words.join(" ")))
}

fn limit(text: &str) -> String {
    match text.char_indices().nth(VALUE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn shorten_hmacs(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(HMAC) {
        let (before, hash) = rest.split_at(at + HMAC.len());
        out.push_str(before);
        let digits = hash.bytes().take_while(u8::is_ascii_hexdigit).count();
        if digits > HMAC_DIGITS_KEPT {
            out.push_str(&hash[..HMAC_DIGITS_KEPT]);
            out.push('…');
        } else {
            out.push_str(&hash[..digits]);
        }
        rest = &hash[digits..];
    }
    out.push_str(rest);
    out
}
