//! How a value is encrypted: XChaCha20-Poly1305 with a random nonce, written as base64url of nonce, ciphertext and tag.
//! What is encrypted is bound to its name.

use chacha20poly1305::aead::inout::InOutBuf;
use chacha20poly1305::{AeadInOut, Key, KeyInit, Tag, XChaCha20Poly1305, XNonce};

use crate::Result;
use crate::session::id::{BASE64URL, IdGenerator, SessionId};

/// Its text is a whole number of groups of base64url.
const NONCE: usize = 24;
const TAG: usize = 16;

/// 256 bits that encrypt values.
#[derive(Clone)]
pub(in crate::session) struct DataKey([u8; 32]);

impl DataKey {
    /// The error is that of an operating system without random numbers.
    pub(super) fn random(generator: &IdGenerator) -> Result<DataKey> {
        generator.random().map(DataKey)
    }

    /// The key that an id gives for this purpose. Who has not the id has not the key.
    pub(super) fn derived(id: &SessionId, purpose: &[u8]) -> Result<DataKey> {
        Ok(DataKey(id.derived(purpose)))
    }

    pub(super) fn of_bits(bits: &[u8; 32]) -> Result<DataKey> {
        Ok(DataKey(*bits))
    }

    pub(super) fn bits(&self) -> &[u8; 32] {
        &self.0
    }

    pub(super) fn encrypt(
        &self,
        name: &str,
        value: &[u8],
        generator: &IdGenerator,
    ) -> Result<String> {
        let random = generator.random()?;
        let mut nonce = XNonce::default();
        nonce.copy_from_slice(&random[..NONCE]);
        let mut sealed = Vec::with_capacity(NONCE + value.len() + TAG);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(value);
        let text = InOutBuf::from(&mut sealed[NONCE..]);
        let Ok(tag) = self.cipher().encrypt_inout_detached(&nonce, name.as_bytes(), text) else {
            unreachable!("a value is shorter than 256 GiB");
        };
        sealed.extend_from_slice(&tag);
        Ok(base64url(&sealed))
    }

    /// `None` for whatever has not been encrypted with this key under this name.
    pub(super) fn decrypt(&self, name: &str, text: &str) -> Option<Vec<u8>> {
        let mut sealed = decode_base64url(text)?;
        let (nonce, rest) = sealed.split_first_chunk_mut::<NONCE>()?;
        let (value, tag) = rest.split_last_chunk_mut::<TAG>()?;
        let (nonce, tag) = (XNonce::from(*nonce), Tag::from(*tag));
        let buffer = InOutBuf::from(&mut *value);
        self.cipher().decrypt_inout_detached(&nonce, name.as_bytes(), buffer, &tag).ok()?;
        let end = sealed.len() - TAG;
        sealed.truncate(end);
        sealed.drain(..NONCE);
        Some(sealed)
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(&Key::from(self.0))
    }
}

fn base64url(bytes: &[u8]) -> String {
    let mut text = String::with_capacity((bytes.len() * 4).div_ceil(3));
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        let characters =
            (0..=group.len()).map(|at| BASE64URL[(bits >> (18 - 6 * at) & 63) as usize]);
        text.extend(characters.map(char::from));
    }
    text
}

/// What no character of base64url stands for.
const NO_DIGIT: u8 = 64;

/// What each character stands for.
const DIGITS: [u8; 256] = {
    let (mut digits, mut digit) = ([NO_DIGIT; 256], 0);
    while digit < BASE64URL.len() {
        digits[BASE64URL[digit] as usize] = digit as u8;
        digit += 1;
    }
    digits
};

fn decode_base64url(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for group in text.as_bytes().chunks(4) {
        let mut bits = 0;
        for at in 0..4 {
            let digit = group.get(at).map_or(0, |character| DIGITS[usize::from(*character)]);
            if digit == NO_DIGIT {
                return None;
            }
            bits = bits << 6 | u32::from(digit);
        }
        let [_, decoded @ ..] = bits.to_be_bytes();
        let (decoded, spare) =
            decoded.split_at(group.len().checked_sub(1).filter(|count| *count > 0)?);
        // Spare bits are zeros: one spelling for each value.
        if spare.iter().any(|bits| *bits != 0) {
            return None;
        }
        bytes.extend_from_slice(decoded);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::id::IdFormat;

    #[test]
    fn only_the_same_key_and_name_open_a_value() {
        let generator = IdGenerator::new();
        let key = DataKey::random(&generator).unwrap();
        for length in 0..70 {
            let value = vec![7; length];
            let sealed = key.encrypt("name", &value, &generator).unwrap();
            assert!(!sealed.contains(['=', '+', '/']), "{sealed}");
            assert!(sealed.len() <= length * 4 / 3 + 55, "{length}: {}", sealed.len());
            assert_eq!(key.decrypt("name", &sealed), Some(value.clone()), "{length}");
            assert_ne!(key.encrypt("name", &value, &generator).unwrap(), sealed);
            assert_eq!(key.decrypt("named", &sealed), None);
            assert_eq!(DataKey::random(&generator).unwrap().decrypt("name", &sealed), None);
            for at in 0..sealed.len() {
                let mut other = sealed.clone().into_bytes();
                other[at] = if other[at] == b'A' { b'B' } else { b'A' };
                let other = String::from_utf8(other).unwrap();
                assert_eq!(key.decrypt("name", &other), None, "{at} of {sealed}");
                assert_eq!(key.decrypt("name", &sealed[..at]), None, "{at} of {sealed}");
            }
        }
        for text in ["", "plain", "é", &"A".repeat(54), &"A".repeat(1000)] {
            assert_eq!(key.decrypt("name", text), None, "{text:?}");
        }
    }

    /// What is sealed today opens with each later version: XChaCha20-Poly1305 as in draft-irtf-cfrg-xchacha-03, A.3.1.
    #[test]
    fn the_cipher_is_the_one_of_the_draft() {
        let bytes = |hex: &str| -> Vec<u8> {
            let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
            (0..hex.len()).step_by(2).map(digit).collect()
        };
        let mut key = [0; 32];
        key.iter_mut().zip(0x80..).for_each(|(byte, value)| *byte = value);
        let text = "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, \
                    sunscreen would be it.";
        let nonce = bytes("404142434445464748494a4b4c4d4e4f5051525354555657");
        let nonce = XNonce::try_from(&nonce[..]).unwrap();
        let mut sealed = text.as_bytes().to_vec();
        let tag = DataKey(key).cipher().encrypt_inout_detached(
            &nonce,
            &bytes("50515253c0c1c2c3c4c5c6c7"),
            InOutBuf::from(&mut sealed[..]),
        );
        assert_eq!(tag.unwrap().as_slice(), bytes("c0875924c1c7987947deafd8780acf49"));
        assert_eq!(sealed[..16], bytes("bd6d179d3e83d43b9576579493c0e939"));
    }

    #[test]
    fn each_purpose_and_each_id_has_a_key_of_its_own() {
        let generator = IdGenerator::new();
        let ids = [(); 2].map(|()| generator.next(IdFormat::default()).unwrap());
        let keys: std::collections::HashSet<_> = ids
            .iter()
            .flat_map(|id| {
                [b"a", b"b"].map(|purpose| *DataKey::derived(id, purpose).unwrap().bits())
            })
            .collect();
        assert_eq!(keys.len(), 4);
    }
}
