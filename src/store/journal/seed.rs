//! Faults that can be built in, each of which the crash tests must find (the test of the test).

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seed {
    /// The answer goes out before the sync.
    AckBeforeSync,
    /// The new segment's name is not synced.
    NoDirSyncOnRoll,
    /// Segments go before the low-water mark is durable.
    UnlinkBeforeMark,
    /// Records go behind a torn tail, in place.
    AppendInPlace,
    /// The tail's new file gets its name before it is synced.
    RenameBeforeSync,
    /// The old tail goes before its new file is there.
    DeleteTailFirst,
    /// The old tail is synced at start and gone on with.
    TrustOldTail,
    /// A failed sync is tried again.
    RetrySync,
    /// After a failed write the same file is gone on with.
    GoOnInFile,
    /// Checksums are not looked at.
    NoChecksum,
    /// A later segment goes before the front one.
    OutOfOrder,
    /// A full segment is not synced before the next one is.
    RollWithoutSync,
    /// Every invalid record is taken for a torn tail.
    TornWithoutUpto,
}
