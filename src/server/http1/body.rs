//! A request's body, decoded as it arrives.

use super::{Framing, Refused, is_text, is_token};

/// The longest line that announces a chunk, extensions included.
const MAX_SIZE_LINE: usize = 256;

/// The longest trailer section, and how many fields it may have. Nobody reads them.
const MAX_TRAILERS: usize = 8 * 1024;
const MAX_TRAILER_FIELDS: usize = 100;

/// Takes a body's bytes off the wire, in pieces of any size.
#[derive(Debug)]
pub(crate) struct BodyDecoder(State);

#[derive(Debug)]
enum State {
    Plain(u64),
    /// The line that announces a chunk: the size so far, how many bytes of the line were seen.
    Size {
        size: Option<u64>,
        seen: usize,
        part: SizePart,
    },
    Data(u64),
    /// The line end behind a chunk's data.
    AfterData {
        cr: bool,
    },
    Trailers {
        line: usize,
        colon: bool,
        total: usize,
        fields: usize,
        cr: bool,
    },
    Done,
    /// Stays so, whatever follows.
    Refused(Refused),
}

/// The parts of `chunk-size *( BWS ";" BWS name [ BWS "=" BWS value ] )`, RFC 9112 section 7.1.1.
#[derive(Clone, Copy, Debug, PartialEq)]
enum SizePart {
    Digits,
    /// Behind a semicolon: a name must follow.
    Begun,
    Name,
    NameSpaces,
    /// Behind an equals sign: a value must follow.
    Equals,
    Token,
    Quoted,
    /// Behind a backslash in a quoted string.
    Escaped,
    QuoteEnd,
    /// Behind a size or value: only a semicolon may follow.
    Spaces,
    Cr,
}

impl SizePart {
    fn next(self, byte: u8) -> Option<SizePart> {
        use SizePart::*;
        Some(match (self, byte) {
            (Digits, byte) if byte.is_ascii_hexdigit() => Digits,
            (Digits | Name | Token | QuoteEnd, b'\r') => Cr,
            (Digits | Name | NameSpaces | Token | QuoteEnd | Spaces, b';') => Begun,
            (Digits | Token | QuoteEnd | Spaces, b' ' | b'\t') => Spaces,
            (Begun | Equals, b' ' | b'\t') => self,
            (Begun | Name, byte) if is_token(byte) => Name,
            (Name | NameSpaces, b' ' | b'\t') => NameSpaces,
            (Name | NameSpaces, b'=') => Equals,
            (Equals | Token, byte) if is_token(byte) => Token,
            (Equals, b'"') => Quoted,
            (Quoted, b'"') => QuoteEnd,
            (Quoted, b'\\') => Escaped,
            (Quoted | Escaped, byte) if is_text(byte) => Quoted,
            _ => return None,
        })
    }
}

/// How far one piece went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decoded {
    /// Bytes of the input that belong to the body and were taken.
    pub(crate) consumed: usize,
    /// Whether the body has ended.
    pub(crate) done: bool,
}

impl BodyDecoder {
    pub(crate) fn new(framing: Framing) -> BodyDecoder {
        BodyDecoder(match framing {
            Framing::Empty | Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Plain(length),
            Framing::Chunked => State::next_size(),
        })
    }

    pub(crate) fn is_done(&self) -> bool {
        matches!(self.0, State::Done)
    }

    /// Moves what `input` holds of the body to `out`, and stops before what would make `out` longer than
    /// `limit`.
    pub(crate) fn decode(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        limit: usize,
    ) -> Result<Decoded, Refused> {
        let mut at = 0;
        while at < input.len() {
            match &mut self.0 {
                State::Done => break,
                State::Refused(refused) => return Err(*refused),
                State::Plain(left) | State::Data(left) => {
                    let room = limit.saturating_sub(out.len());
                    let left_here = usize::try_from(*left).unwrap_or(usize::MAX);
                    let take = (input.len() - at).min(left_here).min(room);
                    if take == 0 {
                        break;
                    }
                    out.extend_from_slice(&input[at..at + take]);
                    *left -= take as u64;
                    at += take;
                    if *left == 0 {
                        self.0 = match self.0 {
                            State::Plain(_) => State::Done,
                            _ => State::AfterData { cr: false },
                        };
                    }
                }
                _ => {
                    if let Err(refused) = self.line_byte(input[at]) {
                        self.0 = State::Refused(refused);
                        return Err(refused);
                    }
                    at += 1;
                }
            }
        }
        Ok(Decoded { consumed: at, done: self.is_done() })
    }

    /// One byte of what stands between the chunks.
    fn line_byte(&mut self, byte: u8) -> Result<(), Refused> {
        match &mut self.0 {
            State::Size { size, seen, part } => {
                *seen += 1;
                if *seen > MAX_SIZE_LINE {
                    return Err(Refused::BAD);
                }
                if *part == SizePart::Cr {
                    self.0 = match (byte, *size) {
                        (b'\n', Some(0)) => State::trailers(),
                        (b'\n', Some(size)) => State::Data(size),
                        _ => return Err(Refused::BAD),
                    };
                    return Ok(());
                }
                *part = part.next(byte).ok_or(Refused::BAD)?;
                if *part == SizePart::Digits {
                    let digit = (byte as char).to_digit(16).map_or(0, u64::from);
                    let grown = size.unwrap_or(0).checked_mul(16).ok_or(Refused::BAD)?;
                    *size = Some(grown + digit);
                } else if size.is_none() {
                    return Err(Refused::BAD);
                }
            }
            State::AfterData { cr } => match (*cr, byte) {
                (false, b'\r') => *cr = true,
                (true, b'\n') => self.0 = State::next_size(),
                _ => return Err(Refused::BAD),
            },
            State::Trailers { line, colon, total, fields, cr } => {
                *total += 1;
                if *total > MAX_TRAILERS {
                    return Err(Refused::TOO_LARGE);
                }
                match (*cr, byte) {
                    (true, b'\n') if *line == 0 => self.0 = State::Done,
                    (true, b'\n') if *colon && *fields == MAX_TRAILER_FIELDS => {
                        return Err(Refused::TOO_LARGE);
                    }
                    (true, b'\n') if *colon => {
                        (*line, *colon, *cr) = (0, false, false);
                        *fields += 1;
                    }
                    (false, b'\r') => *cr = true,
                    (false, b':') if *line > 0 => (*line, *colon) = (*line + 1, true),
                    (false, byte) if *colon && is_text(byte) => *line += 1,
                    (false, byte) if !*colon && is_token(byte) => *line += 1,
                    _ => return Err(Refused::BAD),
                }
            }
            State::Plain(_) | State::Data(_) | State::Done | State::Refused(_) => {}
        }
        Ok(())
    }
}

impl State {
    fn next_size() -> State {
        State::Size { size: None, seen: 0, part: SizePart::Digits }
    }

    fn trailers() -> State {
        State::Trailers { line: 0, colon: false, total: 0, fields: 0, cr: false }
    }
}
