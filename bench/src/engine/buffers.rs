//! Large buffers of one thread, used again and again: a fresh one costs the kernel a page fault for
//! every 4 KiB.

use bytes::{Bytes, BytesMut};

/// Smaller ones are left to the allocator.
const KEPT_BYTES_MIN: usize = 32 << 10;
/// How many are kept.
const KEPT_MAX: usize = 64;
/// What is read at once where it is not known what comes.
const SCRATCH_BYTES: usize = 64 << 10;

/// Free buffers, and one to read into.
#[derive(Debug)]
pub struct Buffers {
    free: Vec<BytesMut>,
    scratch: Box<[u8]>,
}

impl Default for Buffers {
    fn default() -> Self {
        Self { free: Vec::new(), scratch: vec![0; SCRATCH_BYTES].into_boxed_slice() }
    }
}

impl Buffers {
    /// Where bytes are read to, and taken away from at once.
    pub fn scratch(&mut self) -> &mut [u8] {
        &mut self.scratch
    }

    /// An empty buffer for about so many bytes.
    pub fn take(&mut self, len: usize) -> BytesMut {
        let mut buffer = self.find(len);
        buffer.clear();
        buffer
    }

    /// A buffer of so many bytes, whatever they are.
    pub fn take_filled(&mut self, len: usize) -> BytesMut {
        let mut buffer = self.find(len);
        buffer.resize(len, 0);
        buffer
    }

    /// Gives back a buffer, if nobody else has it.
    pub fn give_back(&mut self, bytes: Bytes) {
        if bytes.len() >= KEPT_BYTES_MIN
            && let Ok(buffer) = bytes.try_into_mut()
        {
            self.keep(buffer);
        }
    }

    /// Gives back a buffer that was never shared.
    pub fn keep(&mut self, buffer: BytesMut) {
        if buffer.capacity() >= KEPT_BYTES_MIN && self.free.len() < KEPT_MAX {
            self.free.push(buffer);
        }
    }

    fn find(&mut self, len: usize) -> BytesMut {
        if len < KEPT_BYTES_MIN {
            return BytesMut::with_capacity(len);
        }
        let fitting = self.free.iter().rposition(|buffer| buffer.capacity() >= len);
        match fitting {
            Some(place) => self.free.swap_remove(place),
            None => BytesMut::with_capacity(len),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test should say where")]

    use super::*;

    #[test]
    fn a_buffer_comes_back_when_nobody_has_it_any_more() {
        let mut buffers = Buffers::default();
        let bytes = buffers.take_filled(100_000).freeze();
        let address = bytes.as_ptr();
        buffers.give_back(bytes.clone());
        assert!(buffers.free.is_empty(), "somebody else has it");
        buffers.give_back(bytes);
        let again = buffers.take_filled(90_000);
        assert_eq!((again.as_ptr(), again.len()), (address, 90_000));
        buffers.keep(BytesMut::with_capacity(50_000));
        assert!(buffers.take(100_000).capacity() >= 100_000);
        assert_eq!(buffers.free.len(), 1, "it was too small");
    }
}
