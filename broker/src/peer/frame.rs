//! Frames: how messages stand in the stream between two nodes.
//!
//!     kind u16 | 0 u16 | message bytes u32 | payload bytes u32 | CRC-32C u32 | message | payload
//!
//! Little-endian. The message is a flatbuffer; the checksum covers the first twelve bytes and the
//! message. The payload (record batches, which have checksums of their own; bodies of requests)
//! stands beside it, so that it is sent from where it lies and sliced where it arrives.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Bytes in front of the message.
pub const HEADER_BYTES: usize = 16;
/// What the checksum covers of them.
const CHECKED_HEADER_BYTES: usize = 12;
/// What is received into while it is not known what comes, in bytes.
const SMALL_BYTES: usize = 16 << 10;
/// Less room than this is not received into: the system call would cost more than what it brings.
const SPARE_BYTES_MIN: usize = 2 << 10;
/// Memory for a frame whose length is known, taken at once: a turn of payload (`Options`), and the
/// message beside it. A longer one grows as its bytes arrive, and is copied for that.
pub(super) const RESERVE_BYTES_MAX: usize = (1 << 20) + (256 << 10);

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Kind {
    /// Who opened the connection, and what for.
    Hello = 1,
    /// The answer.
    Welcome = 2,
    /// The other answer.
    Refused = 3,
    /// The session begins.
    Start = 4,
    /// The sender lives.
    Heartbeat = 5,
    /// What replicas say to each other.
    Groups = 6,
    /// A room asks another node's.
    Request = 7,
    /// Its answer.
    Response = 8,
}

impl Kind {
    const ALL: [Self; 8] = [
        Self::Hello,
        Self::Welcome,
        Self::Refused,
        Self::Start,
        Self::Heartbeat,
        Self::Groups,
        Self::Request,
        Self::Response,
    ];

    fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u16 == number)
    }
}

/// The longest that is taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of a message, in bytes.
    pub message_bytes_max: usize,
    /// Of a payload, in bytes.
    pub payload_bytes_max: usize,
}

/// Why a stream cannot be read on. The connection ends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Of a version that this program does not know, or no frame at all.
    #[error("a frame of kind {0}, which does not exist")]
    Kind(u16),
    /// The two bytes that are 0.
    #[error("a frame with flags {0:#06x}, which do not exist")]
    Flags(u16),
    /// Longer than allowed.
    #[error("a frame announces {announced} bytes of {what}; {allowed} are allowed")]
    Length {
        /// Message or payload.
        what: &'static str,
        /// What it says.
        announced: u32,
        /// What it may.
        allowed: usize,
    },
    /// Damaged on its way.
    #[error("a frame fails its checksum")]
    Checksum,
    /// The message is no flatbuffer of its kind, or breaks the rules of that.
    #[error("a {kind:?} that is none: {why}")]
    Message {
        /// What it claims to be.
        kind: Kind,
        /// What is wrong.
        why: String,
    },
    /// A frame that may not come here.
    #[error("a {0:?} where none may come")]
    Unexpected(Kind),
}

/// A frame as it came: the checksum holds, the message is not verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it says it is.
    pub kind: Kind,
    /// A flatbuffer, perhaps.
    pub message: Bytes,
    /// What stands beside it.
    pub payload: Bytes,
}

/// Header and message of a frame; the payload is sent behind it.
///
/// # Panics
/// Where either is longer than its field can say: what is sent has limits far below.
pub fn head(kind: Kind, message: &[u8], payload_bytes: usize) -> Bytes {
    let (Ok(message_bytes), Ok(payload_bytes)) =
        (u32::try_from(message.len()), u32::try_from(payload_bytes))
    else {
        panic!("a frame of {} and {payload_bytes} bytes", message.len());
    };
    let mut head = BytesMut::with_capacity(HEADER_BYTES + message.len());
    head.put_u16_le(kind as u16);
    head.put_u16_le(0);
    head.put_u32_le(message_bytes);
    head.put_u32_le(payload_bytes);
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&head), message);
    head.put_u32_le(checksum);
    head.put_slice(message);
    head.freeze()
}

/// A header that is within the limits.
#[derive(Clone, Copy)]
struct Header {
    kind: Kind,
    message_bytes: usize,
    payload_bytes: usize,
    checksum: u32,
}

impl Header {
    fn parse(bytes: &[u8; HEADER_BYTES], limits: Limits) -> Result<Self, FrameError> {
        let mut rest = &bytes[..];
        let (number, flags) = (rest.get_u16_le(), rest.get_u16_le());
        let kind = Kind::from_number(number).ok_or(FrameError::Kind(number))?;
        if flags != 0 {
            return Err(FrameError::Flags(flags));
        }
        let mut bounded = |what, allowed| {
            let announced = rest.get_u32_le();
            match usize::try_from(announced) {
                Ok(bytes) if bytes <= allowed => Ok(bytes),
                _ => Err(FrameError::Length { what, announced, allowed }),
            }
        };
        Ok(Self {
            kind,
            message_bytes: bounded("message", limits.message_bytes_max)?,
            payload_bytes: bounded("payload", limits.payload_bytes_max)?,
            checksum: rest.get_u32_le(),
        })
    }

    fn frame_bytes(&self) -> usize {
        HEADER_BYTES + self.message_bytes + self.payload_bytes
    }
}

/// Cuts a stream into frames. Holds little more than what has arrived.
#[derive(Debug)]
pub struct FrameBuffer {
    limits: Limits,
    buffer: BytesMut,
}

impl FrameBuffer {
    /// Of a stream from its beginning.
    pub fn new(limits: Limits) -> Self {
        Self { limits, buffer: BytesMut::new() }
    }

    /// Whether nothing has arrived that was not taken out.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    fn header(&self) -> Result<Option<Header>, FrameError> {
        let header = self.buffer.first_chunk::<HEADER_BYTES>();
        header.map(|bytes| Header::parse(bytes, self.limits)).transpose()
    }

    /// The next frame, once all of it has arrived.
    ///
    /// # Errors
    /// The stream is of no use any more.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some(header) = self.header()? else {
            return Ok(None);
        };
        let Header { kind, message_bytes, payload_bytes, checksum } = header;
        let message_end = HEADER_BYTES + message_bytes;
        if self.buffer.len() < header.frame_bytes() {
            return Ok(None);
        }
        let checked = crc32c::crc32c(&self.buffer[..CHECKED_HEADER_BYTES]);
        let found = crc32c::crc32c_append(checked, &self.buffer[HEADER_BYTES..message_end]);
        if found != checksum {
            return Err(FrameError::Checksum);
        }
        let mut message = self.buffer.split_to(message_end + payload_bytes).freeze();
        let payload = message.split_off(message_end);
        message.advance(HEADER_BYTES);
        Ok(Some(Frame { kind, message, payload }))
    }

    /// What to receive into: it has room for some of what is missing, and where a frame has begun
    /// for no more than that. Give it back by [`Self::put_back`].
    ///
    /// # Errors
    /// The stream is of no use any more.
    pub fn room(&mut self) -> Result<BytesMut, FrameError> {
        let needed = self.header()?.map_or(0, |header| header.frame_bytes());
        let have = self.buffer.len();
        let spare = self.buffer.capacity() - have;
        let capacity = if needed <= SMALL_BYTES {
            // The rest of a small frame, and others behind it.
            let enough = spare >= SPARE_BYTES_MIN && have + spare >= needed;
            if enough { 0 } else { SMALL_BYTES.max(needed) }
        } else if have + spare < needed.min(RESERVE_BYTES_MAX) {
            needed.min(RESERVE_BYTES_MAX)
        } else if spare == 0 {
            needed.min(2 * have)
        } else {
            0
        };
        let mut buffer = std::mem::take(&mut self.buffer);
        if capacity > 0 {
            let mut larger = BytesMut::with_capacity(capacity);
            larger.put_slice(&buffer);
            buffer = larger;
        }
        Ok(buffer)
    }

    /// With what has arrived at its end.
    pub fn put_back(&mut self, buffer: BytesMut) {
        self.buffer = buffer;
    }
}
