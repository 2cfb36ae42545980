//! Texts of settings into values: durations, sizes in bytes, addresses, URLs. Pure.
//!
//! Errors are pairs: what is wrong, and what to write instead. They never repeat the text; the caller knows whether it may.

use std::net::IpAddr;
use std::time::Duration;

/// What is wrong, and what to write instead.
pub(super) type Complaint = (String, String);

/// The longest duration that any key takes: ten years.
const DURATION_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

fn complaint<T>(what: &str, cure: &str) -> Result<T, Complaint> {
    Err((what.to_owned(), cure.to_owned()))
}

/// Reads a duration as Go's `time.ParseDuration` writes it: `5ms`, `1m30s`, `1.5h`, `0`. No sign, no bare number.
pub(super) fn duration(text: &str) -> Result<Duration, Complaint> {
    const CURE: &str = "write a number with a unit, such as 5ms, 10s, 1m30s or 24h";
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.is_empty() {
        return complaint("is empty", CURE);
    }
    if text.starts_with('-') {
        return complaint("a negative duration", CURE);
    }
    if text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Err(("a number without a unit".into(), format!("write {text}s, {text}ms or {text}m")));
    }
    let mut rest = text;
    let mut nanoseconds: u128 = 0;
    while !rest.is_empty() {
        let number_end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .filter(|&end| end > 0)
            .ok_or_else(|| ("not a duration".to_owned(), CURE.to_owned()))?;
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, after) = tail.split_at(unit_end);
        nanoseconds = nanoseconds.saturating_add(scaled(number, unit_nanoseconds(unit)?, CURE)?);
        rest = after;
    }
    if nanoseconds > DURATION_MAX.as_nanos() {
        return complaint("longer than ten years", "write a shorter duration");
    }
    Ok(Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX)))
}

fn unit_nanoseconds(unit: &str) -> Result<u128, Complaint> {
    Ok(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        "d" => return complaint("days are not a unit here", "write hours: 24h is one day"),
        _ => return complaint("not a duration", "units are ns, us, ms, s, m and h, as in 1m30s"),
    })
}

/// `number` (digits with at most one point) times `unit`, rounded down.
fn scaled(number: &str, unit: u128, cure: &str) -> Result<u128, Complaint> {
    let bad = || ("not a duration".to_owned(), cure.to_owned());
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) || number.len() > 30 {
        return Err(bad());
    }
    let digits = |text: &str| if text.is_empty() { Ok(0) } else { text.parse::<u128>().map_err(|_| bad()) };
    let mut value = digits(whole)?.saturating_mul(unit);
    // Nine digits reach the nanosecond of every unit up to the second; more of an hour than that is noise.
    let fraction = &fraction[..fraction.len().min(12)];
    let scale = 10_u128.pow(u32::try_from(fraction.len()).unwrap_or(0));
    value = value.saturating_add(digits(fraction)?.saturating_mul(unit) / scale);
    Ok(value)
}

/// A duration as one would write it: the largest unit that divides it.
pub(super) fn duration_text(duration: Duration) -> String {
    let nanoseconds = duration.as_nanos();
    if nanoseconds == 0 {
        return "0".into();
    }
    for (unit, name) in [
        (3_600_000_000_000, "h"),
        (60_000_000_000, "m"),
        (1_000_000_000, "s"),
        (1_000_000, "ms"),
        (1_000, "us"),
    ] {
        if nanoseconds.is_multiple_of(unit) {
            return format!("{}{name}", nanoseconds / unit);
        }
    }
    format!("{nanoseconds}ns")
}

/// The units of sizes, binary first so that rendering prefers them.
const BYTE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

/// Reads a size: plain bytes, or a whole number with a unit, `64MiB`, `1GiB`, `10MB` (case does not matter).
pub(super) fn bytes(text: &str) -> Result<u64, Complaint> {
    const CURE: &str =
        "write a whole number of bytes, or one with KiB, MiB, GiB, KB, MB or GB, such as 64MiB";
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = (&text[..end], text[end..].trim_start());
    if text.starts_with('-') {
        return complaint("a negative size", CURE);
    }
    if number.is_empty() {
        return complaint("not a size in bytes", CURE);
    }
    let Some(factor) = (if unit.is_empty() {
        Some(1)
    } else {
        BYTE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).map(|(_, factor)| *factor)
    }) else {
        if let [letter @ ('k' | 'K' | 'm' | 'M' | 'g' | 'G')] = unit.chars().collect::<Vec<_>>()[..] {
            let big = letter.to_ascii_uppercase();
            return Err((
                "not clear whether 1000 or 1024".into(),
                format!("write {number}{big}iB or {number}{big}B"),
            ));
        }
        return complaint("not a size in bytes", CURE);
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(factor))
        .ok_or_else(|| ("too large a size".to_owned(), CURE.to_owned()))
}

/// A size as one would write it.
pub(super) fn bytes_text(bytes: u64) -> String {
    for (name, factor) in &BYTE_UNITS[..4] {
        if bytes >= *factor && bytes.is_multiple_of(*factor) {
            return format!("{}{name}", bytes / factor);
        }
    }
    bytes.to_string()
}

/// Checks `host:port` and returns host (without brackets) and port. An empty host is every interface, as in Go.
pub(super) fn host_port(text: &str) -> Result<(&str, u16), Complaint> {
    const CURE: &str = "write host:port, such as 127.0.0.1:1269, [::1]:1269 or localhost:1269";
    if text.contains("://") {
        return complaint("a URL where host:port is wanted", CURE);
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return complaint("no port", CURE);
    };
    let port = match port.parse::<u16>() {
        Ok(number) if port.bytes().all(|b| b.is_ascii_digit()) => number,
        _ => return complaint("the port is not a number from 0 to 65535", CURE),
    };
    if let Some(inner) = host.strip_prefix('[') {
        return match inner.strip_suffix(']') {
            Some(ip) if ip.parse::<std::net::Ipv6Addr>().is_ok() => Ok((ip, port)),
            _ => complaint("not an IPv6 address between the brackets", CURE),
        };
    }
    if host.contains(':') {
        return complaint("an IPv6 address without brackets", CURE);
    }
    let name_like = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    if !host.bytes().all(name_like) || host.len() > 253 {
        return complaint("the host is neither a name nor an IP address", CURE);
    }
    if host.bytes().all(|b| b.is_ascii_digit() || b == b'.')
        && !host.is_empty()
        && host.parse::<IpAddr>().is_err()
    {
        return complaint("not an IPv4 address", CURE);
    }
    Ok((host, port))
}

/// Whether a bind to this host is seen by this machine only. Names other than `localhost` count as seen from outside.
pub(super) fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether a bind to this host takes the port on every interface.
pub(super) fn is_wildcard(host: &str) -> bool {
    host.is_empty() || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified())
}

/// Checks an `http` or `https` URL with a host.
pub(super) fn http_url(text: &str) -> Result<(), Complaint> {
    const CURE: &str =
        "write a URL that begins with http:// or https://, such as https://host.example:8200/path";
    if text.is_empty() {
        return complaint("is empty", CURE);
    }
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return complaint("a URL with white space in it", CURE);
    }
    let Ok(uri) = text.parse::<ureq::http::Uri>() else {
        return complaint("not a URL", CURE);
    };
    match uri.scheme_str() {
        Some("http" | "https") => {}
        Some(_) => return complaint("a URL of another scheme", CURE),
        None => return complaint("a URL without http:// or https://", CURE),
    }
    if uri.host().unwrap_or_default().is_empty() {
        return complaint("a URL without a host", CURE);
    }
    Ok(())
}

/// The first control character of a text, escaped, if there is one.
pub(super) fn control_character(text: &str) -> Option<String> {
    text.chars().find(|c| c.is_control()).map(|c| c.escape_default().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_go_writes_them() {
        for (text, nanoseconds) in [
            ("0", 0),
            ("0s", 0),
            ("5ms", 5_000_000),
            ("1m30s", 90_000_000_000),
            ("1h", 3_600_000_000_000),
            ("1.5h", 5_400_000_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("100us", 100_000),
            ("100µs", 100_000),
            ("7ns", 7),
            ("1h0m0.25s", 3_600_250_000_000),
            ("87600h", 315_360_000_000_000_000),
        ] {
            assert_eq!(duration(text).map(|d| d.as_nanos()), Ok(nanoseconds), "{text}");
        }
        for (text, cure) in [
            ("5", "write 5s, 5ms or 5m"),
            ("-5s", "with a unit"),
            ("", "with a unit"),
            ("1d", "24h"),
            ("5 s", "units are"),
            ("s", "with a unit"),
            ("1..5s", "with a unit"),
            (".s", "with a unit"),
            ("5x", "units are"),
            ("1h5", "with a unit"),
            ("87601h", "shorter"),
            ("99999999999999999999999999999h", "shorter"),
            ("999999999999999999999999999999999999999s", "with a unit"),
            ("٣s", "with a unit"),
        ] {
            let (what, got) = duration(text).expect_err(text);
            assert!(got.contains(cure) && !what.is_empty(), "{text}: {what}; {got}");
        }
    }

    #[test]
    fn texts_of_durations_and_sizes_read_back() {
        for text in ["0", "24h", "30s", "5ms", "90s", "7us", "3ns", "2m"] {
            let value = duration(text).expect(text);
            assert_eq!(duration(&duration_text(value)), Ok(value), "{text}");
        }
        assert_eq!(duration_text(Duration::from_secs(86_400)), "24h");
        for (size, text) in
            [(64 << 20, "64MiB"), (1 << 30, "1GiB"), (16 << 10, "16KiB"), (0, "0"), (1500, "1500")]
        {
            assert_eq!(bytes_text(size), text);
            assert_eq!(bytes(text), Ok(size));
        }
    }

    #[test]
    fn sizes() {
        for (text, size) in [
            ("64MiB", 64 << 20),
            ("1gib", 1 << 30),
            ("10MB", 10_000_000),
            ("1 KiB", 1024),
            ("512", 512),
            ("9B", 9),
        ] {
            assert_eq!(bytes(text), Ok(size), "{text}");
        }
        for (text, cure) in [
            ("64M", "write 64MiB or 64MB"),
            ("1g", "write 1GiB or 1GB"),
            ("-1", "whole number"),
            ("", "whole number"),
            ("1.5GiB", "whole number"),
            ("ten", "whole number"),
            ("99999999999TiB", "whole number"),
        ] {
            let (_, got) = bytes(text).expect_err(text);
            assert!(got.contains(cure), "{text}: {got}");
        }
    }

    #[test]
    fn addresses() {
        for (text, wanted) in [
            ("127.0.0.1:1269", ("127.0.0.1", 1269)),
            ("[::1]:0", ("::1", 0)),
            ("udp_receiver:9001", ("udp_receiver", 9001)),
            (":1269", ("", 1269)),
        ] {
            assert_eq!(host_port(text), Ok(wanted), "{text}");
        }
        for text in [
            "127.0.0.1",
            "127.0.0.1:",
            "a:99999",
            "a:+5",
            "::1:80",
            "[::1:80",
            "[x]:80",
            "a b:1",
            "http://a:1",
            "1.2.3:5",
            "256.1.1.1:80",
            "\u{1b}:80",
            "",
        ] {
            assert!(host_port(text).is_err(), "{text}");
        }
        assert!(is_loopback("127.0.0.53") && is_loopback("::1") && is_loopback("LocalHost"));
        assert!(!is_loopback("0.0.0.0") && !is_loopback("example.com") && !is_loopback(""));
        assert!(is_wildcard("") && is_wildcard("::") && is_wildcard("0.0.0.0") && !is_wildcard("127.0.0.1"));
    }

    #[test]
    fn urls() {
        for text in ["http://127.0.0.1:8200", "https://chat.example.com/hooks/x?y=z", "http://[::1]:1/"] {
            assert_eq!(http_url(text), Ok(()), "{text}");
        }
        for text in [
            "",
            "127.0.0.1:8200",
            "ftp://a/",
            "http://",
            "http:///x",
            "http://a b/",
            "localhost",
            "https://a\n",
        ] {
            assert!(http_url(text).is_err(), "{text}");
        }
    }
}
