//! Nanoseconds that each plugin adds to a request, in this process and without a socket: ours, and the layer of
//! tower-http that does the same. What a bare app of each takes is subtracted; the least of several rounds counts.

mod ours;
mod theirs;

use std::time::Instant;

/// How many requests a round has, how many of pages, and how many rounds there are.
const REQUESTS: usize = 20_000;
const PAGES: usize = 200;
const ROUNDS: usize = 15;

/// What is measured: the plugin, and whether a request or its answer is special.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Case {
    Bare,
    RequestId,
    AccessLog,
    Metrics,
    SecurityHeaders,
    Cors,
    RateLimit,
    BasicAuth,
    /// A page of 8 KiB, uncompressed as the client accepts nothing.
    BarePage,
    Gzip,
    Brotli,
}

impl Case {
    const ALL: [Case; 11] = [
        Case::Bare,
        Case::RequestId,
        Case::AccessLog,
        Case::Metrics,
        Case::SecurityHeaders,
        Case::Cors,
        Case::RateLimit,
        Case::BasicAuth,
        Case::BarePage,
        Case::Gzip,
        Case::Brotli,
    ];

    fn base(self) -> Case {
        match self {
            Case::BarePage | Case::Gzip | Case::Brotli => Case::BarePage,
            _ => Case::Bare,
        }
    }

    fn requests(self) -> usize {
        if self.base() == Case::BarePage { PAGES } else { REQUESTS }
    }

    /// Headers of the request.
    fn headers(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Case::Cors => &[("origin", "https://app.example")],
            Case::BasicAuth => &[("authorization", "Basic YWRhOnNlY3JldA==")],
            Case::Gzip => &[("accept-encoding", "gzip")],
            Case::Brotli => &[("accept-encoding", "br")],
            _ => &[],
        }
    }
}

/// A page as sites have them: 8 KiB of markup.
fn page() -> String {
    let row = |number: usize| {
        let price = number * 7919 % 1000;
        format!(
            "<tr><td>{number}</td><td class=\"name\">item {price}</td><td>{price}.99</td></tr>\n"
        )
    };
    let mut page: String = (0..200).map(row).collect();
    page.truncate(8 * 1024);
    page
}

/// The least time of a request over all rounds, in nanoseconds.
fn measure(requests: usize, mut request: impl FnMut()) -> f64 {
    let mut least = f64::INFINITY;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        (0..requests).for_each(|_| request());
        least = least.min(start.elapsed().as_secs_f64() * 1e9 / requests as f64);
    }
    least
}

fn main() {
    println!("| | bottle-session | tower-http |\n|---|---|---|");
    let mut bare = Vec::new();
    for case in Case::ALL {
        let (ours, theirs) = (
            measure(case.requests(), ours::service(case)),
            theirs::service(case).map(|service| measure(case.requests(), service)),
        );
        if case == case.base() {
            let theirs = theirs.expect("a bare service");
            println!("| {case:?} | {ours:.0} ns | {theirs:.0} ns |");
            bare.push((case, ours, theirs));
            continue;
        }
        let base = bare.iter().find(|(base, ..)| *base == case.base()).expect("measured before");
        let theirs = theirs.map_or("-".to_owned(), |theirs| format!("+{:.0} ns", theirs - base.2));
        println!("| {case:?} | +{:.0} ns | {theirs} |", ours - base.1);
    }
}
