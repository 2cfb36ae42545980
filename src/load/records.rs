//! What is sent: records of a file or built-in ones, and the bytes that they become on the wire.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufReader, Cursor, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use super::Target;

/// Most bytes of records that are held; what a file has beyond is not used.
const RECORDS_BYTES_MAX: usize = 64 << 20;
/// Most records that are held.
const RECORDS_MAX: usize = 200_000;
/// The longest record that fits into a datagram over IPv4.
const DATAGRAM_BYTES_MAX: usize = 65_507;
/// How many sample records there are; a fifth of them are deletions.
const SAMPLES: usize = 100;

/// Records without their newlines, one after the other.
#[derive(Debug, Clone, Default)]
pub struct Records {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// Whether the source has more than is held.
    pub is_cut: bool,
}

impl Records {
    /// Made-up entries in OpenBao's form, about 1,570 bytes each. A fifth are deletions below `secret/data/`.
    pub fn samples() -> Records {
        let mut records = Records::default();
        for n in 0..SAMPLES {
            records.push(sample(n).as_bytes());
        }
        records
    }

    /// The lines of a file, which may be gzip, without empty ones. Reads at most 64 MiB of them, unpacked.
    ///
    /// # Errors
    ///
    /// A file that cannot be opened or read, damaged gzip, or one without a record.
    pub fn of_file(path: &Path) -> io::Result<Records> {
        let mut start = Vec::with_capacity(2);
        let mut file = File::open(path)?;
        #[allow(clippy::disallowed_methods, reason = "two bytes")]
        file.by_ref().take(2).read_to_end(&mut start)?;
        let is_gzip = start == [0x1f, 0x8b];
        let whole = BufReader::with_capacity(256 << 10, Cursor::new(start).chain(file));
        let mut bytes = Vec::new();
        let limit = RECORDS_BYTES_MAX as u64 + 1;
        #[allow(clippy::disallowed_methods, reason = "read through a limit")]
        let _ = if is_gzip {
            MultiGzDecoder::new(whole).take(limit).read_to_end(&mut bytes)?
        } else {
            whole.take(limit).read_to_end(&mut bytes)?
        };
        Records::of_lines(&bytes)
    }

    fn of_lines(bytes: &[u8]) -> io::Result<Records> {
        let mut records = Records { is_cut: bytes.len() > RECORDS_BYTES_MAX, ..Records::default() };
        let whole = if records.is_cut {
            // The last line may not be all of it.
            &bytes[..memchr::memrchr(b'\n', &bytes[..RECORDS_BYTES_MAX]).unwrap_or(0)]
        } else {
            bytes
        };
        for line in whole.split(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.trim_ascii().is_empty() {
                continue;
            }
            if records.len() == RECORDS_MAX {
                records.is_cut = true;
                break;
            }
            records.push(line);
        }
        if records.is_empty() {
            let why = if records.is_cut {
                "its first line is longer than 64 MiB"
            } else {
                "there is no record in it"
            };
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        Ok(records)
    }

    fn push(&mut self, record: &[u8]) {
        self.bytes.extend_from_slice(record);
        self.ends.push(self.bytes.len());
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of all of them.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.bytes[start..*end])
    }
}

/// A made-up entry.
fn sample(n: usize) -> String {
    // Looks like an HMAC and differs from entry to entry.
    let hash = |salt: u64| {
        let mut text = "hmac-sha256:".to_owned();
        for part in 0..4u64 {
            let mixed = (n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
                ^ (salt + part).wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
            let _ = write!(text, "{:016x}", mixed.rotate_left(23).wrapping_mul(0x1656_67b1_9e37_79f9));
        }
        text
    };
    let (operation, path) = match n % 5 {
        0 => ("delete", format!("secret/data/app-{n:03}/database/password")),
        1 => ("update", format!("auth/approle/login/app-{n:03}")),
        2 => ("list", format!("kv/metadata/team-{n:03}/service/settings")),
        _ => ("read", format!("kv/data/team-{n:03}/service/settings")),
    };
    let (token, accessor, password) = (hash(1), hash(5), hash(9));
    format!(
        r#"{{"time":"2026-11-24T07:17:{second:02}.{n:03}843435Z","type":"request","auth":{{"client_token":"{token}","accessor":"{accessor}","display_name":"approle-app-{n:03}","policies":["default","app-{n:03}"],"token_policies":["default","app-{n:03}"],"policy_results":{{"allowed":true,"granting_policies":[{{"name":"app-{n:03}","namespace_id":"root","type":"acl"}}]}},"metadata":{{"role_name":"app-{n:03}"}},"entity_id":"5f1c9a4e-7d03-4b61-9e58-0c2d7a1b{n:04}","token_type":"service","token_ttl":2764800,"token_issue_time":"2026-11-24T06:02:11Z"}},"request":{{"id":"e441cd6f-e703-bd65-cdc3-036e3c22{n:04}","client_id":"5f1c9a4e-7d03-4b61-9e58-0c2d7a1b{n:04}","operation":"{operation}","mount_point":"secret/","mount_type":"kv","mount_accessor":"kv_14ee1983","mount_running_version":"v2.7.2+builtin.bao","mount_class":"secret","client_token":"{token}","client_token_accessor":"{accessor}","namespace":{{"id":"root"}},"path":"{path}","data":{{"data":{{"password":"{password}","user":"{user}"}},"options":{{"cas":0}}}},"remote_address":"127.0.0.1","remote_port":{port},"headers":{{"user-agent":["app-{n:03}/1.4.2 (linux; amd64) Go-http-client/1.1"],"x-forwarded-for":["10.40.7.21, 10.40.0.1"]}}}}}}"#,
        second = n % 60,
        user = hash(13),
        port = 40_000 + n,
    )
}

/// Records as they go onto the wire: contiguous, so that many go with one write.
#[derive(Debug)]
pub struct Messages {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// Records that this protocol cannot carry; they are left out.
    pub too_long: usize,
}

impl Messages {
    /// Records for a target: with newlines for streams, bare for datagrams, as POST requests for HTTP, there with
    /// `Authorization: Bearer` when a token is given.
    pub fn of(records: &Records, target: &Target, token: Option<&str>) -> Messages {
        let mut messages = Messages { bytes: Vec::new(), ends: Vec::new(), too_long: 0 };
        for record in records.iter() {
            match target {
                Target::Http { host, path, .. } => {
                    let authorization =
                        token.map_or_else(String::new, |t| format!("Authorization: Bearer {t}\r\n"));
                    let length = record.len();
                    let head = format!(
                        "POST {path} HTTP/1.1\r\nHost: {host}\r\n{authorization}Content-Length: {length}\r\n\r\n"
                    );
                    messages.bytes.extend_from_slice(head.as_bytes());
                    messages.bytes.extend_from_slice(record);
                }
                Target::Udp(_) if record.len() > DATAGRAM_BYTES_MAX => {
                    messages.too_long += 1;
                    continue;
                }
                Target::Udp(_) => messages.bytes.extend_from_slice(record),
                Target::Tcp(_) | Target::Unix(_) => {
                    messages.bytes.extend_from_slice(record);
                    messages.bytes.push(b'\n');
                }
            }
            messages.ends.push(messages.bytes.len());
        }
        messages
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    fn start(&self, index: usize) -> usize {
        index.checked_sub(1).map_or(0, |before| self.ends[before])
    }

    /// Message `index`, counted from the start again after the last one.
    pub(super) fn get(&self, index: usize) -> &[u8] {
        let index = index % self.ends.len();
        &self.bytes[self.start(index)..self.ends[index]]
    }

    /// Message `index` and those after it, up to `count` of them and `bytes_max` bytes, at least one, none beyond the
    /// last: their bytes and how many they are.
    pub(super) fn run(&self, index: usize, count: u64, bytes_max: usize) -> (&[u8], usize) {
        let index = index % self.ends.len();
        let start = self.start(index);
        let wanted = usize::try_from(count).unwrap_or(usize::MAX).clamp(1, self.ends.len() - index);
        let within = self.ends[index..index + wanted].partition_point(|end| end - start <= bytes_max).max(1);
        (&self.bytes[start..self.ends[index + within - 1]], within)
    }

    /// How many whole messages the first `bytes` bytes from message `index` on are, and how many bytes these have.
    pub(super) fn whole(&self, index: usize, bytes: usize) -> (usize, usize) {
        let index = index % self.ends.len();
        let start = self.start(index);
        let whole = self.ends[index..].partition_point(|end| end - start <= bytes);
        (whole, self.start(index + whole) - start)
    }

    /// Where flow `flow` of `flows` begins, so that not all send the same at the same time.
    pub(super) fn first_of(&self, flow: u64, flows: u64) -> usize {
        (flow as usize).wrapping_mul(self.len()) / (flows.max(1) as usize)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn tcp() -> Target {
        Target::Tcp("127.0.0.1:1".parse().expect("an address"))
    }

    #[test]
    fn the_samples_are_entries_of_the_usual_size_and_a_fifth_are_deletions() {
        let records = Records::samples();
        let lines: Vec<String> =
            records.iter().map(|r| String::from_utf8(r.to_vec()).expect("text")).collect();
        assert_eq!((records.len(), lines.len()), (SAMPLES, SAMPLES));
        let mean = records.bytes() / records.len();
        assert!((1540..1600).contains(&mean), "{mean}");
        let mut ids = std::collections::BTreeSet::new();
        let mut deletions = 0;
        for line in &lines {
            let entry: serde_json::Value =
                serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
            ids.insert(entry["request"]["id"].as_str().expect("an id").to_owned());
            deletions += usize::from(entry["request"]["operation"] == "delete");
            assert!(entry["time"].as_str().is_some_and(|t| t.parse::<jiff::Timestamp>().is_ok()), "{line}");
        }
        assert_eq!((ids.len(), deletions), (SAMPLES, SAMPLES / 5));
    }

    #[test]
    fn files_may_be_gzip_and_have_empty_lines() {
        let dir = std::env::temp_dir().join(format!("vaf-load-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let (plain, packed) = (dir.join("a.jsonl"), dir.join("a.gz"));
        std::fs::write(&plain, "{\"a\":1}\r\n\n  \n{\"b\":2}").expect("written");
        let mut encoder =
            flate2::write::GzEncoder::new(File::create(&packed).expect("made"), flate2::Compression::fast());
        encoder.write_all(b"{\"a\":1}\n{\"b\":2}\n").expect("written");
        encoder.finish().expect("written");
        for file in [&plain, &packed] {
            let records = Records::of_file(file).expect("records");
            assert_eq!(records.iter().collect::<Vec<_>>(), [b"{\"a\":1}", b"{\"b\":2}"]);
            assert_eq!((records.bytes(), records.is_cut), (14, false));
        }
        let whole = std::fs::read(&packed).expect("read");
        std::fs::write(&packed, &whole[..whole.len() - 6]).expect("written");
        assert!(Records::of_file(&packed).is_err(), "damaged");
        for empty in ["", "\n \n"] {
            std::fs::write(&plain, empty).expect("written");
            let error = Records::of_file(&plain).expect_err("no record");
            assert!(error.to_string().contains("no record"), "{error}");
        }
        assert!(Records::of_file(&dir).is_err() && Records::of_file(&dir.join("none")).is_err());
        std::fs::remove_dir_all(&dir).expect("removed");
    }

    #[test]
    fn more_than_is_held_is_cut_at_a_line() {
        let mut many = b"x\n".repeat(RECORDS_MAX + 1);
        let records = Records::of_lines(&many).expect("records");
        assert_eq!((records.len(), records.is_cut), (RECORDS_MAX, true));
        many = vec![b'y'; RECORDS_BYTES_MAX - 1];
        many.extend_from_slice(b"\nzzz");
        let records = Records::of_lines(&many).expect("records");
        assert_eq!((records.len(), records.bytes(), records.is_cut), (1, RECORDS_BYTES_MAX - 1, true));
        many[RECORDS_BYTES_MAX - 1] = b'y';
        assert!(Records::of_lines(&many).expect_err("one line").to_string().contains("longer"));
    }

    #[test]
    fn messages_are_framed_and_run_on() {
        let records = Records::of_lines(b"one\nfour\nseven").expect("records");
        let messages = Messages::of(&records, &tcp(), None);
        assert_eq!((messages.get(0), messages.get(4)), (&b"one\n"[..], &b"four\n"[..]));
        assert_eq!(messages.run(0, 2, 100), (&b"one\nfour\n"[..], 2));
        assert_eq!(messages.run(0, 9, 9), (&b"one\nfour\n"[..], 2));
        assert_eq!(messages.run(1, 9, 1), (&b"four\n"[..], 1), "at least one");
        assert_eq!(messages.run(5, 9, 100), (&b"seven\n"[..], 1), "not beyond the last");
        for (bytes, wanted) in
            [(0, (0, 0)), (3, (0, 0)), (4, (1, 4)), (8, (1, 4)), (9, (2, 9)), (99, (3, 15))]
        {
            assert_eq!(messages.whole(0, bytes), wanted, "{bytes}");
        }
        assert_eq!([0, 1, 2].map(|flow| messages.first_of(flow, 3)), [0, 1, 2]);
        let udp = Target::Udp("127.0.0.1:1".parse().expect("an address"));
        let long = Records::of_lines(&[&b"a\n"[..], &vec![b'x'; DATAGRAM_BYTES_MAX + 1], b"\n"].concat());
        let messages = Messages::of(&long.expect("records"), &udp, None);
        assert_eq!((messages.len(), messages.too_long, messages.get(0)), (1, 1, &b"a"[..]));
        let address = "127.0.0.1:1270".parse().expect("an address");
        let http = Target::Http { address, host: "h:1".into(), path: "/v1/audit".into() };
        let wanted =
            "POST /v1/audit HTTP/1.1\r\nHost: h:1\r\nAuthorization: Bearer t\r\nContent-Length: 3\r\n\r\none";
        assert_eq!(Messages::of(&records, &http, Some("t")).get(0), wanted.as_bytes());
        assert!(!Messages::of(&records, &http, None).get(1).windows(6).any(|w| w == b"Bearer"));
    }
}
