//! Inputs made of other inputs, with an idea of what HTTP/1 is made of.

use std::ops::Range;

use crate::random::Random;

/// Longer ones would be slow, and show nothing that a shorter one does not.
const LONGEST: usize = 6000;

/// Bytes that mean something to a parser of HTTP/1.
const SPICE: &[u8] = b"\r\n\0 \t:;,/*#?=\"\\%@[]HTP019aAfFxX+-_.\x01\x0b\x7f\x80\xff";

const TOKENS: &[&str] = &[
    "\r\n",
    "\n",
    "\r",
    "\r\n\r\n",
    "\r\n ",
    ": ",
    ":",
    " ",
    "\t",
    "\0",
    "\x0b",
    "\u{e9}",
    "GET",
    "POST",
    "HEAD",
    "CONNECT",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    " HTTP/1.1\r\n",
    " HTTP/1.0\r\n",
    "HTTP/1.1",
    "HTTP/2.0",
    "http://",
    "https://b:8/",
    "*",
    "/",
    "//",
    "?",
    "%00",
    "a@",
    "[::1]",
    ":80",
    "Host: a\r\n",
    "Host: b:81\r\n",
    "Content-Length: ",
    "Content-Length: 0\r\n",
    "Content-Length: 3\r\n",
    "Content-Length: 3, 3\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: identity\r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "chunked",
    ", chunked",
    "Connection: close\r\n",
    "Connection: keep-alive\r\n",
    "Connection: Upgrade\r\nUpgrade: x\r\n",
    "Expect: 100-continue\r\n",
    "close",
    ",",
    "Trailer: x\r\n",
    "X: y\r\n",
    " folded\r\n",
    "0\r\n\r\n",
    "0\r\nX: y\r\n\r\n",
    "3\r\nabc\r\n",
    "3;a=\"b\"\r\nabc\r\n",
    ";a",
    ";a=b",
    "=\"",
    "\\\"",
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
];

const NUMBERS: &[&str] = &[
    "0",
    "1",
    "00",
    "9",
    "10",
    "a",
    "A",
    "0x1",
    "+1",
    "-1",
    "1_0",
    "1 ",
    " 1",
    "1,1",
    "65535",
    "65536",
    "4294967295",
    "4294967296",
    "7fffffffffffffff",
    "9223372036854775808",
    "ffffffffffffffff",
    "10000000000000000",
    "18446744073709551615",
    "18446744073709551616",
    "000000000000000000000000000003",
];

/// Changes an input in a few places, with parts of those in the pool.
pub(crate) fn mutate(mut input: Vec<u8>, pool: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    // Mostly one change: with many, something is always wrong.
    let changes = *random.one_of(&[1, 1, 1, 2, 2, 3, 5]);
    for _ in 0..changes {
        let at = random.below(input.len() + 1);
        match random.below(16) {
            0 => replace(&mut input, at..at + 1, &[*random.one_of(SPICE)]),
            1 => replace(&mut input, at..at, &[*random.one_of(SPICE)]),
            2 => replace(&mut input, at..at + 1 + random.below(3), b""),
            3 => flip(&mut input, at, 1 << random.below(8)),
            // What the case of a letter, or a control character, is.
            4 => flip(&mut input, at, 0x20),
            5 => replace(&mut input, at..at, random.one_of(TOKENS).as_bytes()),
            6 => {
                let word = word(&input, at);
                replace(&mut input, word, random.one_of(TOKENS).as_bytes());
            }
            7 => {
                let digits = digits(&input, random);
                replace(&mut input, digits, random.one_of(NUMBERS).as_bytes());
            }
            8 => step_number(&mut input, random),
            9 => {
                let text = input[line(&input, at)].to_vec();
                let to = line(&input, random.below(input.len() + 1)).start;
                replace(&mut input, to..to, &text);
            }
            10 => {
                let line = line(&input, at);
                replace(&mut input, line, b"");
            }
            11 => {
                let (one, other) = (line(&input, at), random.below(input.len() + 1));
                let text = input[one.clone()].to_vec();
                replace(&mut input, one, b"");
                let to = line(&input, other.min(input.len())).start;
                replace(&mut input, to..to, &text);
            }
            12 => {
                let other: &Vec<u8> = random.one_of(pool);
                let text = other[line(other, random.below(other.len() + 1))].to_vec();
                let to = line(&input, at).start;
                replace(&mut input, to..to, &text);
            }
            13 => {
                let other: &Vec<u8> = random.one_of(pool);
                let from = random.below(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            14 => input.extend_from_slice(random.one_of::<Vec<u8>>(pool)),
            _ => {
                let end = (at + random.below(20)).min(input.len());
                let text = input[at..end].repeat(1 + random.below(40));
                replace(&mut input, at..at, &text);
            }
        }
    }
    input.truncate(LONGEST);
    input
}

fn replace(input: &mut Vec<u8>, range: Range<usize>, by: &[u8]) {
    let range = range.start.min(input.len())..range.end.min(input.len());
    input.splice(range, by.iter().copied());
}

fn flip(input: &mut [u8], at: usize, bit: u8) {
    if let Some(byte) = input.get_mut(at) {
        *byte ^= bit;
    }
}

/// The line at a position, with its end.
fn line(input: &[u8], at: usize) -> Range<usize> {
    let is_end = |byte: &u8| *byte == b'\n';
    let start = input[..at].iter().rposition(is_end).map_or(0, |end| end + 1);
    let end = input[at..].iter().position(is_end).map_or(input.len(), |end| at + end + 1);
    start..end
}

/// The word at a position: letters and digits, or one other byte.
fn word(input: &[u8], at: usize) -> Range<usize> {
    let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
    let start = input[..at].iter().rposition(|byte| !is_letter(byte)).map_or(0, |end| end + 1);
    let end =
        input[at..].iter().position(|byte| !is_letter(byte)).map_or(input.len(), |end| at + end);
    start..end.max(start + 1)
}

/// One of the numbers.
fn digits(input: &[u8], random: &mut Random) -> Range<usize> {
    let mut found = Vec::new();
    let mut from = None;
    for at in 0..=input.len() {
        match (input.get(at).is_some_and(u8::is_ascii_digit), from) {
            (true, None) => from = Some(at),
            (false, Some(start)) => {
                found.push(start..at);
                from = None;
            }
            _ => {}
        }
    }
    if found.is_empty() { 0..0 } else { random.one_of(&found).clone() }
}

/// A length or size that is a little more or less than it was.
fn step_number(input: &mut Vec<u8>, random: &mut Random) {
    let digits = digits(input, random);
    let Ok(number) = String::from_utf8_lossy(&input[digits.clone()]).parse::<u64>() else { return };
    let number = number.wrapping_add(random.below(5) as u64).wrapping_sub(2);
    replace(input, digits, number.to_string().as_bytes());
}
