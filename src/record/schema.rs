//! The audit entry as rules and templates see it: one typed tree, known at compile time.
//!
//! Every struct lists the names of the Go tool `ncode/vault-audit-filter` first, in the order of its struct, with its types; after
//! them the other fields that OpenBao 2.4 to 2.7 (`audit/format.go`) and Vault up to 2.0 (`audit/types.go`) write. Rules write the Go
//! name (`Request.MountType`), records carry the JSON key (`request.mount_type`).
//!
//! The tree says what a field is meant to be. A record may disagree: the decoder hands over what it finds, and a rule that reads a
//! field of another type fails for that record. Anything outside the tree can be read untyped through `record`.

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// true or false.
    Bool,
    /// A whole number that fits 64 bits.
    Int,
    /// A 64-bit floating-point number.
    Float,
    /// Text.
    Str,
    /// An instant, written as an RFC 3339 string.
    Time,
    /// Any JSON value.
    Any,
    /// A JSON array whose elements all have one type.
    List(&'static Type),
    /// A JSON object with arbitrary keys, whose values all have one type.
    Map(&'static Type),
    /// A JSON object with known keys.
    Struct(&'static StructType),
}

/// A JSON object with known keys.
#[derive(Debug, PartialEq, Eq)]
pub struct StructType {
    /// The type's name as `type(x)` shows it in a rule, without the package; empty for an anonymous struct.
    pub name: &'static str,
    /// The fields, the predecessor's first.
    pub fields: &'static [Field],
}

impl StructType {
    /// The field that rules call `name`; case matters.
    pub fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

/// One field of a [`StructType`].
#[derive(Debug, PartialEq, Eq)]
pub struct Field {
    /// The name as rules write it.
    pub name: &'static str,
    /// The key in the JSON text.
    pub json: &'static str,
    /// What it holds.
    pub ty: Type,
    /// What it means, in one line.
    pub doc: &'static str,
}

const fn field(name: &'static str, json: &'static str, ty: Type, doc: &'static str) -> Field {
    Field { name, json, ty, doc }
}

use Type::{Any, Bool, Int, List, Map, Str, Struct, Time};

const STRINGS: Type = List(&Str);
const STRING_LISTS: Type = Map(&STRINGS);
const OBJECT: Type = Map(&Any);

/// The whole audit entry: the names that rules may start with.
pub static AUDIT_LOG: StructType = StructType {
    name: "AuditLog",
    fields: &[
        field(
            "Type",
            "type",
            Str,
            "\"request\", \"response\", or a plugin's own kind such as \"kmip-request\"",
        ),
        field("Time", "time", Str, "when the entry was written, RFC 3339 with up to nine decimals, UTC"),
        field("Auth", "auth", Struct(&AUTH), "who asked"),
        field("Request", "request", Struct(&REQUEST), "what was asked"),
        field("Response", "response", Struct(&RESPONSE), "what was answered; only on responses"),
        field("Error", "error", Str, "why it failed, as plain text; empty on success"),
        field("RemoteAddr", "remote_addr", Str, "not written by current servers; see Request.RemoteAddress"),
        field("Forwarded", "forwarded", Bool, "whether a standby node forwarded the request (on responses)"),
        field("ForwardedFrom", "forwarded_from", Str, "the node that forwarded the request (on requests)"),
    ],
};

static AUTH: StructType = StructType {
    name: "Auth",
    fields: &[
        field("ClientToken", "client_token", Str, "the token, hashed unless the device has log_raw"),
        field("Accessor", "accessor", Str, "the token's accessor, hashed unless hmac_accessor is false"),
        field("DisplayName", "display_name", Str, "the token's display name"),
        field("Policies", "policies", STRINGS, "all policies of the token"),
        field("TokenPolicies", "token_policies", STRINGS, "policies attached to the token itself"),
        field("PolicyResults", "policy_results", Struct(&POLICY_RESULTS), "what the policies decided"),
        field("TokenType", "token_type", Str, "\"default\", \"service\", \"batch\" or another kind"),
        field("TokenIssueTime", "token_issue_time", Time, "when the token was issued"),
        field(
            "IdentityPolicies",
            "identity_policies",
            STRINGS,
            "policies that come from the entity and its groups",
        ),
        field(
            "ExternalNamespacePolicies",
            "external_namespace_policies",
            STRING_LISTS,
            "policies that hold in other namespaces, by namespace",
        ),
        field(
            "NoDefaultPolicy",
            "no_default_policy",
            Bool,
            "whether the token goes without the default policy",
        ),
        // OpenBao and Vault up to 1.x write strings only. Vault 2.0 may put other values there: such a value is mistyped for the rules
        // that read it, and `record.auth.metadata` reads it as it is.
        field(
            "Metadata",
            "metadata",
            Map(&Str),
            "what the auth method knows about the caller, such as role; a value that is no string fails the rules that read it",
        ),
        field("NumUses", "num_uses", Int, "how often the token may be used; 0 for any number"),
        field("RemainingUses", "remaining_uses", Int, "how often the token may still be used"),
        field("EntityID", "entity_id", Str, "the identity's entity"),
        field("EntityCreated", "entity_created", Bool, "whether this login created the entity"),
        field("TokenTTL", "token_ttl", Int, "the token's lifetime in seconds"),
        field(
            "AuthorizationDetails",
            "authorization_details",
            List(&Any),
            "authorization details of the login (Vault 2.0)",
        ),
    ],
};

static POLICY_RESULTS: StructType = StructType {
    name: "",
    fields: &[
        field(
            "Allowed",
            "allowed",
            Bool,
            "whether the policies allowed it; a request can still be denied later",
        ),
        field(
            "GrantingPolicies",
            "granting_policies",
            List(&Struct(&GRANTING_POLICY)),
            "the policies that granted it",
        ),
    ],
};

static GRANTING_POLICY: StructType = StructType {
    name: "",
    fields: &[
        field("Name", "name", Str, "the policy's name"),
        field("NamespaceID", "namespace_id", Str, "id of the policy's namespace"),
        field("Type", "type", Str, "\"acl\" or another kind; may be empty"),
        field("NamespacePath", "namespace_path", Str, "path of the policy's namespace"),
    ],
};

static REQUEST: StructType = StructType {
    name: "Request",
    fields: &[
        field("ID", "id", Str, "the request's id, the same on its response"),
        field("ClientID", "client_id", Str, "the client counted for this request"),
        field(
            "Operation",
            "operation",
            Str,
            "create, read, update, patch, delete, list, scan, help, renew, revoke and others",
        ),
        field("MountPoint", "mount_point", Str, "the mount that served it, with a slash at the end"),
        field("MountType", "mount_type", Str, "the mount's type, such as kv or system"),
        field("MountAccessor", "mount_accessor", Str, "the mount's accessor"),
        field("MountRunningVersion", "mount_running_version", Str, "version of the plugin that served it"),
        field("MountClass", "mount_class", Str, "\"secret\" or \"auth\""),
        field("ClientToken", "client_token", Str, "the token, hashed unless the device has log_raw"),
        field(
            "ClientTokenAccessor",
            "client_token_accessor",
            Str,
            "the token's accessor, hashed like Auth.Accessor",
        ),
        field("Path", "path", Str, "the path without a leading slash and without the namespace"),
        field("RemoteAddress", "remote_address", Str, "the caller's IP address"),
        field("RemotePort", "remote_port", Int, "the caller's port"),
        field(
            "ReplicationCluster",
            "replication_cluster",
            Str,
            "the performance replication cluster that answered",
        ),
        field("MountRunningSha256", "mount_running_sha256", Str, "SHA-256 of the plugin that served it"),
        field(
            "MountIsExternalPlugin",
            "mount_is_external_plugin",
            Bool,
            "whether the plugin is an external one",
        ),
        field("Namespace", "namespace", Struct(&NAMESPACE), "the namespace of the request"),
        field(
            "Data",
            "data",
            OBJECT,
            "the request's parameters; strings are hashed unless the device has log_raw",
        ),
        field("PolicyOverride", "policy_override", Bool, "whether a soft-mandatory policy was overridden"),
        field("WrapTTL", "wrap_ttl", Int, "the wrapping lifetime that was asked for, in seconds"),
        field(
            "Headers",
            "headers",
            STRING_LISTS,
            "the request headers that the server is set up to log, lower-case",
        ),
        field(
            "ClientCertificateSerialNumber",
            "client_certificate_serial_number",
            Str,
            "serial number of the TLS client certificate, decimal",
        ),
        field(
            "RequestURI",
            "request_uri",
            Str,
            "the URI of the request where it differs from the path (Vault)",
        ),
        field("SupplementalAuditData", "supplemental_audit_data", OBJECT, "what the plugin adds (Vault 2.0)"),
    ],
};

static NAMESPACE: StructType = StructType {
    name: "Namespace",
    fields: &[
        field("ID", "id", Str, "the namespace's id; \"root\" for the root namespace"),
        field(
            "Path",
            "path",
            Str,
            "the namespace's path, with a slash at the end; empty for the root namespace",
        ),
    ],
};

static RESPONSE: StructType = StructType {
    name: "Response",
    fields: &[
        field("MountPoint", "mount_point", Str, "the mount that answered, with a slash at the end"),
        field("MountType", "mount_type", Str, "the mount's type"),
        field("MountAccessor", "mount_accessor", Str, "the mount's accessor"),
        field(
            "MountRunningPluginVersion",
            "mount_running_plugin_version",
            Str,
            "version of the plugin that answered",
        ),
        field("MountClass", "mount_class", Str, "\"secret\" or \"auth\""),
        field(
            "Data",
            "data",
            Struct(&RESPONSE_DATA),
            "metadata of a KV secret; other keys through record.response.data",
        ),
        field("Auth", "auth", Struct(&AUTH), "the identity that a login or a token creation made"),
        field("MountRunningSha256", "mount_running_sha256", Str, "SHA-256 of the plugin that answered"),
        field(
            "MountIsExternalPlugin",
            "mount_is_external_plugin",
            Bool,
            "whether the plugin is an external one",
        ),
        field("Secret", "secret", Struct(&SECRET), "the lease that was handed out"),
        field("Warnings", "warnings", STRINGS, "warnings that the caller got"),
        field("Redirect", "redirect", Str, "where the caller was sent"),
        field("WrapInfo", "wrap_info", Struct(&WRAP_INFO), "the wrapping token of a wrapped response"),
        field("Headers", "headers", STRING_LISTS, "the response headers, in their own case"),
        field("SupplementalAuditData", "supplemental_audit_data", OBJECT, "what the plugin adds (Vault 2.0)"),
    ],
};

static RESPONSE_DATA: StructType = StructType {
    name: "",
    fields: &[
        field("CasRequired", "cas_required", Bool, "whether writes must name the version they replace"),
        field("CreatedTime", "created_time", Str, "when the secret or this version was created"),
        field("CurrentVersion", "current_version", Int, "the newest version"),
        field("DeleteVersionAfter", "delete_version_after", Str, "how long versions are kept"),
        field("MaxVersions", "max_versions", Int, "how many versions are kept; 0 for the mount's setting"),
        field("OldestVersion", "oldest_version", Int, "the oldest version that is left"),
        field("UpdatedTime", "updated_time", Str, "when the secret was last written"),
    ],
};

static SECRET: StructType =
    StructType { name: "Secret", fields: &[field("LeaseID", "lease_id", Str, "the lease's id")] };

static WRAP_INFO: StructType = StructType {
    name: "WrapInfo",
    fields: &[
        field("TTL", "ttl", Int, "the wrapping token's lifetime in seconds"),
        field("Token", "token", Str, "the wrapping token, hashed unless the device has log_raw"),
        field("Accessor", "accessor", Str, "the wrapping token's accessor, hashed like Auth.Accessor"),
        field("CreationTime", "creation_time", Str, "when it was created, RFC 3339"),
        field("CreationPath", "creation_path", Str, "the path whose response was wrapped"),
        field(
            "WrappedAccessor",
            "wrapped_accessor",
            Str,
            "the accessor of a token inside, hashed like Auth.Accessor",
        ),
    ],
};
