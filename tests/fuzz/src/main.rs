//! Fuzzes the HTTP/1 parser in src/server/http1 and compares it with hyper and httparse; and the parser of multipart
//! forms, in forms.rs, with multer.
//!
//! `cargo run --release` here (tests/run.sh does) reads the corpus in tests/corpus/http1, mutates it with an
//! idea of the grammar, and checks every input:
//! - properties.rs: what the parser promises by itself, however the bytes are cut;
//! - peers.rs: what it accepts means the same to hyper and to httparse.
//!
//! An input that shows something new (novelty.rs) is kept and mutated further. That stands in for libFuzzer,
//! which needs a nightly compiler, as cargo-fuzz does; a stable one has counters of its own (`-C
//! instrument-coverage`), but reading them while the program runs takes `unsafe`.
//!
//! The work is bounded by a count and the same on each run. For more of it, in other places:
//! `FUZZ_CASES=100000000 FUZZ_SEED=7 cargo run --release`. An input that fails is written to the file that
//! the message names; it belongs into the corpus then, under the verdict it should have had.

#[path = "../../../src/server/http1/mod.rs"]
#[allow(dead_code, unused_imports)]
mod http1;

#[path = "../../../src/server/http1/corpus.rs"]
#[allow(dead_code)]
mod corpus;

#[path = "../../../src/message/forms/multipart/mod.rs"]
#[allow(dead_code)]
mod multipart;

mod forms;
mod mutate;
mod novelty;
mod peers;
mod properties;
mod random;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use corpus::{Conversation, End, corpus as corpus_files, verdict};
// What corpus.rs finds beside itself where it is part of the parser.
use http1::{BodyDecoder, Framing, Head, HeadLimits, Parsed, Refused, parse_head};
use novelty::Novelty;
use peers::Tally;
use random::Random;

fn main() {
    let cases = number("FUZZ_CASES", 100_000);
    let seed = number("FUZZ_SEED", 1);
    let mut random = Random::new(seed);
    forms::fuzz(cases, &mut random);
    let (mut novelty, mut tally) = (Novelty::default(), Tally::default());
    // Most of what is mutated was not refused: what is wrong already seldom becomes more interesting.
    let (mut pool, mut sound) = (Vec::new(), Vec::new());
    for (expected, path, input) in corpus_files() {
        let found = check(&input, true, &mut random, &mut tally);
        assert_eq!(verdict(&found), expected, "{path:?}");
        novelty.is_new(&input, &found);
        if !matches!(found.end(), End::Refused(_)) {
            sound.push(input.clone());
        }
        pool.push(input);
    }
    let files = pool.len();
    let (mut longest, mut accepted) = (0, 0);
    for _ in 0..cases {
        let base = if random.below(4) == 0 { &pool } else { &sound };
        let input = mutate::mutate(random.one_of(base).clone(), &pool, &mut random);
        let found = check(&input, false, &mut random, &mut tally);
        longest = longest.max(input.len());
        accepted += usize::from(!found.seen.is_empty());
        if novelty.is_new(&input, &found) {
            check(&input, true, &mut random, &mut tally);
            if !matches!(found.end(), End::Refused(_)) {
                sound.push(input.clone());
            }
            pool.push(input);
        }
    }
    println!("seed {seed}: {files} files, {cases} cases, the longest of {longest} bytes");
    println!("{} kept for {} novelties", pool.len() - files, novelty.len());
    println!("{accepted} begin with a request that is accepted");
    tally.print();
    // A fuzzer whose mutations are all refused, or never news, checks nothing.
    assert!(cases < 10_000 || accepted * 10 > cases as usize, "{accepted} accepted");
    assert!(cases < 10_000 || pool.len() > files + 100, "{} kept", pool.len() - files);
}

/// Reads the input, and checks all that holds for any input; where `thorough`, cut at every byte.
fn check(input: &[u8], thorough: bool, random: &mut Random, tally: &mut Tally) -> Conversation {
    let checked = catch_unwind(AssertUnwindSafe(|| {
        let found = properties::check(input, thorough, random);
        peers::check(input, &found, tally);
        found
    }));
    checked.unwrap_or_else(|_| {
        let path = write_failure(input);
        panic!("failed: the input is in {}: {}", path.display(), input.escape_ascii());
    })
}

fn write_failure(input: &[u8]) -> PathBuf {
    // FNV-1a: a name that is the same for the same input.
    let hash = input.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let path = std::env::temp_dir().join(format!("http1-failure-{hash:016x}"));
    std::fs::write(&path, input).unwrap();
    path
}

fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|e| panic!("{variable}={text}: {e}")),
        Err(_) => default,
    }
}
