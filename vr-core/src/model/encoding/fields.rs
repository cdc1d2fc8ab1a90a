//! Reads little-endian fields off the front of a slice; never beyond its end.

use crate::model::encoding::CodecError;

/// What is left to read.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    what: &'static str,
    bytes: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Reads `bytes`; errors say that they are about `what`.
    pub(super) const fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, bytes }
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let Some((field, rest)) = self.bytes.split_first_chunk::<N>() else {
            return Err(self.short(N));
        };
        self.bytes = rest;
        Ok(*field)
    }

    pub(super) fn u8(&mut self) -> Result<u8, CodecError> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, CodecError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, CodecError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, CodecError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn u128(&mut self) -> Result<u128, CodecError> {
        self.array().map(u128::from_le_bytes)
    }

    /// The next `length` bytes.
    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], CodecError> {
        let Some((field, rest)) = self.bytes.split_at_checked(length) else {
            return Err(self.short(length));
        };
        self.bytes = rest;
        Ok(field)
    }

    /// A number of items of at least `item_bytes` each, if the rest can hold them: a count alone
    /// never makes the reader reserve more memory than there are bytes.
    pub(super) fn count(&self, count: u32, item_bytes: usize) -> Result<usize, CodecError> {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let need = count.saturating_mul(item_bytes);
        if need > self.bytes.len() { Err(self.short(need)) } else { Ok(count) }
    }

    /// Everything that is left.
    pub(super) const fn take_rest(&mut self) -> &'a [u8] {
        let rest = self.bytes;
        self.bytes = &[];
        rest
    }

    /// How many bytes are left.
    pub(super) const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Nothing may be left.
    pub(super) fn finish(&self) -> Result<(), CodecError> {
        match self.bytes.first() {
            None => Ok(()),
            Some(byte) => {
                Err(CodecError::Invalid { what: "byte after the end", value: u64::from(*byte) })
            }
        }
    }

    /// The error that `value` is not one of ours.
    pub(super) fn invalid<T>(what: &'static str, value: impl Into<u64>) -> Result<T, CodecError> {
        Err(CodecError::Invalid { what, value: value.into() })
    }

    pub(super) const fn short(&self, need: usize) -> CodecError {
        CodecError::Short { what: self.what, have: self.bytes.len(), need }
    }
}
