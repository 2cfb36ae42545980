//! A simulated disk that keeps what a reader sees apart from what would survive a power loss.
//!
//! Each file has a cache image, a disk image and a list of dirty sectors in the order of their writing; each directory has both images of
//! its names and a list of changes. A sync moves the dirty sectors to the disk image, the sync of a directory its changes. A failed sync
//! forgets what was dirty and leaves the cache, as Linux does: a later sync succeeds and saves nothing of it.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::{Disk, DiskFile, Listed, Lock, LockError};

/// Unit in which bytes reach the disk.
pub(crate) const SECTOR: usize = 512;

#[derive(Debug, Clone, Default)]
struct Inode {
    cache: Vec<u8>,
    disk: Vec<u8>,
    /// Sector numbers, each once, in order of their last writing.
    dirty: Vec<usize>,
    grown: bool,
    hash: OnceLock<u64>,
}

/// A change of a directory's names, bound to the file that it is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Change {
    Link { dir: String, name: String, inode: usize },
    Unlink { dir: String, name: String, inode: usize },
    Rename { dir: String, from: String, to: String, inode: usize },
}

type Names = BTreeMap<(String, String), usize>;

/// Everything on the disk and in the caches: an image that can be cloned.
#[derive(Debug, Clone, Default)]
pub(crate) struct World {
    inodes: Vec<Arc<Inode>>,
    names: Names,
    disk_names: Names,
    changes: Vec<Change>,
}

/// A part of what is not yet durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Loose {
    /// Sector `1` of file `0`.
    Sector(usize, usize),
    /// The length of a file; zeros that were written behind its old end are a matter of the length.
    Length(usize),
    /// A change of names, by its place.
    Name(usize),
}

impl World {
    fn edit(&mut self, inode: usize) -> &mut Inode {
        let inode = Arc::make_mut(&mut self.inodes[inode]);
        inode.hash = OnceLock::new();
        inode
    }

    /// What is not durable: sectors in the order of their writing by file, then changes of names.
    pub(crate) fn loose(&self) -> Vec<Loose> {
        let mut out = Vec::new();
        for (i, inode) in self.inodes.iter().enumerate() {
            if self.names.values().chain(self.disk_names.values()).any(|n| *n == i) {
                out.extend(inode.grown.then_some(Loose::Length(i)));
                out.extend(inode.dirty.iter().map(|sector| Loose::Sector(i, *sector)));
            }
        }
        out.extend((0..self.changes.len()).map(Loose::Name));
        out
    }

    /// The world after a power loss that of all that was not durable `kept` has survived.
    pub(crate) fn after_power_loss(&self, kept: &[Loose]) -> World {
        let mut out = self.clone();
        for loose in kept {
            match loose {
                Loose::Sector(inode, sector) => out.edit(*inode).save(*sector),
                Loose::Length(inode) => out.edit(*inode).save_length(),
                Loose::Name(place) => apply(&mut out.disk_names, &self.changes[*place]),
            }
        }
        for i in 0..out.inodes.len() {
            let inode = &out.inodes[i];
            if !inode.dirty.is_empty() || inode.grown || inode.cache != inode.disk {
                let inode = out.edit(i);
                inode.dirty.clear();
                inode.grown = false;
                inode.cache.clone_from(&inode.disk);
            }
        }
        out.names.clone_from(&out.disk_names);
        out.changes.clear();
        out.tidy();
        out
    }

    /// Whether a reader sees bytes that no sync will save: those of a failed one.
    pub(crate) fn has_lost(&self) -> bool {
        self.inodes.iter().any(|inode| inode.dirty.is_empty() && !inode.grown && inode.cache != inode.disk)
    }

    /// Forgets the contents of files that have no name.
    fn tidy(&mut self) {
        for (i, inode) in self.inodes.iter_mut().enumerate() {
            if !self.names.values().chain(self.disk_names.values()).any(|n| *n == i) {
                *inode = Arc::default();
            }
        }
    }

    /// A number that is the same for worlds of the same content, what is not durable included.
    pub(crate) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for (name, inode) in &self.names {
            (name, self.inodes[*inode].fingerprint()).hash(&mut hasher);
        }
        for (name, inode) in &self.disk_names {
            (name, self.inodes[*inode].fingerprint()).hash(&mut hasher);
        }
        self.changes.hash(&mut hasher);
        hasher.finish()
    }

    /// The file `name` of the directory `dir`, as a reader sees it, to be changed behind everybody's back.
    pub(crate) fn bytes(&mut self, dir: &str, name: &str) -> Option<&mut Vec<u8>> {
        let inode = *self.names.get(&(dir.to_owned(), name.to_owned()))?;
        Some(&mut self.edit(inode).cache)
    }

    /// Puts a durable file there.
    pub(crate) fn put(&mut self, dir: &str, name: &str, bytes: Vec<u8>) {
        self.inodes.push(Arc::new(Inode { cache: bytes.clone(), disk: bytes, ..Inode::default() }));
        let key = (dir.to_owned(), name.to_owned());
        self.names.insert(key.clone(), self.inodes.len() - 1);
        self.disk_names.insert(key, self.inodes.len() - 1);
    }

    /// Takes a file away, durably.
    pub(crate) fn take(&mut self, dir: &str, name: &str) -> Option<Vec<u8>> {
        let key = (dir.to_owned(), name.to_owned());
        self.disk_names.remove(&key);
        self.names.remove(&key).map(|inode| self.inodes[inode].cache.clone())
    }

    pub(crate) fn names(&self, dir: &str) -> Vec<String> {
        self.names.keys().filter(|(d, _)| d == dir).map(|(_, name)| name.clone()).collect()
    }

    pub(crate) fn used(&self, dir: &str) -> u64 {
        self.names
            .iter()
            .filter(|((d, _), _)| d == dir)
            .map(|(_, n)| self.inodes[*n].cache.len() as u64)
            .sum()
    }
}

fn apply(names: &mut Names, change: &Change) {
    match change {
        Change::Link { dir, name, inode } => {
            names.insert((dir.clone(), name.clone()), *inode);
        }
        Change::Unlink { dir, name, inode } => {
            let key = (dir.clone(), name.clone());
            if names.get(&key) == Some(inode) {
                names.remove(&key);
            }
        }
        Change::Rename { dir, from, to, inode } => {
            let key = (dir.clone(), from.clone());
            if names.get(&key) == Some(inode) {
                names.remove(&key);
            }
            names.insert((dir.clone(), to.clone()), *inode);
        }
    }
}

impl Inode {
    fn fingerprint(&self) -> u64 {
        *self.hash.get_or_init(|| {
            let mut hasher = DefaultHasher::new();
            (&self.cache, &self.dirty, self.grown).hash(&mut hasher);
            if self.cache != self.disk {
                self.disk.hash(&mut hasher);
            }
            hasher.finish()
        })
    }

    fn save_length(&mut self) {
        self.disk.resize(self.cache.len(), 0);
    }

    fn save(&mut self, sector: usize) {
        let start = sector * SECTOR;
        let end = (start + SECTOR).min(self.cache.len());
        if self.disk.len() < end {
            self.disk.resize(end, 0);
        }
        self.disk[start..end].copy_from_slice(&self.cache[start..end]);
    }

    fn write(&mut self, bytes: &[u8], offset: usize) {
        if bytes.is_empty() {
            return;
        }
        let end = offset + bytes.len();
        if self.cache.len() < end {
            self.cache.resize(end, 0);
            self.grown = true;
        }
        if bytes.iter().all(|b| *b == 0) && self.cache[offset..end].iter().all(|b| *b == 0) {
            return;
        }
        self.cache[offset..end].copy_from_slice(bytes);
        for sector in offset / SECTOR..=(end - 1) / SECTOR {
            self.dirty.retain(|s| *s != sector);
            self.dirty.push(sector);
        }
    }
}

/// A fault to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The sync of this number (from 0) fails: EIO.
    Sync(u64),
    /// The write of this number (from 0) stops after so many bytes: ENOSPC.
    Write(u64, usize),
    /// All writes fail before their first byte, and all creations: ENOSPC.
    Full,
    /// All syncs fail: EIO.
    AllSyncs,
    /// All reads fail: EIO.
    Reads,
    /// The change of names of this number (from 0) fails: EIO.
    Names(u64),
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Steps {
    pub(crate) syncs: u64,
    pub(crate) writes: u64,
    pub(crate) names: u64,
}

type Observer = Arc<dyn Fn(&World) + Send + Sync>;

#[derive(Default)]
struct Shared {
    world: World,
    steps: Steps,
    fault: Option<Fault>,
    observer: Option<Observer>,
}

/// A simulated computer: disks of several directories that crash together.
#[derive(Clone, Default)]
pub(crate) struct Sim {
    shared: Arc<Mutex<Shared>>,
    locked: Arc<AtomicBool>,
}

impl Sim {
    pub(crate) fn new(world: World) -> Sim {
        let sim = Sim::default();
        sim.lock_shared().world = world;
        sim
    }

    fn lock_shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The directory `dir`.
    pub(crate) fn disk(&self, dir: &str) -> Arc<dyn Disk> {
        Arc::new(SimDisk { sim: self.clone(), dir: dir.to_owned() })
    }

    pub(crate) fn set_fault(&self, fault: Option<Fault>) {
        self.lock_shared().fault = fault;
    }

    /// `observer` sees the world after each step that changes it.
    pub(crate) fn observe(&self, observer: Option<Observer>) {
        self.lock_shared().observer = observer;
    }

    pub(crate) fn steps(&self) -> Steps {
        self.lock_shared().steps
    }

    pub(crate) fn world(&self) -> World {
        self.lock_shared().world.clone()
    }

    /// Does a step, shows its result to the observer.
    fn step<T>(&self, step: impl FnOnce(&mut Shared) -> io::Result<T>) -> io::Result<T> {
        let mut shared = self.lock_shared();
        let result = step(&mut shared);
        if let Some(observer) = shared.observer.clone() {
            let world = shared.world.clone();
            drop(shared);
            observer(&world);
        }
        result
    }

    fn write(&self, inode: usize, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.step(|shared| {
            let number = shared.steps.writes;
            shared.steps.writes += 1;
            let most = match shared.fault {
                Some(Fault::Write(at, most)) if at == number => Some(most),
                Some(Fault::Full) => Some(0),
                _ => None,
            };
            let most = most.filter(|most| *most < bytes.len() || *most == 0);
            let part = &bytes[..most.unwrap_or(bytes.len())];
            shared.world.edit(inode).write(part, offset as usize);
            if most.is_some() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        })
    }

    fn names(&self, change: impl FnOnce(&mut World) -> io::Result<Change>) -> io::Result<()> {
        self.step(|shared| {
            let number = shared.steps.names;
            shared.steps.names += 1;
            if shared.fault == Some(Fault::Names(number)) {
                return Err(eio());
            }
            let change = change(&mut shared.world)?;
            apply(&mut shared.world.names, &change);
            shared.world.changes.push(change);
            Ok(())
        })
    }

    fn sync(&self, what: impl FnOnce(&mut World, bool)) -> io::Result<()> {
        self.step(|shared| {
            let number = shared.steps.syncs;
            shared.steps.syncs += 1;
            let fails =
                matches!(shared.fault, Some(Fault::AllSyncs)) || shared.fault == Some(Fault::Sync(number));
            what(&mut shared.world, fails);
            if fails { Err(eio()) } else { Ok(()) }
        })
    }
}

fn eio() -> io::Error {
    io::Error::from_raw_os_error(nix::libc::EIO)
}

struct SimDisk {
    sim: Sim,
    dir: String,
}

impl SimDisk {
    fn key(&self, name: &str) -> (String, String) {
        (self.dir.clone(), name.to_owned())
    }

    fn file(&self, inode: usize) -> Box<dyn DiskFile> {
        Box::new(SimFile { sim: self.sim.clone(), inode })
    }
}

impl Disk for SimDisk {
    fn list(&self) -> io::Result<Vec<Listed>> {
        let shared = self.sim.lock_shared();
        let mine = shared.world.names.iter().filter(|((dir, _), _)| *dir == self.dir);
        Ok(mine
            .map(|((_, name), inode)| {
                let len = shared.world.inodes[*inode].cache.len() as u64;
                Listed { name: name.clone(), len }
            })
            .collect())
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Box<dyn DiskFile>> {
        let mut inode = 0;
        self.sim.names(|world| {
            if world.names.contains_key(&self.key(name)) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            world.inodes.push(Arc::default());
            inode = world.inodes.len() - 1;
            Ok(Change::Link { dir: self.dir.clone(), name: name.to_owned(), inode })
        })?;
        self.sim.write(inode, &vec![0; bytes as usize], 0)?;
        Ok(self.file(inode))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let inode = self.sim.lock_shared().world.names.get(&self.key(name)).copied();
        inode.map(|inode| self.file(inode)).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn open_read_only(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.open(name)
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        self.sim.names(|world| {
            let inode = *world.names.get(&self.key(name)).ok_or(io::ErrorKind::NotFound)?;
            Ok(Change::Unlink { dir: self.dir.clone(), name: name.to_owned(), inode })
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.sim.names(|world| {
            let inode = *world.names.get(&self.key(from)).ok_or(io::ErrorKind::NotFound)?;
            Ok(Change::Rename { dir: self.dir.clone(), from: from.to_owned(), to: to.to_owned(), inode })
        })
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.sim.sync(|world, fails| {
            let (mine, others) = std::mem::take(&mut world.changes).into_iter().partition(|change| {
                let (Change::Link { dir, .. } | Change::Unlink { dir, .. } | Change::Rename { dir, .. }) =
                    change;
                *dir == self.dir
            });
            world.changes = others;
            let mine: Vec<Change> = mine;
            if !fails {
                mine.iter().for_each(|change| apply(&mut world.disk_names, change));
            }
            world.tidy();
        })
    }

    fn lock(&self) -> Result<Lock, LockError> {
        if self.sim.locked.swap(true, Ordering::SeqCst) {
            return Err(LockError::Held { pid: Some(1), path: self.shown(super::LOCK_NAME) });
        }
        Ok(Lock::new(SimLock(Arc::clone(&self.sim.locked))))
    }

    fn shown(&self, name: &str) -> String {
        format!("{}/{name}", self.dir)
    }
}

struct SimLock(Arc<AtomicBool>);

impl Drop for SimLock {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

struct SimFile {
    sim: Sim,
    inode: usize,
}

impl DiskFile for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let shared = self.sim.lock_shared();
        if shared.fault == Some(Fault::Reads) {
            return Err(eio());
        }
        let bytes = shared.world.inodes[self.inode].cache.get(offset as usize..).unwrap_or_default();
        let n = buf.len().min(bytes.len());
        buf[..n].copy_from_slice(&bytes[..n]);
        Ok(n)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.sim.write(self.inode, bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sim.sync(|world, fails| {
            let inode = world.edit(self.inode);
            if std::mem::take(&mut inode.grown) && !fails {
                inode.save_length();
            }
            for sector in std::mem::take(&mut inode.dirty) {
                if !fails {
                    inode.save(sector);
                }
            }
        })
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.sim.lock_shared().world.inodes[self.inode].cache.len() as u64)
    }
}
