//! A hash as RESTORE takes it: in the form of Redis' dumps, of a version that every server reads (RDB version 6: Redis 2.6 and
//! newer, Valkey).

/// RDB_TYPE_HASH, which the server keeps as small as its settings say.
const HASH: u8 = 4;

const VERSION: [u8; 2] = [6, 0];

/// CRC-64 of Redis, for each byte: the polynomial of Jones, the lowest bit first.
static CRC: [u64; 256] = {
    let (mut table, mut byte) = ([0; 256], 0);
    while byte < 256 {
        let (mut crc, mut bit) = (byte as u64, 0);
        while bit < 8 {
            crc = (crc >> 1) ^ ((crc & 1) * 0x95ac_9329_ac4b_c9b5);
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

fn crc(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |crc, byte| (crc >> 8) ^ CRC[usize::from(crc as u8 ^ byte)])
}

/// A hash of these names and values, in turn, so many words together.
pub(super) fn hash<'a>(count: usize, words: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    debug_assert!(count.is_multiple_of(2), "each name has its value");
    let mut dump = Vec::with_capacity(128);
    dump.push(HASH);
    push_length(&mut dump, count / 2);
    for word in words {
        push_length(&mut dump, word.len());
        dump.extend_from_slice(word);
    }
    dump.extend_from_slice(&VERSION);
    dump.extend_from_slice(&crc(&dump).to_le_bytes());
    dump
}

/// The two highest bits say how many more there are: 6, 14, or 32 in bytes of their own.
fn push_length(dump: &mut Vec<u8>, length: usize) {
    match length {
        0..0x40 => dump.push(length as u8),
        0x40..0x4000 => dump.extend_from_slice(&(length as u16 | 0x4000).to_be_bytes()),
        // No command takes more than 512 MiB.
        _ => {
            dump.push(0x80);
            dump.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
        }
    }
}

/// The names and values of such a hash.
#[cfg(test)]
pub(super) fn words(dump: &[u8]) -> Vec<Vec<u8>> {
    fn length(dump: &mut &[u8]) -> usize {
        let mut take = |count| dump.split_off(..count).expect("as long as it says");
        match take(1)[0] {
            0x80 => u32::from_be_bytes(take(4).try_into().unwrap()) as usize,
            first @ 0x40..0x80 => usize::from(first & 0x3f) << 8 | usize::from(take(1)[0]),
            first => usize::from(first),
        }
    }
    let (body, sum) = dump.split_at(dump.len() - 8);
    assert_eq!(crc(body).to_le_bytes(), sum);
    let mut body = body.strip_prefix(&[HASH]).unwrap().strip_suffix(&VERSION).unwrap();
    let count = 2 * length(&mut body);
    let words = (0..count).map(|_| {
        let length = length(&mut body);
        body.split_off(..length).expect("as long as it says").to_vec()
    });
    let words = words.collect();
    assert!(body.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_written_as_redis_does() {
        // The check value of the catalogue of CRCs, CRC-64/REDIS.
        assert_eq!(crc(b"123456789"), 0xe9c6_d914_c4b8_d9ca);
        // Which Redis 6.2 and 7.0 and Valkey 9 take.
        let known = [4, 1, 1, b'a', 1, b'1', 6, 0, 56, 219, 53, 232, 207, 45, 225, 131];
        assert_eq!(hash(2, [&b"a"[..], b"1"].into_iter()), known);
        for length in [0, 63, 64, 16_383, 16_384, 70_000] {
            let value = vec![b'x'; length];
            let dump = hash(2, [&b"a"[..], &value].into_iter());
            assert_eq!(words(&dump), [b"a".to_vec(), value]);
        }
    }
}
