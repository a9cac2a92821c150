//! Framing and headers, without I/O.
//!
//! A frame is a length of four bytes and as many bytes: a header, then the message. A request's
//! header is version 2 where the API's version is flexible, else 1; the client id is in the classic
//! encoding in both. A response's header is version 1 where flexible, else 0; that of ApiVersions
//! is always 0, so that a client can read it before it knows what the server speaks (KIP-511).

use crate::api::{Api, ApiKey};
use crate::decode::{DecodeError, Reader};
use crate::encode::{EncodeError, Writer};
use crate::types::Str;

/// Bytes of the length in front of a frame.
pub const LENGTH_BYTES: usize = 4;

/// A frame that cannot be received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length is negative.
    #[error("frame of negative length {0}")]
    Negative(i32),
    /// The length is above what the receiver accepts.
    #[error("frame of {length} bytes, above the limit of {length_max}")]
    TooLong {
        /// What the sender announced.
        length: usize,
        /// What the receiver accepts.
        length_max: usize,
    },
}

/// Reads the length in front of a frame: the bytes that follow it.
///
/// # Errors
/// The length is negative or above `length_max`: the connection cannot be used any more.
pub fn frame_length(prefix: [u8; LENGTH_BYTES], length_max: usize) -> Result<usize, FrameError> {
    let announced = i32::from_be_bytes(prefix);
    let length = usize::try_from(announced).map_err(|_| FrameError::Negative(announced))?;
    if length > length_max {
        return Err(FrameError::TooLong { length, length_max });
    }
    Ok(length)
}

/// The header of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// Which API.
    pub api_key: ApiKey,
    /// In which version. Not checked: it may be one that the API does not have.
    pub api_version: i16,
    /// Comes back in the response.
    pub correlation_id: i32,
    /// What the client calls itself.
    pub client_id: Option<Str>,
}

impl RequestHeader {
    /// Reads a header; the request follows in the reader.
    ///
    /// A version that the API does not have is no error here: ApiVersions is answered even then
    /// (with UNSUPPORTED_VERSION), other requests are the caller's to refuse.
    ///
    /// # Errors An API outside the table (its header's version cannot be known), or bytes that are
    /// no header.
    pub fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let api_key = ApiKey(reader.i16()?);
        let api_version = reader.i16()?;
        let correlation_id = reader.i32()?;
        let api = api_key.api().ok_or(DecodeError::UnknownApi(api_key.0))?;
        let client_id = reader.nullable_string(false)?;
        if api.is_flexible(api_version) {
            reader.skip_tagged_fields()?;
        }
        Ok(Self { api_key, api_version, correlation_id, client_id })
    }

    /// Writes the header, as a client does; the request follows.
    ///
    /// # Errors
    /// An API outside the table, or a client id that is too long.
    pub fn encode(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        let api = known_api(self.api_key)?;
        writer.i16(self.api_key.0);
        writer.i16(self.api_version);
        writer.i32(self.correlation_id);
        writer.nullable_string(self.client_id.as_ref(), false)?;
        if api.is_flexible(self.api_version) {
            writer.unsigned_varint(0);
        }
        Ok(())
    }
}

/// The header of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseHeader {
    /// That of the request.
    pub correlation_id: i32,
}

impl ResponseHeader {
    /// Reads a header, as a client does; the response follows in the reader.
    ///
    /// # Errors
    /// An API outside the table, or bytes that are no header.
    pub fn decode(
        reader: &mut Reader,
        api_key: ApiKey,
        api_version: i16,
    ) -> Result<Self, DecodeError> {
        let api = api_key.api().ok_or(DecodeError::UnknownApi(api_key.0))?;
        let correlation_id = reader.i32()?;
        if has_tagged_response_header(api, api_version) {
            reader.skip_tagged_fields()?;
        }
        Ok(Self { correlation_id })
    }

    /// Writes the header; the response follows.
    ///
    /// # Errors
    /// An API outside the table.
    pub fn encode(
        &self,
        writer: &mut Writer,
        api_key: ApiKey,
        api_version: i16,
    ) -> Result<(), EncodeError> {
        let api = known_api(api_key)?;
        writer.i32(self.correlation_id);
        if has_tagged_response_header(api, api_version) {
            writer.unsigned_varint(0);
        }
        Ok(())
    }
}

fn has_tagged_response_header(api: &Api, version: i16) -> bool {
    api.is_flexible(version) && api.key != ApiKey::API_VERSIONS
}

fn known_api(api_key: ApiKey) -> Result<&'static Api, EncodeError> {
    api_key.api().ok_or(EncodeError::UnknownApi(api_key.0))
}

#[cfg(test)]
mod tests;
