//! The buffer that is decompressed into: used again from batch to batch, and bounded.

use super::codec::CompressionError;

/// Grows as decoders write, up to a bound that holds for its capacity, too.
pub(super) struct Output<'a> {
    /// Initialised as far as any use before this one wrote; only the first `len` bytes are of this
    /// one.
    bytes: &'a mut Vec<u8>,
    len: usize,
    bytes_max: usize,
}

impl<'a> Output<'a> {
    pub(super) fn new(bytes: &'a mut Vec<u8>, bytes_max: usize) -> Self {
        Self { bytes, len: 0, bytes_max }
    }

    /// The error for writing more than allowed.
    pub(super) fn too_large(&self) -> CompressionError {
        CompressionError::TooLarge { bytes_max: self.bytes_max }
    }

    /// How many bytes may still be written.
    pub(super) fn room(&self) -> usize {
        self.bytes_max - self.len
    }

    /// What has been written, and room for at least `wanted` bytes behind it, or for as many as the
    /// bound allows.
    pub(super) fn tail(&mut self, wanted: usize) -> (&[u8], &mut [u8]) {
        let needed = self.len + wanted.min(self.room());
        if self.bytes.len() < needed {
            // Doubling, but by hand: `Vec` would double past the bound.
            let target = needed.max(self.bytes.capacity().saturating_mul(2).min(self.bytes_max));
            self.bytes.reserve_exact(target - self.bytes.len());
            self.bytes.resize(needed, 0);
        }
        let (written, tail) = self.bytes.split_at_mut(self.len);
        // The buffer may be larger, from an earlier use with a higher bound.
        let room = self.bytes_max - self.len;
        let room = room.min(tail.len());
        (written, &mut tail[..room])
    }

    /// `count` bytes of the tail have been written.
    pub(super) fn advance(&mut self, count: usize) {
        assert!(
            count <= self.room() && self.len + count <= self.bytes.len(),
            "what a decoder says it wrote fits its buffer"
        );
        self.len += count;
    }

    pub(super) fn extend(&mut self, bytes: &[u8]) -> Result<(), CompressionError> {
        if bytes.len() > self.room() {
            return Err(self.too_large());
        }
        let (_, tail) = self.tail(bytes.len());
        tail[..bytes.len()].copy_from_slice(bytes);
        self.advance(bytes.len());
        Ok(())
    }

    /// What was written.
    pub(super) fn finish(self) -> &'a [u8] {
        let Self { bytes, len, .. } = self;
        &bytes[..len]
    }
}
