//! Zigzag varints, as Kafka's records carry all their numbers.

/// The longest that a 64-bit number can become.
const BYTES_MAX: usize = 10;

/// Appends a number in 1 to 10 bytes.
pub(super) fn write(out: &mut Vec<u8>, value: i64) {
    let mut rest = zigzag(value);
    while rest >= 0x80 {
        out.push(low_bits(rest) | 0x80);
        rest >>= 7;
    }
    out.push(low_bits(rest));
}

/// How many bytes [`write`] appends.
pub(super) fn length(value: i64) -> usize {
    let bits = 64 - (zigzag(value) | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Takes a 64-bit number from the front; none if the bytes end inside it or it is longer than 64 bits.
pub(super) fn read(input: &mut &[u8]) -> Option<i64> {
    let mut raw = 0u64;
    for at in 0..BYTES_MAX {
        let byte = *input.get(at)?;
        let bits = u64::from(byte & 0x7f);
        let shift = 7 * at;
        if at == BYTES_MAX - 1 && bits > 1 {
            return None;
        }
        raw |= bits << shift;
        if byte & 0x80 == 0 {
            *input = &input[at + 1..];
            return Some(unzigzag(raw));
        }
    }
    None
}

/// Takes a 32-bit number from the front.
pub(super) fn read_i32(input: &mut &[u8]) -> Option<i32> {
    read(input).and_then(|value| i32::try_from(value).ok())
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn unzigzag(raw: u64) -> i64 {
    (raw >> 1).cast_signed() ^ -((raw & 1).cast_signed())
}

fn low_bits(value: u64) -> u8 {
    value.to_le_bytes()[0] & 0x7f
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_at_every_width_round_trip_and_their_prefixes_are_refused() {
        let edges = (0..64).flat_map(|shift| [1i64 << shift, (1i64 << shift).wrapping_sub(1)]);
        for value in edges.flat_map(|edge| [edge, edge.wrapping_neg()]).chain([i64::MIN, i64::MAX]) {
            let mut bytes = Vec::new();
            write(&mut bytes, value);
            assert_eq!(bytes.len(), length(value), "{value}");
            assert_eq!(read(&mut bytes.as_slice()), Some(value));
            for end in 0..bytes.len() {
                assert_eq!(read(&mut &bytes[..end]), None, "{value} cut at {end}");
            }
        }
        assert_eq!(read(&mut [0xff; 11].as_slice()), None);
        assert_eq!(read_i32(&mut [0xfe, 0xff, 0xff, 0xff, 0x1f].as_slice()), None);
        assert_eq!(read_i32(&mut [0xff, 0xff, 0xff, 0xff, 0x0f].as_slice()), Some(i32::MIN));
    }
}
