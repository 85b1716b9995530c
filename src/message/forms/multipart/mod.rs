//! `multipart/form-data` (RFC 7578, RFC 2046 section 5.1), as browsers write it (WHATWG HTML, "Multipart form
//! data"), in pieces as they arrive.
//!
//! Strict where leniency would let two readers of one body see two forms: every delimiter line, header and
//! parameter is well-formed, or the form is refused. A preamble and an epilogue are passed over.

pub(super) mod headers;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::ops::Range;

use memchr::memmem;

pub(super) use self::headers::Part;
use self::headers::{HEADERS, headers};

/// Why a form is refused, to be put behind "the form is malformed: ".
pub(super) type Malformed = Cow<'static, str>;

/// What the parser has found at the beginning of the bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// Not enough to tell. More bytes are needed, behind these.
    More,
    /// A part begins.
    Part(Part),
    /// These bytes belong to the part.
    Content(Range<usize>),
    /// The part ends.
    PartEnd,
    /// The form ends; whatever follows is not part of it.
    End,
}

/// Reads a form from bytes that somebody else holds.
pub(super) struct Parser {
    delimiter: memmem::Finder<'static>,
    state: State,
    parts: usize,
    most_parts: usize,
}

#[derive(Clone, Copy)]
enum State {
    /// Before the first byte: a delimiter there needs no line break before it.
    Start,
    Preamble,
    /// Behind a delimiter.
    Delimiter,
    /// In the white space that may follow a delimiter.
    Padding,
    /// At the line break in front of the headers.
    Head,
    /// In a part. The bytes to skip are the second line break behind its headers, which can be that of the
    /// delimiter as well: an empty part without one of its own.
    Content {
        skip: usize,
    },
}

impl Parser {
    /// A parser of a form with this boundary, and at most so many parts.
    pub(super) fn new(boundary: &str, most_parts: usize) -> Parser {
        let delimiter = format!("\r\n--{boundary}");
        Parser {
            delimiter: memmem::Finder::new(&delimiter).into_owned(),
            state: State::Start,
            parts: 0,
            most_parts,
        }
    }

    /// What comes next in `bytes`, and how many of them are done with, once that has been looked at. The next call
    /// gets the others, with what has arrived since behind them. `ended` says that nothing will.
    pub(super) fn next(&mut self, bytes: &[u8], ended: bool) -> Result<(usize, Event), Malformed> {
        match self.advance(bytes, ended)? {
            (_, Event::More) if ended => Err(Cow::Borrowed(BREAKS_OFF)),
            found => Ok(found),
        }
    }

    fn advance(&mut self, bytes: &[u8], ended: bool) -> Result<(usize, Event), Malformed> {
        let mut at = 0;
        loop {
            let rest = &bytes[at..];
            let length = self.delimiter.needle().len();
            match self.state {
                State::Start if rest.len() < length - 2 && !ended => return Ok((at, Event::More)),
                State::Start if rest.starts_with(&self.delimiter.needle()[2..]) => {
                    at += length - 2;
                    self.state = State::Delimiter;
                }
                State::Start => self.state = State::Preamble,
                State::Preamble => match self.delimiter.find(rest) {
                    Some(found) => {
                        at += found + length;
                        self.state = State::Delimiter;
                    }
                    None if ended => return Err(Cow::Borrowed("there is no delimiter")),
                    None => return Ok((at + rest.len().saturating_sub(length - 1), Event::More)),
                },
                State::Delimiter if rest.len() < 2 => return Ok((at, Event::More)),
                State::Delimiter if rest.starts_with(b"--") => return Ok((at + 2, Event::End)),
                State::Delimiter => self.state = State::Padding,
                State::Padding => {
                    let padding = rest.iter().take_while(|byte| b" \t".contains(byte)).count();
                    at += padding;
                    if rest[padding..].len() < 2 && !ended {
                        return Ok((at, Event::More));
                    }
                    if !rest[padding..].starts_with(b"\r\n") {
                        return Err(Cow::Borrowed("a delimiter does not end its line"));
                    }
                    if self.parts == self.most_parts {
                        let most = self.most_parts;
                        return Err(Cow::Owned(format!("it has more than {most} parts")));
                    }
                    self.parts += 1;
                    self.state = State::Head;
                }
                State::Head => {
                    let (taken, event) = self.head(rest)?;
                    return Ok((at + taken, event));
                }
                State::Content { skip } => {
                    let (content, event) = match self.delimiter.find(rest) {
                        Some(end) if end <= skip => {
                            self.state = State::Delimiter;
                            return Ok((at + end + length, Event::PartEnd));
                        }
                        Some(end) => (end, Event::Content(at + skip..at + end)),
                        None if ended => return Err(Cow::Borrowed(BREAKS_OFF)),
                        // The last bytes can be the first ones of a delimiter.
                        None => match rest.len().saturating_sub(length - 1) {
                            safe if safe > skip => (safe, Event::Content(at + skip..at + safe)),
                            _ => return Ok((at, Event::More)),
                        },
                    };
                    self.state = State::Content { skip: 0 };
                    return Ok((at + content, event));
                }
            }
        }
    }

    /// The headers of a part, from the line break in front of them. No header can hide a delimiter.
    fn head(&mut self, bytes: &[u8]) -> Result<(usize, Event), Malformed> {
        let window = &bytes[2..bytes.len().min(2 + HEADERS)];
        let end = memmem::find(window, b"\r\n\r\n");
        // No delimiter goes beyond a line break: one that begins in front of the blank line ends there, too.
        let delimiter = self.delimiter.find(&bytes[..2 + end.unwrap_or(window.len())]);
        match (end, delimiter) {
            (_, Some(_)) => Err(Cow::Borrowed("the headers of a part do not end")),
            (None, None) if window.len() == HEADERS => {
                Err(Cow::Borrowed("a part has more than 8 KiB of headers"))
            }
            (None, None) => Ok((0, Event::More)),
            (Some(end), None) => {
                let part = headers(&window[..end])?;
                self.state = State::Content { skip: 2 };
                // The second line break stays.
                Ok((2 + end + 2, Event::Part(part)))
            }
        }
    }
}

const BREAKS_OFF: &str = "it breaks off: the last delimiter is missing";
