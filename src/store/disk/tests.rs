use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::real::{read_full, write_full};
use super::sim::{Fault, Sim, World};
use super::{Disk, LOCK_NAME, LockError, RealDisk};

/// A directory that goes when the test ends.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let dir = std::env::temp_dir().join(format!("vaf-disk-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        Dir(dir)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The same steps on any disk.
fn steps(disk: &dyn Disk) {
    let file = disk.create("a", 1000).unwrap();
    assert_eq!(file.len().unwrap(), 1000);
    assert!(!file.is_empty().unwrap());
    assert_eq!(disk.create("a", 1).err().unwrap().kind(), io::ErrorKind::AlreadyExists);
    file.write_at(b"hello", 10).unwrap();
    file.sync().unwrap();
    disk.rename("a", "b").unwrap();
    disk.sync_dir().unwrap();
    let mut buf = [7; 8];
    assert_eq!(disk.open("b").unwrap().read_at(&mut buf, 8).unwrap(), 8);
    assert_eq!(&buf, b"\0\0hello\0");
    assert_eq!(disk.open_read_only("b").unwrap().read_at(&mut buf, 996).unwrap(), 4);
    let listed: Vec<(String, u64)> = disk.list().unwrap().into_iter().map(|l| (l.name, l.len)).collect();
    assert_eq!(listed, [("b".to_owned(), 1000)]);
    disk.unlink("b").unwrap();
    for gone in [disk.unlink("b"), disk.rename("b", "c"), disk.open("b").map(drop)] {
        assert_eq!(gone.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
    assert!(disk.shown("b").ends_with("/b"));
}

#[test]
fn the_real_disk_and_the_simulated_one_do_the_same() {
    let dir = Dir::new("steps");
    steps(&RealDisk::open(&dir.0).unwrap());
    steps(&*Sim::new(World::default()).disk("q"));
}

#[test]
fn directories_and_files_are_for_their_owner_only() {
    let dir = Dir::new("modes");
    let disk = RealDisk::open(&dir.0.join("x/y")).unwrap();
    disk.create("a", 300 * 1024).unwrap();
    let mode = |path: PathBuf| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(dir.0.join("x")), 0o700);
    assert_eq!(mode(disk.path().join("a")), 0o600);
    assert_eq!(disk.path().join("a").metadata().unwrap().len(), 300 * 1024);
    let file = dir.0.join("x/y/a");
    let error = RealDisk::open(&file.join("z")).unwrap_err();
    assert!(error.to_string().contains("cannot make directory"), "{error}");
    assert!(RealDisk::existing(&dir.0.join("none")).list().is_err());
}

#[test]
fn a_second_one_is_told_who_has_the_directory() {
    let dir = Dir::new("lock");
    let disk = RealDisk::open(&dir.0).unwrap();
    let lock = disk.lock().unwrap();
    assert_eq!(format!("{lock:?}"), "Lock");
    let refused = disk.lock().unwrap_err();
    assert!(matches!(refused, LockError::Held { pid: Some(pid), .. } if pid == std::process::id()));
    assert!(refused.to_string().contains(&format!("process {}", std::process::id())), "{refused}");
    std::fs::write(dir.0.join(LOCK_NAME), "").unwrap();
    let refused = disk.lock().unwrap_err();
    assert!(refused.to_string().contains("another process"), "{refused}");
    drop(lock);
    disk.lock().unwrap();
    let none = RealDisk::existing(&dir.0.join("none")).lock().unwrap_err();
    assert!(none.to_string().contains("cannot lock"), "{none}");
    let sim = Sim::new(World::default()).disk("q");
    let held = sim.lock().unwrap();
    assert!(matches!(sim.lock(), Err(LockError::Held { .. })));
    drop(held);
    sim.lock().unwrap();
}

#[test]
fn short_and_interrupted_calls_are_gone_on_with() {
    let mut written = Vec::new();
    let mut calls = 0;
    write_full(b"abcdefg", 10, |bytes, at| {
        calls += 1;
        if calls % 2 == 1 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        assert_eq!(at, 10 + written.len() as u64);
        written.extend_from_slice(&bytes[..bytes.len().min(3)]);
        Ok(bytes.len().min(3))
    })
    .unwrap();
    assert_eq!(written, b"abcdefg");
    assert_eq!(write_full(b"a", 0, |_, _| Ok(0)).unwrap_err().kind(), io::ErrorKind::WriteZero);
    let full = write_full(b"a", 0, |_, _| Err(io::ErrorKind::StorageFull.into()));
    assert_eq!(full.unwrap_err().kind(), io::ErrorKind::StorageFull);

    let mut buf = [0; 5];
    let mut calls = 0;
    let n = read_full(&mut buf, 0, |buf, at| {
        calls += 1;
        match calls {
            1 => Err(io::ErrorKind::Interrupted.into()),
            2 | 3 => {
                buf[0] = b'a' + at as u8;
                Ok(1)
            }
            _ => Ok(0),
        }
    });
    assert_eq!((n.unwrap(), &buf), (2, b"ab\0\0\0"));
    assert!(read_full(&mut buf, 0, |_, _| Err(io::ErrorKind::Other.into())).is_err());
}

#[test]
fn a_failed_sync_loses_what_was_written_and_keeps_it_readable() {
    let sim = Sim::new(World::default());
    let disk = sim.disk("q");
    let file = disk.create("a", 1024).unwrap();
    file.sync().unwrap();
    disk.sync_dir().unwrap();
    file.write_at(b"lost", 0).unwrap();
    sim.set_fault(Some(Fault::AllSyncs));
    assert!(file.sync().is_err());
    sim.set_fault(None);
    file.sync().unwrap();
    let mut buf = [0; 4];
    file.read_at(&mut buf, 0).unwrap();
    assert_eq!(&buf, b"lost");
    assert!(sim.world().has_lost());
    let mut after = sim.world().after_power_loss(&[]);
    assert_eq!(after.bytes("q", "a").unwrap()[..4], [0; 4]);
}
