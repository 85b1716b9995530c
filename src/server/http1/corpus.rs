//! Conversations read to their end, and the corpus of them in tests/corpus/http1, each file in the directory
//! of its verdict. The fuzzer in tests/fuzz compiles this file too, and starts from the same corpus.

use std::path::{Path, PathBuf};

use http::header::HeaderMap;
use http::{Method, Version};

use super::{BodyDecoder, Framing, Head, HeadLimits, Parsed, Refused, parse_head};

/// Small, so that what is too much is still a small file.
pub(crate) const LIMITS: HeadLimits = HeadLimits { bytes: 4096, target: 512, fields: 32 };

/// How much of a body is decoded at once.
const PIECE: usize = 16;

/// A request that was read to its end.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) target: String,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    pub(crate) framing: Framing,
    pub(crate) keep_alive: bool,
    pub(crate) expect_continue: bool,
    pub(crate) body: Vec<u8>,
    /// Where it begins and ends in the conversation, and its body begins.
    pub(crate) begin: usize,
    pub(crate) body_begin: usize,
    pub(crate) end: usize,
}

/// How a conversation ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Behind a request.
    Clean,
    /// Behind a request that closes its connection.
    Closed,
    /// Inside a request.
    Incomplete,
    Refused(u16),
}

/// A server's view of one connection's bytes.
#[derive(Debug, Default)]
pub(crate) struct Conversation {
    pub(crate) seen: Vec<Seen>,
    input: Vec<u8>,
    consumed: usize,
    /// The request whose body is being read.
    pub(crate) gathering: Option<(Box<Head>, BodyDecoder, Vec<u8>)>,
    /// Where the request that is being read begins, and its body.
    begin: usize,
    body_begin: usize,
    over: Option<End>,
}

impl Conversation {
    /// What the pieces say together.
    pub(crate) fn of<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Conversation {
        let mut conversation = Conversation::default();
        for piece in pieces {
            conversation.push(piece);
        }
        conversation
    }

    pub(crate) fn push(&mut self, piece: &[u8]) {
        self.input.extend_from_slice(piece);
        while self.over.is_none() {
            match self.step() {
                Ok(true) => {}
                Ok(false) => break,
                Err(Refused(status)) => self.over = Some(End::Refused(status.as_u16())),
            }
        }
    }

    pub(crate) fn end(&self) -> End {
        match self.over {
            Some(end) => end,
            None if self.input.is_empty() && self.gathering.is_none() => End::Clean,
            None => End::Incomplete,
        }
    }

    /// Bytes that no request took.
    pub(crate) fn left(&self) -> usize {
        self.input.len()
    }

    /// Whether there is more to be understood without more input.
    fn step(&mut self) -> Result<bool, Refused> {
        let Some((head, mut decoder, mut body)) = self.gathering.take() else {
            let Parsed::Complete(head) = parse_head(&self.input, &LIMITS)? else {
                return Ok(false);
            };
            assert!(head.consumed <= self.input.len(), "a head longer than the input");
            self.begin = self.consumed;
            self.consume(head.consumed);
            self.body_begin = self.consumed;
            let decoder = BodyDecoder::new(head.framing);
            self.gathering = Some((head, decoder, Vec::new()));
            return Ok(true);
        };
        let mut piece = Vec::new();
        let step = decoder.decode(&self.input, &mut piece, PIECE)?;
        assert!(step.consumed <= self.input.len(), "more of a body than there is");
        assert!(piece.len() <= PIECE, "a body that exceeds its limit");
        assert!(piece.len() <= step.consumed, "a body that is longer than its bytes");
        self.consume(step.consumed);
        body.extend_from_slice(&piece);
        if !step.done {
            self.gathering = Some((head, decoder, body));
            return Ok(step.consumed > 0);
        }
        if !head.keep_alive {
            self.over = Some(End::Closed);
        }
        self.seen.push(Seen {
            method: head.method,
            target: head.target.to_string(),
            version: head.version,
            headers: head.headers,
            framing: head.framing,
            keep_alive: head.keep_alive,
            expect_continue: head.expect_continue,
            body,
            begin: self.begin,
            body_begin: self.body_begin,
            end: self.consumed,
        });
        Ok(!self.input.is_empty())
    }

    fn consume(&mut self, count: usize) {
        self.input.drain(..count);
        self.consumed += count;
    }
}

/// The files of the corpus in order: the verdict that each must get, its name, its bytes.
pub(crate) fn corpus() -> Vec<(String, PathBuf, Vec<u8>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // The fuzzer is a package of its own, in tests/fuzz.
    let root = if root.ends_with("tests/fuzz") { root.join("../..") } else { root.to_owned() };
    let mut files = Vec::new();
    for verdict in entries(&root.join("tests/corpus/http1")) {
        if !verdict.is_dir() {
            continue;
        }
        let name = verdict.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for file in entries(&verdict) {
            let bytes = std::fs::read(&file).unwrap();
            files.push((name.clone(), file, bytes));
        }
    }
    files
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap_or_else(|e| panic!("{directory:?}: {e}"));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// The verdict in the words of the corpus.
pub(crate) fn verdict(conversation: &Conversation) -> String {
    match conversation.end() {
        End::Clean => "accepted".to_owned(),
        // Behind the last request there may be bytes that nobody reads, but no file of ours has any.
        End::Closed if conversation.left() == 0 => "accepted".to_owned(),
        End::Closed => "closed".to_owned(),
        End::Incomplete => "incomplete".to_owned(),
        End::Refused(status) => format!("refused-{status}"),
    }
}

#[test]
fn the_corpus_gets_its_verdicts_however_it_is_cut() {
    let files = corpus();
    assert!(files.len() > 400, "{} files", files.len());
    let mut wrong = Vec::new();
    for (expected, path, bytes) in files {
        let whole = Conversation::of([&bytes[..]]);
        if verdict(&whole) != expected {
            wrong.push(format!("{path:?}: {}", verdict(&whole)));
            continue;
        }
        let single = Conversation::of(bytes.chunks(1));
        assert_eq!((verdict(&single), &single.seen), (expected.clone(), &whole.seen), "{path:?}");
        for cut in 0..bytes.len() {
            let (one, two) = bytes.split_at(cut);
            let halves = Conversation::of([one, two]);
            assert_eq!(verdict(&halves), expected, "{path:?} cut at {cut}");
            assert_eq!(halves.seen, whole.seen, "{path:?} cut at {cut}");
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What the accepted files say, request by request: a parser that took them for something else would be
/// accepted otherwise.
#[test]
fn the_accepted_corpus_means_what_it_says() {
    let mut text = String::new();
    for (_, path, bytes) in corpus().into_iter().filter(|(verdict, ..)| verdict == "accepted") {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for seen in Conversation::of([&bytes[..]]).seen {
            let Seen { method, target, version, framing, keep_alive, expect_continue, .. } = &seen;
            let kept = if *keep_alive { "keep" } else { "close" };
            let expects = if *expect_continue { " expects" } else { "" };
            text += &format!("{name}: {method} {target} {version:?} {framing:?} {kept}{expects}");
            for (name, value) in &seen.headers {
                text += &format!(" | {name}: {}", value.as_bytes().escape_ascii());
            }
            text += &format!(" | {}\n", seen.body.escape_ascii());
        }
    }
    let expected = include_str!("../../../tests/corpus/http1/accepted.txt");
    let first = text.lines().zip(expected.lines()).find(|(is, expected)| is != expected);
    assert!(text == expected, "tests/corpus/http1/accepted.txt: {first:#?}; now all is\n{text}");
}
