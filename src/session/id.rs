//! Session ids: how they are made, written and read.

use std::fmt;
use std::sync::Mutex;

use crate::lock::lock;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use sha2::{Digest, Sha256};

/// How many ids one seed gives before the generator is seeded anew.
const IDS_PER_SEED: u32 = 4096;

pub(super) const BASE64URL: &[u8; 64] =
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The id of a session: what the browser's cookie holds, and the only secret there is.
///
/// `Debug` shows a short digest and never the id; there is no `Display`. Two ids compare by their bits.
///
/// ```
/// use bottle_session::{IdFormat, SessionId};
///
/// let id = SessionId::parse(&"A".repeat(43), IdFormat::default()).expect("43 characters of base64url");
/// // Neither its text nor what it opens is shown; a store's key is its digest.
/// assert!(!format!("{id:?}").contains("AAAA"));
/// assert_eq!(id.key().len(), 64);
/// assert!(SessionId::parse("../../etc/passwd", IdFormat::default()).is_none());
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SessionId {
    bits: [u8; 32],
    format: IdFormat,
}

/// How many bits an id has, and how a cookie writes them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IdFormat {
    /// 256 bits as 43 characters of base64url (RFC 4648 section 5, no padding). The default: twice the
    /// entropy that OWASP's Session Management Cheat Sheet and NIST SP 800-63B ask for.
    #[default]
    Base64Url,
    /// 128 bits as 32 hexadecimal digits, a version 4 UUID (RFC 9562): what Python's bottle-session writes.
    Uuid,
}

impl SessionId {
    /// Reads what a cookie holds. `None` for whatever this format could not have written.
    pub fn parse(text: &str, format: IdFormat) -> Option<SessionId> {
        let mut bits = [0; 32];
        match format {
            IdFormat::Base64Url => decode_base64url(text.as_bytes(), &mut bits)?,
            IdFormat::Uuid => decode_hex(text.as_bytes(), &mut bits[..16])?,
        }
        Some(SessionId { bits, format })
    }

    /// The text for the cookie. Whoever holds it is the session's owner: never log it.
    pub fn expose(&self) -> String {
        match self.format {
            IdFormat::Base64Url => encode_base64url(&self.bits),
            IdFormat::Uuid => hex(&self.bits[..16]),
        }
    }

    /// The id as a UUID with dashes; the bits of the other format are cut to 128.
    pub fn expose_uuid(&self) -> String {
        let hex = hex(&self.bits[..16]);
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }

    /// SHA-256 of the id in hexadecimal: a store's key that opens no session if it leaks.
    pub fn key(&self) -> String {
        hex(&self.digest())
    }

    /// SHA-256 of the id.
    pub(crate) fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.secret()).into()
    }

    /// The owner's mark: a second digest, kept inside the record. A record whose mark is not that of the
    /// id it was loaded for belongs to somebody else.
    pub fn mark(&self) -> String {
        hex(&self.owner_mark())
    }

    /// The bytes of the owner's mark.
    pub(crate) fn owner_mark(&self) -> [u8; 8] {
        let mut mark = [0; 8];
        mark.copy_from_slice(&self.derived(b"bottle-session owner\0")[..8]);
        mark
    }

    /// A secret for another purpose, from which the id cannot be found.
    pub(crate) fn derived(&self, purpose: &[u8]) -> [u8; 32] {
        Sha256::new().chain_update(purpose).chain_update(self.secret()).finalize().into()
    }

    /// 256 bits, encrypted under this id for this purpose, or decrypted: whoever has not the id learns nothing of them. One
    /// secret only for each purpose: of two, their difference would be known.
    pub(super) fn encrypt(&self, purpose: &[u8], secret: &[u8; 32]) -> [u8; 32] {
        let key = self.derived(purpose);
        std::array::from_fn(|at| key[at] ^ secret[at])
    }

    /// Another id, encrypted under this one. The salt is random, so that two of them can be.
    pub(super) fn encrypt_id(&self, purpose: &[u8], salt: &[u8; 32], other: &SessionId) -> String {
        let format = match other.format {
            IdFormat::Base64Url => 'b',
            IdFormat::Uuid => 'u',
        };
        let text = self.encrypt(&[purpose, salt].concat(), &other.bits);
        format!("{format}{}{}", encode_base64url(salt), encode_base64url(&text))
    }

    /// What [`encrypt_id`](SessionId::encrypt_id) has encrypted.
    pub(super) fn decrypt_id(&self, purpose: &[u8], text: &str) -> Option<SessionId> {
        let (format, text) = match text.split_at_checked(1)? {
            ("b", text) => (IdFormat::Base64Url, text),
            ("u", text) => (IdFormat::Uuid, text),
            _ => return None,
        };
        let (mut salt, mut bits) = ([0; 32], [0; 32]);
        let (salted, text) = text.as_bytes().split_at_checked(43)?;
        decode_base64url(salted, &mut salt)?;
        decode_base64url(text, &mut bits)?;
        Some(SessionId { bits: self.encrypt(&[purpose, &salt].concat(), &bits), format })
    }

    /// How a cookie writes it.
    pub fn format(&self) -> IdFormat {
        self.format
    }

    fn secret(&self) -> &[u8] {
        match self.format {
            IdFormat::Base64Url => &self.bits,
            IdFormat::Uuid => &self.bits[..16],
        }
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId(#{})", &self.key()[..8])
    }
}

/// Makes ids: ChaCha20 seeded by the operating system, seeded anew after a fork and from time to time.
pub(crate) struct IdGenerator {
    state: Mutex<Option<State>>,
}

struct State {
    generator: ChaCha20Rng,
    left: u32,
    process: u32,
}

impl IdGenerator {
    pub(crate) fn new() -> IdGenerator {
        IdGenerator { state: Mutex::new(None) }
    }

    pub(crate) fn next(&self, format: IdFormat) -> crate::Result<SessionId> {
        let mut bits = self.random()?;
        if format == IdFormat::Uuid {
            bits[6] = bits[6] & 0x0f | 0x40;
            bits[8] = bits[8] & 0x3f | 0x80;
            bits[16..].fill(0);
        }
        Ok(SessionId { bits, format })
    }

    /// 256 random bits.
    pub(crate) fn random(&self) -> crate::Result<[u8; 32]> {
        let mut bits = [0; 32];
        // A poisoned lock only means that a thread panicked between two whole states.
        let mut state = lock(&self.state);
        let process = std::process::id();
        if state.as_ref().is_none_or(|state| state.left == 0 || state.process != process) {
            *state = Some(State { generator: seeded()?, left: IDS_PER_SEED, process });
        }
        if let Some(state) = state.as_mut() {
            state.left -= 1;
            state.generator.fill_bytes(&mut bits);
        }
        Ok(bits)
    }
}

fn seeded() -> crate::Result<ChaCha20Rng> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| {
        crate::Error::new(
            crate::ErrorKind::Io,
            "the operating system gave no random numbers for session ids",
        )
        .with_source(error)
    })?;
    Ok(ChaCha20Rng::from_seed(seed))
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)] as char);
        text.push(DIGITS[usize::from(byte & 15)] as char);
    }
    text
}

fn decode_hex(text: &[u8], bytes: &mut [u8]) -> Option<()> {
    if text.len() != bytes.len() * 2 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let digit = |character: u8| (character as char).to_digit(16);
        *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
    }
    Some(())
}

pub(super) fn encode_base64url(bytes: &[u8; 32]) -> String {
    base64url(bytes).map(char::from).iter().collect()
}

pub(crate) fn base64url(bytes: &[u8; 32]) -> [u8; 43] {
    let mut text = [0; 43];
    for (chunk, text) in bytes.chunks(3).zip(text.chunks_mut(4)) {
        let group = chunk.iter().fold(0u32, |group, byte| group << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for (place, character) in text.iter_mut().enumerate() {
            *character = BASE64URL[(group >> (18 - 6 * place) & 63) as usize];
        }
    }
    text
}

/// The value of a character of base64url.
fn digit(character: u8) -> Option<u32> {
    let value = match character {
        b'A'..=b'Z' => character - b'A',
        b'a'..=b'z' => character - b'a' + 26,
        b'0'..=b'9' => character - b'0' + 52,
        b'-' => 62,
        b'_' => 63,
        _ => return None,
    };
    Some(u32::from(value))
}

pub(super) fn decode_base64url(text: &[u8], bytes: &mut [u8; 32]) -> Option<()> {
    if text.len() != 43 {
        return None;
    }
    for (group, chunk) in text.chunks(4).enumerate() {
        let mut bits = 0u32;
        for character in chunk {
            bits = bits << 6 | digit(*character)?;
        }
        bits <<= 6 * (4 - chunk.len());
        // The last group carries two spare bits; only zeros are canonical: one id, one spelling.
        if chunk.len() < 4 && bits & 0xff != 0 {
            return None;
        }
        for (place, byte) in bytes[group * 3..].iter_mut().take(chunk.len() - 1).enumerate() {
            *byte = (bits >> (16 - 8 * place)) as u8;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn an_id_reads_back_as_it_was_written() {
        let generator = IdGenerator::new();
        for format in [IdFormat::Base64Url, IdFormat::Uuid] {
            for _ in 0..1000 {
                let id = generator.next(format).unwrap();
                assert_eq!(SessionId::parse(&id.expose(), format), Some(id));
            }
        }
    }

    #[test]
    fn what_the_format_could_not_have_written_is_no_id() {
        let id = IdGenerator::new().next(IdFormat::Base64Url).unwrap().expose();
        let mut spare_bits = id.clone();
        let last = spare_bits.pop().unwrap();
        let place = BASE64URL.iter().position(|known| *known == last as u8).unwrap();
        spare_bits.push(BASE64URL[place | 1] as char);
        for text in
            ["", "short", &id[..42], &format!("{id}A"), &format!("{}=", &id[..42]), &spare_bits]
        {
            assert_eq!(SessionId::parse(text, IdFormat::Base64Url), None, "{text:?}");
        }
        for text in ["0123456789abcdef", "0123456789abcdef0123456789abcdeg", "é"] {
            assert_eq!(SessionId::parse(text, IdFormat::Uuid), None, "{text:?}");
        }
    }

    #[test]
    fn a_uuid_is_read_in_either_case_and_names_one_session() {
        let lower = SessionId::parse("0123456789abcdef0123456789abcdef", IdFormat::Uuid).unwrap();
        let upper = SessionId::parse("0123456789ABCDEF0123456789ABCDEF", IdFormat::Uuid).unwrap();
        assert_eq!(lower, upper);
        assert_eq!(lower.expose_uuid(), "01234567-89ab-cdef-0123-456789abcdef");
    }

    #[test]
    fn a_made_uuid_says_version_4() {
        let text = IdGenerator::new().next(IdFormat::Uuid).unwrap().expose_uuid();
        assert_eq!(&text[14..15], "4");
        assert!("89ab".contains(&text[19..20]), "{text}");
    }

    #[test]
    fn a_hundred_thousand_ids_are_distinct_and_spread_evenly() {
        let generator = IdGenerator::new();
        let mut seen = HashSet::new();
        let mut ones = [0u32; 256];
        let count = 100_000;
        for _ in 0..count {
            let id = generator.next(IdFormat::Base64Url).unwrap();
            for (bit, ones) in ones.iter_mut().enumerate() {
                *ones += u32::from(id.bits[bit / 8] >> (bit % 8) & 1);
            }
            assert!(seen.insert(id));
        }
        // Six standard deviations of a fair coin thrown `count` times.
        let spread = 6.0 * (f64::from(count) / 4.0).sqrt();
        for (bit, ones) in ones.iter().enumerate() {
            assert!(
                (f64::from(*ones) - f64::from(count) / 2.0).abs() < spread,
                "bit {bit}: {ones}"
            );
        }
    }

    #[test]
    fn after_a_fork_and_from_time_to_time_the_numbers_are_others() {
        let parent = IdGenerator::new();
        parent.random().unwrap();
        // What a fork does: the same state twice.
        let fork = |change: &dyn Fn(&mut State)| {
            let state = parent.state.lock().unwrap();
            let State { generator, left, process } = state.as_ref().unwrap();
            let mut copy = State { generator: generator.clone(), left: *left, process: *process };
            change(&mut copy);
            IdGenerator { state: Mutex::new(Some(copy)) }
        };
        let unnoticed = fork(&|_| ());
        let (child, spent) = (fork(&|state| state.process += 1), fork(&|state| state.left = 0));
        let number = parent.random().unwrap();
        assert_eq!(unnoticed.random().unwrap(), number);
        assert_ne!(child.random().unwrap(), number);
        assert_ne!(spent.random().unwrap(), number);
    }

    #[test]
    fn neither_debug_nor_the_key_shows_the_id() {
        let id = IdGenerator::new().next(IdFormat::Base64Url).unwrap();
        assert!(!format!("{id:?}").contains(&id.expose()[..8]));
        assert!(!id.key().contains(&id.mark()));
    }
}
