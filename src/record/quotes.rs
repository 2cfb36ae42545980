//! The quotation marks of a text, 64 bytes at a time.

use wide::{i8x16, u8x16};

use super::scan::{self, Fault, StringEnd};

const BLOCK: usize = 64;

/// The quotation marks that have not been passed.
///
/// A reader that goes from string to string in order finds each one's end here without looking at the bytes between: the position of
/// the next quotation mark does not wait for the previous one to be looked at, which is what limits a scanner of short strings.
pub(super) struct Quotes<'a> {
    text: &'a [u8],
    /// Start of the block at hand, a multiple of 64.
    base: usize,
    /// Quotation marks in the block that have not been passed.
    quotes: u64,
    /// Whether the block has anything in it but ASCII without backslashes and control characters.
    special: bool,
    /// Whether a block so far had.
    any_special: bool,
}

impl<'a> Quotes<'a> {
    pub(super) fn new(text: &'a [u8]) -> Quotes<'a> {
        let mut quotes = Quotes { text, base: 0, quotes: 0, special: false, any_special: false };
        quotes.load(0);
        quotes
    }

    /// Finds the end of the string whose first byte behind the opening quotation mark is at `at`. That mark must be the first one not
    /// passed yet.
    #[inline(always)]
    pub(super) fn string(&mut self, at: usize) -> Result<StringEnd, Fault> {
        while self.quotes == 0 && self.advance() {}
        self.quotes &= self.quotes.wrapping_sub(1);
        let mut special = self.special;
        while self.quotes == 0 {
            if !self.advance() {
                return self.careful_string(at);
            }
            special |= self.special;
        }
        if special {
            return self.careful_string(at);
        }
        let quote = self.base + self.quotes.trailing_zeros() as usize;
        self.quotes &= self.quotes.wrapping_sub(1);
        Ok(StringEnd { quote, escaped: false })
    }

    /// [`Quotes::string`] where there may be escapes, or faults.
    #[cold]
    fn careful_string(&mut self, at: usize) -> Result<StringEnd, Fault> {
        let end = scan::string(self.text, at)?;
        let behind = end.quote + 1;
        self.load(behind - behind % BLOCK);
        self.quotes &= u64::MAX << (behind % BLOCK);
        Ok(end)
    }

    /// Whether the text is ASCII without backslashes and control characters. To be asked behind its last string.
    pub(super) fn is_plain(&mut self) -> bool {
        while self.advance() {}
        !self.any_special
    }

    /// Goes to the next block; false at the end of the text.
    #[inline(always)]
    fn advance(&mut self) -> bool {
        let next = self.base + BLOCK;
        if next >= self.text.len() {
            return false;
        }
        self.load(next);
        true
    }

    /// Makes the block that starts at `base` the one at hand.
    #[inline(always)]
    fn load(&mut self, base: usize) {
        self.base = base;
        match self.text.get(base..).and_then(<[u8]>::first_chunk::<BLOCK>) {
            Some(block) => self.classify(block),
            None => self.load_tail(),
        }
    }

    #[cold]
    fn load_tail(&mut self) {
        let mut block = [b' '; BLOCK];
        let tail = self.text.get(self.base..).unwrap_or_default();
        block.iter_mut().zip(tail).for_each(|(to, from)| *to = *from);
        self.classify(&block);
    }

    #[inline(always)]
    fn classify(&mut self, block: &[u8; BLOCK]) {
        self.quotes = 0;
        let mut special = i8x16::ZERO;
        for (index, chunk) in block.as_chunks::<16>().0.iter().enumerate() {
            let quotes = u8x16::new(*chunk).simd_eq(u8x16::splat(b'"'));
            self.quotes |= u64::from(quotes.to_bitmask()) << (16 * index);
            // What is no ASCII is negative.
            let bytes = i8x16::new(chunk.map(u8::cast_signed));
            special |= i8x16::splat(0x20).simd_gt(bytes) | bytes.simd_eq(i8x16::splat(b'\\'.cast_signed()));
        }
        self.special = special.to_bitmask() != 0;
        self.any_special |= self.special;
    }
}
