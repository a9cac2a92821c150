use super::*;
use crate::encode::Writer;

fn reader(bytes: &[u8]) -> Reader {
    Reader::new(Bytes::copy_from_slice(bytes))
}

fn end(needed: usize, remaining: usize) -> DecodeError {
    DecodeError::UnexpectedEnd { needed, remaining }
}

#[test]
fn numbers_are_big_endian() {
    let bytes = [0xff, 0x01, 0x02, 0xff, 0xfe, 0, 0, 0, 5];
    let mut reader = reader(&bytes);
    assert_eq!(reader.i8(), Ok(-1));
    assert_eq!(reader.u16(), Ok(0x0102));
    assert_eq!(reader.i16(), Ok(-2));
    assert_eq!(reader.i32(), Ok(5));
    assert_eq!(reader.remaining(), 0);
    assert_eq!(reader.bool(), Err(end(1, 0)));
}

#[test]
fn unsigned_varints_of_kafka() {
    for (value, bytes) in [
        (0, &[0][..]),
        (127, &[0x7f]),
        (128, &[0x80, 0x01]),
        (8191, &[0xff, 0x3f]),
        (134_217_727, &[0xff, 0xff, 0xff, 0x3f]),
        (u32::MAX, &[0xff, 0xff, 0xff, 0xff, 0x0f]),
    ] {
        assert_eq!(reader(bytes).unsigned_varint(), Ok(value));
        let mut writer = Writer::new();
        writer.unsigned_varint(value);
        assert_eq!(writer.into_bytes().unwrap(), bytes);
    }
    // Longer than it needs to be: Kafka reads it, too.
    assert_eq!(reader(&[0x81, 0x80, 0]).unsigned_varint(), Ok(1));
    for bytes in [&[0xff, 0xff, 0xff, 0xff, 0x10][..], &[0x80; 6]] {
        assert_eq!(reader(bytes).unsigned_varint(), Err(DecodeError::VarintTooLong));
    }
    assert_eq!(reader(&[0x80]).unsigned_varint(), Err(end(1, 0)));
}

#[test]
fn zigzag_varints() {
    for value in [0, -1, 1, -64, 64, i32::MAX, i32::MIN] {
        let mut writer = Writer::new();
        writer.varint(value);
        writer.varlong(value.into());
        let mut reader = Reader::new(writer.into_bytes().unwrap());
        assert_eq!(reader.varint(), Ok(value));
        assert_eq!(reader.varlong(), Ok(value.into()));
    }
    for (value, bytes) in [
        (-64, &[0x7f][..]),
        (64, &[0x80, 0x01]),
        (i64::MIN, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
    ] {
        assert_eq!(reader(bytes).varlong(), Ok(value));
        let mut writer = Writer::new();
        writer.varlong(value);
        assert_eq!(writer.into_bytes().unwrap(), bytes);
    }
    let too_long = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
    assert_eq!(reader(&too_long).varlong(), Err(DecodeError::VarintTooLong));
    assert_eq!(reader(&[0x80; 11]).varlong(), Err(DecodeError::VarintTooLong));
}

#[test]
fn strings_in_both_encodings() {
    assert_eq!(reader(&[0, 2, b'o', b'k']).string(false).unwrap(), "ok");
    assert_eq!(reader(&[3, b'o', b'k']).string(true).unwrap(), "ok");
    assert_eq!(reader(&[0xff, 0xff]).nullable_string(false), Ok(None));
    assert_eq!(reader(&[0]).nullable_string(true), Ok(None));
    for (bytes, flexible) in [(&[0xff, 0xff][..], false), (&[0], true)] {
        assert_eq!(reader(bytes).string(flexible), Err(DecodeError::UnexpectedNull));
    }
    let negative = reader(&[0xff, 0xfe]).string(false);
    assert_eq!(negative, Err(DecodeError::NegativeLength(-2)));
    assert_eq!(reader(&[0, 1, 0xc3]).string(false), Err(DecodeError::InvalidUtf8));
    assert_eq!(reader(&[0, 3, b'a']).string(false), Err(end(3, 1)));
    let long = [&[0x81, 0x80, 0x02][..], &[b'a'; 32_768]].concat();
    assert_eq!(reader(&long).string(true), Err(DecodeError::StringTooLong(32_768)));
}

#[test]
fn strings_and_bytes_share_the_buffer() {
    let buffer = Bytes::from(vec![0, 0, 0, 3, b'a', b'b', b'c']);
    let bytes = Reader::new(buffer.clone()).bytes(false).unwrap();
    assert_eq!(bytes.as_ptr(), buffer[4..].as_ptr());
    let records = Reader::new(buffer.clone()).records(false).unwrap();
    assert_eq!(records.to_bytes().unwrap().as_ptr(), buffer[4..].as_ptr());
}

#[test]
fn arrays_are_bounded_by_what_remains() {
    let ints = |bytes: &[u8]| reader(bytes).nullable_array(false, 4, Reader::i32);
    assert_eq!(ints(&[0, 0, 0, 1, 0, 0, 0, 9]), Ok(Some(vec![9])));
    assert_eq!(ints(&[0xff; 4]), Ok(None));
    assert_eq!(ints(&[0, 0, 0, 2, 0, 0, 0, 9]), Err(end(8, 4)));
    assert_eq!(ints(&[0x80, 0, 0, 0]), Err(DecodeError::NegativeLength(i32::MIN)));
    let million = [&1_000_001_i32.to_be_bytes()[..], &[0; 16]].concat();
    assert_eq!(ints(&million), Err(DecodeError::ArrayTooLong(1_000_001)));
    let mut compact = reader(&[3, 7, 8]);
    assert_eq!(compact.array(true, 1, Reader::i8), Ok(vec![7, 8]));
}

/// Eight outer elements of at least four bytes leave the first inner array four bytes, not all 32.
#[test]
fn a_lie_cannot_be_told_at_each_level() {
    let mut bytes = vec![0, 0, 0, 8];
    bytes.extend([0, 0, 0, 28]);
    bytes.extend([0; 28]);
    let nested = reader(&bytes).array(false, 4, |outer| outer.array(false, 1, Reader::i8));
    assert_eq!(nested, Err(end(28, 0)));
    let honest = [0, 0, 0, 2, 0, 0, 0, 1, 5, 0, 0, 0, 0];
    let mut reader = reader(&honest);
    let nested = reader.array(false, 4, |outer| outer.array(false, 1, Reader::i8));
    assert_eq!(nested, Ok(vec![vec![5], vec![]]));
    assert_eq!(reader.remaining(), 0);
}

#[test]
fn tagged_fields() {
    let mut skipped = reader(&[2, 0, 1, 0xaa, 9, 0, 0x42]);
    assert_eq!(skipped.skip_tagged_fields(), Ok(()));
    assert_eq!(skipped.i8(), Ok(0x42));
    let many = reader(&[0x91, 0x4e]).skip_tagged_fields();
    assert_eq!(many, Err(DecodeError::TooManyTaggedFields(10_001)));
    assert_eq!(reader(&[1, 0, 9, 0]).skip_tagged_fields(), Err(end(9, 1)));
    let (tag, mut body) = reader(&[3, 2, 7, 8]).tagged_field().unwrap();
    assert_eq!((tag, body.i8()), (3, Ok(7)));
    let left = body.finish_tagged_field(tag);
    assert_eq!(left, Err(DecodeError::TaggedFieldSize { tag: 3, unread: 1 }));
}

#[test]
fn nullable_structures() {
    assert_eq!(reader(&[1]).is_present(), Ok(true));
    assert_eq!(reader(&[0xff]).is_present(), Ok(false));
    assert_eq!(reader(&[1]).is_tagged_present(), Ok(true));
    assert_eq!(reader(&[0]).is_tagged_present(), Ok(false));
}
