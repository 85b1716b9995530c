//! Whether answers are right: before a cell is measured, beside the load, and after it.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::http::Client;
use super::options::Case;
use super::running::{Running, SESSIONS};
use crate::Failure;

/// Between two requests of the checker, so that it takes little from the load.
const PAUSE: Duration = Duration::from_millis(20);
/// How many sessions of the load are looked at.
const SAMPLE: usize = 16;

/// A visitor with a session of its own, who looks at each answer.
pub struct Checker {
    case: Case,
    client: Client,
    cookie: String,
    count: u64,
    created: Vec<(String, String)>,
}

impl Checker {
    pub fn new(case: Case, running: &Running) -> Result<Checker, Failure> {
        let mut client = Client::new(running.port);
        let cookie = match case {
            Case::Read | Case::Change => client.create("checker")?,
            Case::Plain | Case::Create => String::new(),
        };
        let mut checker = Checker { case, client, cookie, count: 0, created: Vec::new() };
        checker.ask()?;
        Ok(checker)
    }

    /// Asks until told to stop; returns how often.
    pub fn ask_until(&mut self, stop: &AtomicBool) -> Result<u64, Failure> {
        let mut asked = 0;
        while !stop.load(Ordering::Relaxed) {
            thread::sleep(PAUSE);
            self.ask()?;
            asked += 1;
        }
        Ok(asked)
    }

    fn ask(&mut self) -> Result<(), Failure> {
        match self.case {
            Case::Plain => expect(self.client.text("/plain", "")?, "hello"),
            Case::Read => expect(self.client.text("/read", &self.cookie)?, "Hello, checker"),
            Case::Change => {
                self.count += 1;
                expect(self.client.text("/change", &self.cookie)?, &self.count.to_string())
            }
            Case::Create => {
                let name = format!("new-{}", self.created.len());
                let cookie = self.client.create(&name)?;
                self.created.push((name, cookie));
                Ok(())
            }
        }
    }

    /// What was made beside the load is there, each under a cookie of its own.
    pub fn after(mut self) -> Result<(), Failure> {
        for (name, cookie) in &self.created {
            expect(self.client.text("/read", cookie)?, &format!("Hello, {name}"))?;
        }
        Ok(())
    }
}

fn expect(body: String, expected: &str) -> Result<(), Failure> {
    if body == expected {
        Ok(())
    } else {
        Err(format!("answered {body:?} and not {expected:?}").into())
    }
}

/// Some sessions of the load hold what they should.
pub fn names(running: &Running) -> Result<(), Failure> {
    let mut client = Client::new(running.port);
    for n in (0..SESSIONS).step_by(SESSIONS / SAMPLE) {
        expect(client.text("/read", &running.sessions[n])?, &format!("Hello, visitor-{n}"))?;
    }
    Ok(())
}

/// The sum of the counts in the first sessions of the load.
pub fn counts(running: &Running) -> Result<u64, Failure> {
    let mut client = Client::new(running.port);
    let count = |cookie: &String| Ok(client.text("/count", cookie)?.parse::<u64>()?);
    running.sessions[..SAMPLE].iter().map(count).sum()
}

/// How far these counts go up where the load's sessions take turns. Requests that were under way when wrk stopped
/// may have been carried out or not.
pub fn counted(requests: u64, connections: usize) -> RangeInclusive<u64> {
    let (all, sample) = (SESSIONS as u64, SAMPLE as u64);
    let up_to = |requests: u64| requests / all * sample + (requests % all).min(sample);
    // Two requests of one session can meet where many are under way, and one of the changes is lost then: all of
    // these servers but the two by hand and bottle's read, count and write.
    let least = up_to(requests);
    let lost = if connections == 1 { 0 } else { least / 50 };
    least - lost..=up_to(requests + connections as u64)
}
