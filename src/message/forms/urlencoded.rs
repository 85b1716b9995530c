//! `application/x-www-form-urlencoded` (WHATWG URL, section 5.1), in bytes: whether they are UTF-8 is asked where a
//! value is read. The crate `form_urlencoded` replaces what is not UTF-8 without a word.

use std::borrow::Cow;

use percent_encoding::percent_decode;

/// The names and values of a query or a body, as they were sent, in order.
pub(super) fn pairs(text: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    text.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).map(
        |pair| match memchr::memchr(b'=', pair) {
            Some(at) => (&pair[..at], &pair[at + 1..]),
            None => (pair, &[][..]),
        },
    )
}

/// Appends the decoded text. A `%` that begins no escape stands for itself.
pub(super) fn decode_into(text: &[u8], decoded: &mut Vec<u8>) {
    let mut rest = text;
    while let Some(at) = memchr::memchr2(b'+', b'%', rest) {
        decoded.extend_from_slice(&rest[..at]);
        rest = match rest[at] {
            b'+' => {
                decoded.push(b' ');
                &rest[at + 1..]
            }
            _ => {
                let escape = &rest[at..rest.len().min(at + 3)];
                let before = decoded.len();
                decoded.extend(percent_decode(escape));
                // One byte for three, or the three as they are, which may hold a plus.
                let taken = if decoded.len() == before + 1 { escape.len() } else { 1 };
                decoded.truncate(before + 1);
                &rest[at + taken..]
            }
        };
    }
    decoded.extend_from_slice(rest);
}

/// The decoded text; borrowed where nothing was encoded.
pub(super) fn decode(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr2(b'+', b'%', text).is_none() {
        return Cow::Borrowed(text);
    }
    let mut decoded = Vec::with_capacity(text.len());
    decode_into(text, &mut decoded);
    Cow::Owned(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_decoded_as_browsers_encode_it() {
        for (sent, meant) in [
            ("", &b""[..]),
            ("abc", b"abc"),
            ("a+b", b"a b"),
            ("a%20b%2Bc", b"a b+c"),
            ("%C3%A9", "é".as_bytes()),
            ("Kj%E6r", b"Kj\xe6r"),
            ("%", b"%"),
            ("%4", b"%4"),
            ("%zz%41", b"%zzA"),
            ("%+%2", b"% %2"),
            ("%4+", b"%4 "),
            ("%%41", b"%A"),
            ("100%", b"100%"),
        ] {
            assert_eq!(&*decode(sent.as_bytes()), meant, "{sent}");
        }
    }

    #[test]
    fn where_all_is_utf_8_it_is_read_as_form_urlencoded_reads_it() {
        let pieces = ["a", "=", "&", "%", "+", "%4", "%41", "%C3%A9", "é", "%zz", "b=c", "2"];
        let mut state: u64 = 88_172_645_463_325_252;
        let mut below = |limit: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % limit as u64) as usize
        };
        for _ in 0..20_000 {
            let text: String = (0..below(9)).map(|_| pieces[below(pieces.len())]).collect();
            let ours: Vec<_> = pairs(text.as_bytes())
                .map(|(name, value)| {
                    let read = |text| String::from_utf8_lossy(&decode(text)).into_owned();
                    (read(name), read(value))
                })
                .collect();
            let theirs: Vec<_> = form_urlencoded::parse(text.as_bytes()).into_owned().collect();
            assert_eq!(ours, theirs, "{text}");
        }
    }
}
