use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crossbeam_channel::bounded;

use super::*;

fn soon() -> Instant {
    clock::now() + Duration::from_secs(20)
}

fn addr(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], port))
}

#[test]
fn literals_are_not_looked_up() {
    let resolver = Resolver::with_lookup(|_, _| panic!("looked up"));
    for (host, shown) in [("127.0.0.1", "127.0.0.1:7"), ("::1", "[::1]:7"), ("[::1]", "[::1]:7")] {
        assert_eq!(resolver.resolve(host, 7, soon()).unwrap()[0].to_string(), shown);
    }
}

#[test]
fn an_answer_is_remembered_whatever_the_case() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let resolver = Resolver::with_lookup(move |_, port| {
        count.fetch_add(1, Ordering::SeqCst);
        Ok(vec![addr(port)])
    });
    for host in ["chat.example", "CHAT.example", "chat.example"] {
        assert_eq!(resolver.resolve(host, 443, soon()).unwrap(), vec![addr(443)]);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[test]
fn failures_say_why_and_old_answers_stand_in_for_them() {
    let broken = Arc::new(AtomicBool::new(true));
    let state = Arc::clone(&broken);
    let resolver = Resolver::with_lookup(move |_, port| {
        if state.load(Ordering::SeqCst) {
            Err(io::Error::other("no such name"))
        } else {
            Ok(vec![addr(port)])
        }
    });
    assert_eq!(resolver.resolve("a.example", 1, soon()), Err(ResolveError::Failed("no such name".into())));
    broken.store(false, Ordering::SeqCst);
    assert!(resolver.resolve("b.example", 1, soon()).is_ok());
    broken.store(true, Ordering::SeqCst);
    let key = ("b.example".to_owned(), 1);
    resolver.inner.state.lock().names.get_mut(&key).unwrap().fetched_at = clock::now().checked_sub(2 * TTL);
    assert_eq!(resolver.resolve("b.example", 1, soon()).unwrap(), vec![addr(1)]);
    let empty = Resolver::with_lookup(|_, _| Ok(Vec::new()));
    assert!(matches!(empty.resolve("c.example", 1, soon()), Err(ResolveError::Failed(_))));
}

#[test]
fn a_hanging_lookup_costs_its_callers_their_time_and_no_more_threads() {
    let (release, hang) = bounded::<()>(0);
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let resolver = Resolver::with_lookup(move |_, port| {
        count.fetch_add(1, Ordering::SeqCst);
        let _ = hang.recv();
        Ok(vec![addr(port)])
    });
    for n in 0..20 {
        let soon = clock::now() + Duration::from_millis(1);
        assert_eq!(resolver.resolve(&format!("{}.example", n % 10), 1, soon), Err(ResolveError::TimedOut));
    }
    assert!(asked.load(Ordering::SeqCst) <= LOOKUPS_MAX);
    drop(release);
    assert_eq!(resolver.resolve("9.example", 1, soon()).unwrap(), vec![addr(1)]);
}

#[test]
fn the_number_of_names_is_bounded() {
    let resolver = Resolver::with_lookup(|_, port| Ok(vec![addr(port)]));
    for n in 0..3 * NAMES_MAX {
        assert!(resolver.resolve(&format!("{n}.example"), 1, soon()).is_ok());
    }
    assert!(resolver.inner.state.lock().names.len() <= NAMES_MAX + 1);
}

#[test]
fn the_systems_resolver_knows_localhost() {
    let found = Resolver::new().resolve("localhost", 80, soon()).unwrap();
    assert!(found.iter().all(|a| a.ip().is_loopback()), "{found:?}");
}
