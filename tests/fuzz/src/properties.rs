//! What the parser promises about any input, without comparing it with another.

use crate::corpus::{Conversation, End, LIMITS, Seen};
use crate::http1::Framing;
use crate::random::Random;

/// Checks them all; where `thorough`, with the input cut at every byte.
pub(crate) fn check(input: &[u8], thorough: bool, random: &mut Random) -> Conversation {
    let whole = Conversation::of([input]);
    cuts_change_nothing(input, &whole, thorough, random);
    what_follows_changes_nothing(input, &whole, random);
    requests_stand_side_by_side(input, &whole);
    for seen in &whole.seen {
        written_anew_it_is_the_same(seen);
    }
    whole
}

fn cuts_change_nothing(input: &[u8], whole: &Conversation, thorough: bool, random: &mut Random) {
    same(&Conversation::of(input.chunks(1)), whole, "byte by byte");
    let (mut pieces, mut rest) = (Vec::new(), input);
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(1 + random.below(rest.len().min(40)));
        pieces.push(piece);
        rest = behind;
    }
    same(&Conversation::of(pieces), whole, "in pieces");
    let cuts = if thorough && input.len() < 1000 { input.len() } else { 1 };
    for cut in 0..cuts {
        let (one, two) = input.split_at(if thorough { cut } else { random.below(input.len()) });
        same(&Conversation::of([one, two]), whole, "cut in two");
    }
}

/// The same requests and the same verdict. What is wrong in two ways may be refused for either.
fn same(cut: &Conversation, whole: &Conversation, how: &str) {
    assert_eq!(cut.seen, whole.seen, "{how}");
    match (cut.end(), whole.end()) {
        (End::Refused(_), End::Refused(_)) => {}
        (cut, whole) => assert_eq!(cut, whole, "{how}"),
    }
}

/// What was refused stays refused, and what was accepted stays what it was.
fn what_follows_changes_nothing(input: &[u8], whole: &Conversation, random: &mut Random) {
    let tail =
        random.one_of(&["\r\n\r\n", "0\r\n\r\n", "GET / HTTP/1.1\r\n", "\0", "a"]).as_bytes();
    for longer in [Conversation::of([&[input, tail].concat()[..]]), Conversation::of([input, tail])]
    {
        assert!(longer.seen.starts_with(&whole.seen), "a request changed its meaning");
        match whole.end() {
            End::Refused(_) => {
                assert!(matches!(longer.end(), End::Refused(_)), "no longer refused");
                assert_eq!(longer.seen.len(), whole.seen.len(), "served after it was refused");
            }
            End::Closed => assert_eq!((longer.end(), &longer.seen), (End::Closed, &whole.seen)),
            End::Clean | End::Incomplete => {}
        }
    }
}

fn requests_stand_side_by_side(input: &[u8], whole: &Conversation) {
    let mut end = 0;
    for seen in &whole.seen {
        assert_eq!(seen.begin, end, "a gap between requests");
        assert!(
            seen.body_begin > seen.begin && seen.end >= seen.body_begin && seen.end <= input.len()
        );
        end = seen.end;
        // Alone it is the same request.
        let alone = Conversation::of([&input[seen.begin..seen.end]]);
        assert_eq!(alone.seen.len(), 1, "not a request without its neighbours");
        assert_eq!(moved(&alone.seen[0]), moved(seen));
        if let Framing::Length(length) = seen.framing {
            let body = &input[seen.body_begin..seen.end];
            assert!(seen.body == body && length == body.len() as u64, "not the body that was sent");
        }
    }
}

/// A small writer of requests, whose output is read as the same request.
fn written_anew_it_is_the_same(seen: &Seen) {
    let mut text = format!("{} {} {:?}\r\n", seen.method, seen.target, seen.version).into_bytes();
    for (name, value) in &seen.headers {
        text.extend_from_slice(name.as_str().as_bytes());
        text.push(b':');
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"\r\n");
    // An absolute target has become a Host header, which may be one too many.
    if seen.headers.len() > LIMITS.fields || text.len() > LIMITS.bytes {
        return;
    }
    if seen.framing == Framing::Chunked {
        for chunk in seen.body.chunks(7) {
            text.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            text.extend_from_slice(chunk);
            text.extend_from_slice(b"\r\n");
        }
        text.extend_from_slice(b"0\r\n\r\n");
    } else {
        text.extend_from_slice(&seen.body);
    }
    let again = Conversation::of([&text[..]]);
    assert_eq!(again.left(), 0);
    assert_eq!(again.seen.iter().map(moved).collect::<Vec<_>>(), [moved(seen)]);
}

/// Without its place.
fn moved(seen: &Seen) -> Seen {
    Seen { begin: 0, body_begin: 0, end: 0, ..seen.clone() }
}
